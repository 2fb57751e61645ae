"""From one case on disk to its findings: segmentation and probabilities on the case's own voxels, volumes, molecular probabilities.

1. Read, check and preprocess the case (gmmas_data).
2. Predict its box in one pass or by windows, averaged over mirror images; each prediction is calibrated before it is averaged.
3. Where asked for, repeat with dropped features: how far the answers spread.
4. Restore to the case's own voxels; threshold, measure, write down (gmmas_workflows.prediction_files).

Shapes: B batch of one, M modality, R region (WT, TC, ET), X Y Z voxels of the network's grid, I J K voxels of the case's files.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from gmmas_data.cases import Case
from gmmas_data.layouts import read_case
from gmmas_data.preprocessing import preprocess_case, restore_to_native
from gmmas_data.regions import labels_of
from gmmas_data.samples import Sample
from gmmas_model.batch import Batch
from gmmas_model.inference import predict_mirrored, progress_of_part
from gmmas_model.network import GmmasNetwork
from gmmas_model.temperature_fit import reasons_to_abstain
from gmmas_model.uncertainty import Uncertain, monte_carlo_mirrored, predictive_entropy
from gmmas_model.weights import Weights, make_network
from gmmas_schema.errors import DataError, ModelError, ReasonCode
from gmmas_schema.findings import Findings, UncertaintyFindings
from gmmas_schema.inference import InferencePlan
from gmmas_schema.vocabulary import MODALITIES, REGIONS, SEGMENTATION_VALUES, SUBTYPES, Modality, Region, Task
from gmmas_workflows.evaluation import threshold

PROBABILITY_DECIMALS: Final = 3


@dataclass(frozen=True, eq=False)
class CasePrediction:
    """What the network says about one case, on the case's own voxels.

    Attributes:
        case: the case, with no other images than those used, and no segmentation.
        segmentation_IJK: label map in the values of the case's layout.
        probability_RIJK: nested region probabilities; 0 for a region that nobody trained.
        findings: volumes, molecular probabilities and provenance.
        affine: 4x4, voxel to millimetres in RAS+.
        uncertainty_IJK: entropy of the Monte-Carlo mean in [0, 1]; None where it was not asked for.
    """

    case: Case
    segmentation_IJK: NDArray[np.uint8]
    probability_RIJK: NDArray[np.float32]
    findings: Findings
    affine: NDArray[np.float64]
    uncertainty_IJK: NDArray[np.float32] | None = None

    def own_labels(self) -> NDArray[np.uint8]:
        """Return the label map in our own values (gmmas_schema.vocabulary), whatever the case's layout."""
        table = np.zeros(256, dtype=np.uint8)
        for theirs, ours in SEGMENTATION_VALUES[self.case.layout].items():
            table[theirs] = ours
        own_IJK: NDArray[np.uint8] = table[self.segmentation_IJK]
        return own_IJK


