"""Scores of a cohort for every subset of the sequences, kept on disk case by case, so that an interrupted measurement goes on.

    key = SHA-256(software, weights, sequences they read, model definition, content of the case's files)

An entry holds what the network said and how well it segmented, but neither identifiers nor molecular labels: these come from the case each
time, and heads that nobody trained are left out then. A case counts only if it has every sequence the model reads, for otherwise the
subsets would not be measured on the same patients.

Shapes: B batch, M modality, R region, L level, K masks (tumour, brain), X Y Z voxels.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field, ValidationError
from torch import Tensor

from gmmas_data.cache import content_key
from gmmas_data.cases import Case
from gmmas_data.preprocessing import preprocess_case
from gmmas_data.samples import Sample
from gmmas_model.batch import Batch
from gmmas_model.inference import evaluation_mode
from gmmas_model.metrics import dice
from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import Weights, make_network
from gmmas_model.windows import brain_mask, lay_windows
from gmmas_runtime.files import make_private_folder, write_atomic
from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import DataError, ReasonCode
from gmmas_schema.vocabulary import MARKERS, REGIONS, Modality, Region, Task
from gmmas_workflows.batches import restrict
from gmmas_workflows.evaluation import CaseScore, native_regions, score_cases, subsets
from gmmas_workflows.inference import readable_modalities
from gmmas_workflows.significance import CaseGates, Subset, subset_name

SCORES_VERSION: Final = 1
"""Raised with any change that changes a score."""

Progress = Callable[[int, int], None]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SubsetScores:
    """A cohort under every subset.

    Attributes:
        scores: by subset, the largest first and the empty one last; the same cases in the same order.
        gates: of each of these cases, per level.
        left_out: cases that lack a sequence the model reads.
        bad: cases that fail the quality gate.
    """

    scores: Mapping[Subset, Sequence[CaseScore]]
    gates: Sequence[Sequence[CaseGates]]
    left_out: tuple[str, ...]
    bad: tuple[str, ...]


class ShownScore(FrozenModel):
    """What the network said about a case of which it was shown some sequences, and how well it segmented."""

    probability: dict[Task, float]
    dice: dict[Region, float]


class CaseRecord(FrozenModel):
    """One entry on disk: scores by the name of the subset, and gate weights per level."""

    scores: dict[str, ShownScore] = Field(default_factory=dict)
    gates: tuple[CaseGates, ...] = ()


def measure_subsets(
    cases: Sequence[Case], weights: Weights, folder: Path, *, skip_bad: bool = False, on_progress: Progress | None = None
) -> SubsetScores:
    """Score every case on its own voxels for every subset of the sequences the model reads.

    Args:
        cases: the cohort.
        weights: the model; computed on CUDA where present, else on the CPU.
        folder: where the entries are kept; made where it is missing.
        skip_bad: go on after a case that fails the quality gate.
        on_progress: called with (done, total) predictions.

    Raises:
        DataError: a case fails the quality gate and `skip_bad` is off; or no case is left.
    """
    network = make_network(weights, modalities=readable_modalities(weights)).to("cuda" if torch.cuda.is_available() else "cpu")
    complete = [case for case in cases if set(network.modalities) <= set(case.modalities)]
    order: list[Subset] = [*subsets(network.modalities), ()]
    make_private_folder(folder)
    found: list[tuple[Case, CaseRecord]] = []
    bad: list[str] = []
    for number, case in enumerate(complete):

        def report(done: int, before: int = number * len(order)) -> None:
            if on_progress is not None:
                on_progress(before + done, len(complete) * len(order))

        try:
            found.append((case, _measure(network, case, weights, folder, order, report)))
        except DataError:
            if not skip_bad:
                raise
            bad.append(case.case_id)
        report(len(order))
    if not found:
        raise DataError(
            "no case has every sequence that the model reads",
            got=f"{len(cases)} cases, {len(bad)} of them bad",
            expected=f"cases with {', '.join(network.modalities)}",
            remedy="take another cohort, or a model of fewer sequences",
            code=ReasonCode.DATA_EMPTY,
        )
    return SubsetScores(
        scores={subset: [_case_score(case, subset, record).without(weights.untrained) for case, record in found] for subset in order},
        gates=[record.gates for _, record in found],
        left_out=tuple(case.case_id for case in cases if case not in complete),
        bad=tuple(bad),
    )


def mean_gates(network: GmmasNetwork, sample: Sample, *, patch: tuple[int, int, int] | None = None) -> tuple[CaseGates, ...]:
    """Return the mean gate weights of each level, finest first, for a sample with all sequences of the network.

    A coarse voxel counts by the share of it that is tumour, or brain; a voxel of several windows counts once.

    Args:
        network: on the device to compute on.
        sample: the case.
        patch: voxels of a window (GridConfig.patch); None for the whole volume.
    """
    (shown,) = restrict([sample], network.modalities)
    batch = Batch.collate([shown])
    image_BMXYZ, present_BM, device = batch.image_BMXYZ, batch.present_BM, next(network.parameters()).device
    masks_KXYZ = torch.stack([batch.regions_BRXYZ[0, 0], brain_mask(image_BMXYZ, present_BM).float()])
    levels = len(network.config.channels)
    sums_LKM = torch.zeros(levels, len(masks_KXYZ), len(network.modalities), dtype=torch.float64)
    for place, share_XYZ in lay_windows(image_BMXYZ, present_BM, patch=patch):
        weight_KXYZ = masks_KXYZ[(..., *place)] * (1 if share_XYZ is None else share_XYZ)
        with evaluation_mode(network), torch.inference_mode():
            present = present_BM.to(device)
            gates = network.weigh(network.encode(image_BMXYZ[(..., *place)].to(device), present), present)
        for level, gate_BMXYZ in enumerate(gates):
            gate_MXYZ = gate_BMXYZ[0].cpu().double()
            sums_LKM[level] += torch.einsum("kxyz,mxyz->km", F.avg_pool3d(weight_KXYZ, 2**level).double(), gate_MXYZ)
    return tuple(CaseGates(tumour=_shares(network, tumour_M), brain=_shares(network, brain_M)) for tumour_M, brain_M in sums_LKM)


def _measure(
    network: GmmasNetwork, case: Case, weights: Weights, folder: Path, order: Sequence[Subset], report: Callable[[int], None]
) -> CaseRecord:
    """Return the entry of a case; what is not on disk yet is computed and written subset by subset."""
    path = folder / f"{_key(case, weights)}.json"
    record = _read(path)
    missing = [subset for subset in order if subset_name(subset) not in record.scores]
    if not missing and record.gates:
        return record
    sample = preprocess_case(case, weights.definition.grid)
    record = record.model_copy(update={"gates": mean_gates(network, sample, patch=weights.definition.grid.patch)})
    for subset in missing:
        report(len(record.scores))
        score = _score(network, case, sample, subset, patch=weights.definition.grid.patch)
        record = record.model_copy(update={"scores": {**record.scores, subset_name(subset): score}})
        write_atomic(path, record.model_dump_json().encode(), durable=False)
    return record


def _score(network: GmmasNetwork, case: Case, sample: Sample, subset: Subset, *, patch: tuple[int, int, int] | None) -> ShownScore:
    """Score one subset; for the empty one the predictor that finds no tumour and gives everybody the same probability."""
    if subset:
        (score,) = score_cases(network, [case], lambda _: sample, modalities=subset, patch=patch)
        return ShownScore(probability=dict(score.probability), dice=dict(score.dice))
    truth_RXYZ = native_regions(case)
    truths = {} if truth_RXYZ is None else dict(zip(REGIONS, truth_RXYZ, strict=True))
    values = {region: dice(np.zeros_like(mask), mask) for region, mask in truths.items() if region in case.known_regions}
    return ShownScore(probability=dict.fromkeys(MARKERS, 0.5), dice=values)


def _case_score(case: Case, subset: Subset, record: CaseRecord) -> CaseScore:
    score = record.scores[subset_name(subset)]
    truth = {task: case.marker(task) for task in MARKERS}
    return CaseScore(
        case_id=case.case_id,
        patient_id=case.patient_id,
        modalities=subset,
        probability=score.probability,
        truth={task: label for task, label in truth.items() if label is not None},
        dice=score.dice,
    )


def _shares(network: GmmasNetwork, sum_M: Tensor) -> dict[Modality, float]:
    """Return sums of gate weights as shares of their total, which is the number of voxels; nothing for no voxel."""
    total = float(sum_M.sum())
    return {m: float(sum_M[place]) / total for place, m in enumerate(network.modalities)} if total else {}


def _key(case: Case, weights: Weights) -> str:
    identity = {
        "version": SCORES_VERSION,
        "software": version("gmmas-fed"),
        "weights": weights.sha256,
        "reads": weights.readable,
        "model": weights.definition.digest(),
        "case": content_key(case, weights.definition.grid),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> CaseRecord:
    """Return an entry, an empty one where it is missing or damaged."""
    try:
        return CaseRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return CaseRecord()
    except ValidationError:
        _LOG.warning("an entry of scores is damaged and made again")
        return CaseRecord()