def predict_case(
    case: Path | Case,
    weights: Weights,
    *,
    modalities: Collection[Modality] | None = None,
    plan: InferencePlan | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> CasePrediction:
    """Predict one case from whichever sequences it has.

    Args:
        case: a folder that holds one case in a supported layout, or the case itself. A segmentation in it is not read.
        weights: the model; calibrated where it has temperatures.
        modalities: sequences to use; by default all that the case has and the model reads. It reads those that it was trained on.
        plan: windows, mirror images, Monte-Carlo passes; by default neither mirror images nor passes.
        device: `auto` is CUDA where present, else CPU. Volumes stay in main memory; the device holds one window at a time.
        on_progress: called with (done, total) windows.

    Raises:
        DataError: the folder holds no case or several, a file does not pass the quality gate, a wanted sequence is missing or not
            read, or no usable sequence is there.
        ModelError: the weights do not fit their definition, or nobody trained them.
    """
    start, plan = time.perf_counter(), plan or InferencePlan()
    network = make_network(weights, modalities=readable_modalities(weights))
    whole = read_case(case) if isinstance(case, Path) else case
    used = choose_images(whole, network.modalities, wanted=modalities)
    sample = preprocess_case(used, weights.definition.grid)
    network.to(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    batch, parts = Batch.collate([sample]), 2 if plan.passes else 1
    answer = predict_mirrored(
        network,
        batch.image_BMXYZ,
        batch.present_BM,
        flip=plan.flip,
        temperatures=weights.temperatures,
        patch=weights.definition.grid.patch,
        overlap=plan.overlap,
        on_progress=progress_of_part(on_progress, 0, parts),
    )
    probability_RIJK = blank_untrained(_restore_rounded(answer.regions_BRXYZ[0], sample), weights.untrained)
    regions_RIJK = threshold(probability_RIJK)
    spread = _spread(network, batch, weights, plan, progress_of_part(on_progress, 1, parts)) if plan.passes else None
    probability = {task: float(probability_B) for task, probability_B in answer.markers.items() if task not in weights.untrained}
    voxel_ml = abs(float(np.linalg.det(sample.native_affine[:3, :3]))) / 1000
    findings = Findings(
        case=used.case_id,
        modalities_used=used.modalities,
        modalities_missing=tuple(m for m in MODALITIES if m not in used.images),
        modalities_unread=tuple(m for m in MODALITIES if m in whole.images and m not in network.modalities),
        volume_ml={
            region: int(np.count_nonzero(mask)) * voxel_ml
            for region, mask in zip(REGIONS, regions_RIJK, strict=True)
            if region not in weights.untrained
        },
        probability=probability,
        subtype=dict(zip(SUBTYPES, answer.subtype_BS[0].tolist(), strict=True)) if weights.tells_subtype else {},
        untrained=weights.untrained,
        calibrated=weights.calibration is not None,
        abstained=reasons_to_abstain(weights.calibration, probability),
        inference=plan,
        uncertainty=None if spread is None else _summary(spread, regions_RIJK, sample, without=weights.untrained),
        model_digest=weights.definition.digest(),
        weights_sha256=weights.sha256,
        software=f"gmmas-fed {version('gmmas-fed')}",
        seconds=time.perf_counter() - start,
    )
    return CasePrediction(
        used,
        labels_of(regions_RIJK, layout=used.layout),
        probability_RIJK,
        findings,
        sample.native_affine,
        uncertainty_IJK=None if spread is None else _restore_rounded(predictive_entropy(spread.region_mean_BRXYZ), sample)[0],
    )


def readable_modalities(weights: Weights) -> tuple[Modality, ...]:
    """Return the modalities that the weights have an encoder for that somebody trained; the others are drawn at random and tell nothing.

    Raises:
        ModelError: there is none.
    """
    if weights.readable:
        return weights.readable
    raise ModelError(
        "nobody ever trained this model",
        where=f"weights {weights.sha256[:12]}",
        got="no encoder that was trained",
        expected="one of " + ", ".join(MODALITIES),
        remedy="take the model of a run in which a hospital with labels took part",
    )


def blank_untrained(probability_RIJK: NDArray[np.float32], untrained: Collection[Region | Task]) -> NDArray[np.float32]:
    """Return region probabilities with 0 for the regions that nobody trained, so that nothing is outlined by a head drawn at random.

    Args:
        probability_RIJK: nested; stays nested, for a region that rests on an untrained one is untrained too.
        untrained: of the weights.
    """
    told_R = np.array([region not in untrained for region in REGIONS], dtype=np.float32)
    return probability_RIJK * told_R[:, None, None, None]


def choose_images(case: Case, readable: Collection[Modality], *, wanted: Collection[Modality] | None) -> Case:
    """Return the case with the images to use and without its segmentation.

    Args:
        case: any case.
        readable: modalities that the network reads.
        wanted: of these the ones to use; None for all that the case has.

    Raises:
        DataError: a wanted sequence is missing or not read, or none is left.
    """
    missing = [m for m in wanted or () if m not in case.images]
    unread = [m for m in wanted or () if m not in readable]
    images = {m: path for m, path in case.images.items() if m in readable and (wanted is None or m in wanted)}
    if missing:
        what, expected, remedy = "a sequence that was asked for is not there", ", ".join(missing), "leave it out of --modalities"
    elif unread:
        what = "a sequence that was asked for is not read by the model, which was never trained on it"
        expected = f"{', '.join(readable)}, not {', '.join(unread)}"
        remedy = "leave it out of --modalities, or use a model that was trained on this sequence"
    elif not images:
        what, expected = "the case has no sequence that the model reads", f"at least one of {', '.join(readable)}"
        remedy = "check the file names, or use a model of these sequences"
    else:
        return replace(case, images=images, segmentation=None)
    got = ", ".join(case.images) or "no sequence"
    raise DataError(what, where=case.case_id, got=got, expected=expected, remedy=remedy, code=ReasonCode.DATA_EMPTY)


def _spread(
    network: GmmasNetwork, batch: Batch, weights: Weights, plan: InferencePlan, on_progress: Callable[[int, int], None] | None
) -> Uncertain:
    """Return mean and spread over the plan's Monte-Carlo passes."""
    return monte_carlo_mirrored(
        network,
        batch.image_BMXYZ,
        batch.present_BM,
        flip=plan.flip,
        passes=plan.passes,
        dropout=plan.dropout,
        generator=torch.Generator().manual_seed(plan.seed),
        temperatures=weights.temperatures,
        patch=weights.definition.grid.patch,
        overlap=plan.overlap,
        precision="fp32",
        on_progress=on_progress,
    )


def _summary(
    spread: Uncertain, regions_RIJK: NDArray[np.bool_], sample: Sample, *, without: Collection[Region | Task]
) -> UncertaintyFindings:
    """Return the mean spread inside each region that was found, and that of the markers, but for those that nobody trained."""
    std_RIJK = restore_to_native(spread.region_std_BRXYZ[0].numpy(), sample, order=1)
    found = zip(REGIONS, std_RIJK, regions_RIJK, strict=True)
    return UncertaintyFindings(
        region_std={region: float(std_IJK[mask_IJK].mean()) for region, std_IJK, mask_IJK in found if mask_IJK.any()},
        probability_std={task: float(std_B) for task, std_B in spread.marker_std.items() if task not in without},
    )


def _restore_rounded(volume_RXYZ: torch.Tensor, sample: Sample) -> NDArray[np.float32]:
    """Return volumes in [0, 1] on the case's own voxels.

    Rounded before any threshold, so that the maps on disk (a tenth of the size) and the segmentation say the same.
    """
    restored_RIJK: NDArray[np.float32] = np.clip(restore_to_native(volume_RXYZ.numpy(), sample, order=1).round(PROBABILITY_DECIMALS), 0, 1)
    return restored_RIJK
