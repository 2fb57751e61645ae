"""From a case on disk to all that the platform says about it, and the measuring anew of a mask that a clinician corrected.

1. Predict (gmmas_workflows.inference): label map, probabilities, spread.
2. Look at the images (gmmas_data.case_audit): are they what they are named as?
3. Lay the average brain over the patient's, the outlined tumour left out (atlas_registration); that and the brain make the frame.
4. Measure the mask in the frame (measurements); read markers and subtype (molecular); judge how unlike a glioma it is (novelty).
5. Leave open what must be left open (abstentions), and write the record.

A correction repeats step 4 for the mask alone. What a person outlined is no longer the model's, so doubts about the model do not touch it;
what the network predicted stays as it was, for it never saw the correction, and is left open where the person left no tumour.

Shapes: R region (WT, TC, ET), I J K voxels of the case's files.
"""

import hashlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gmmas_data.case_audit import audit_case
from gmmas_data.cases import Case
from gmmas_data.quality import LoadedCase
from gmmas_model.weights import Weights
from gmmas_portal.analysis import fact_ids as ids
from gmmas_portal.analysis.abstentions import Doubt, apply_doubts, doubts_of, predicted
from gmmas_portal.analysis.atlas_registration import register_to_mni
from gmmas_portal.analysis.context import CaseContext, KnownModel
from gmmas_portal.analysis.frame import MeasurementFrame
from gmmas_portal.analysis.image_quality import brain_fault, quality_faults
from gmmas_portal.analysis.measurements import has_tumour, measure
from gmmas_portal.analysis.molecular import entered_facts, predicted_facts
from gmmas_portal.analysis.novelty import Novelty, judge_novelty
from gmmas_runtime.files import sha256_file
from gmmas_schema.case_record import AbstainCode, Abstention, CaseRecord, Fact, FactStatus, RecordSegmentation
from gmmas_schema.errors import DataError, ReasonCode
from gmmas_schema.inference import MONTE_CARLO_PASSES, InferencePlan
from gmmas_schema.vocabulary import Modality, Region
from gmmas_workflows.inference import CasePrediction, predict_case
from gmmas_workflows.model_source import OpenedModel

DEFAULT_PLAN: Final = InferencePlan(passes=MONTE_CARLO_PASSES)
"""With Monte-Carlo passes, for the overlay of uncertainty."""

Progress = Callable[[str, int, int], None]
"""Called with (what is done, steps done, steps in all)."""

_MODEL: Final = "model"


@dataclass(frozen=True, eq=False)
class Analysis:
    """All that is said about one case, on the case's own voxels.

    Attributes:
        record: the words.
        case: the images used.
        labels_IJK: the network's label map in our own values (gmmas_schema.vocabulary), whatever the case's layout.
        probability_RIJK: nested region probabilities.
        uncertainty_IJK: entropy in [0, 1]; None without Monte-Carlo passes.
        frame: in which masks of this case are measured.
    """

    record: CaseRecord
    case: Case
    labels_IJK: NDArray[np.uint8]
    probability_RIJK: NDArray[np.float32]
    uncertainty_IJK: NDArray[np.float32] | None
    frame: MeasurementFrame


def analyse(
    case: Path | Case,
    weights: Weights | OpenedModel | KnownModel,
    *,
    plan: InferencePlan = DEFAULT_PLAN,
    context: CaseContext | None = None,
    modalities: Collection[Modality] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    on_progress: Progress | None = None,
) -> Analysis:
    """Analyse one case from whichever sequences it has.

    Args:
        case: a folder that holds one case in a supported layout, or the case itself. A segmentation in it is not read.
        weights: the model; with its card and signature where it was opened with them.
        plan: how it is predicted.
        context: what was entered about the patient.
        modalities: sequences to use; by default all that the case has and the model reads.
        device: as of gmmas_workflows.inference.predict_case.
        on_progress: told of windows, then of the steps after them.

    Raises:
        ConfigError: SimpleITK is not installed.
        DataError: the case does not pass the quality gate, or no usable sequence is there.
        ModelError: the weights do not fit their definition, or the card is that of others.
    """
    start, context = time.perf_counter(), context or CaseContext()
    model, report = KnownModel.of(weights), on_progress or (lambda _what, _done, _total: None)
    prediction = predict_case(
        case,
        model.weights,
        modalities=modalities,
        plan=plan,
        device=device,
        on_progress=lambda done, total: report("predicting", done, total),
    )
    labels_IJK = prediction.own_labels()
    report("checking the images", 0, 3)
    audit, loaded = audit_case(prediction.case)
    if loaded is None:
        raise _changed(prediction.case.case_id)
    brain = ndimage.binary_fill_holes(np.logical_or.reduce(list(loaded.brains.values())))
    report("finding the place in the brain", 1, 3)
    frame = _frame(loaded, brain, labels_IJK > 0)
    report("measuring", 2, 3)
    temperature = model.weights.temperatures.get(Region.WT, 1.0)
    novelty = judge_novelty(prediction.probability_RIJK, labels_IJK > 0, temperature=temperature, threshold=context.ood_threshold)
    facts, abstentions = _judged_facts(prediction, labels_IJK, frame, model, context, quality_faults(audit), novelty)
    record = CaseRecord(
        case=context.pseudonym or prediction.case.case_id,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        facts=facts,
        abstentions=abstentions,
        modalities_used=prediction.findings.modalities_used,
        modalities_missing=prediction.findings.modalities_missing,
        accuracy=model.accuracy_of(prediction.findings.modalities_used),
        model=model.describe(),
        segmentation=RecordSegmentation(version=1, author=_MODEL, sha256=mask_digest(labels_IJK)),
        inputs={modality: sha256_file(path) for modality, path in prediction.case.images.items()},
        software=prediction.findings.software,
        seconds=time.perf_counter() - start,
    )
    report("done", 3, 3)
    return Analysis(record, prediction.case, labels_IJK, prediction.probability_RIJK, prediction.uncertainty_IJK, frame)


def remeasure(record: CaseRecord, labels_IJK: NDArray[np.uint8], *, author: str, frame: MeasurementFrame) -> CaseRecord:
    """Return the record of a mask that a person corrected: the mask's facts measured again, the network's as they were.

    Args:
        record: of the version that was corrected, or of the network's last analysis.
        labels_IJK: the corrected label map in our own values, of the frame's shape.
        author: who corrected, as the platform names people.
        frame: of the case, as analyse returned it.

    Raises:
        DataError: another shape, or a value that is no label.
    """
    _check_labels(labels_IJK, frame)
    was = {fact.id for fact in record.facts if fact.source == "segmentation"}
    first = next((place for place, fact in enumerate(record.facts) if fact.id in was), 0)
    kept = [fact for fact in record.facts if fact.id not in was]
    fault = brain_fault(frame.brain_ml)
    doubts = [Doubt(AbstainCode.QUALITY, fault, lambda fact: fact.id == ids.SHARE_WT)] if fault else []
    measured, fresh = apply_doubts(measure(labels_IJK, frame), doubts)
    kept, silence = (kept, ()) if has_tumour(measured) else _silenced(kept)
    names = {fact.id for fact in kept}
    standing = [a.model_copy(update={"facts": tuple(name for name in a.facts if name in names)}) for a in record.abstentions]
    version = record.segmentation.version
    return CaseRecord.model_validate(
        record.model_dump()
        | {
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "facts": (*kept[:first], *measured, *kept[first:]),
            "abstentions": (*(a for a in standing if a.facts), *silence, *fresh),
            "segmentation": RecordSegmentation(version=version + 1, author=author, sha256=mask_digest(labels_IJK), based_on=version),
        }
    )


def _silenced(facts: list[Fact]) -> tuple[list[Fact], tuple[Abstention, ...]]:
    """Return facts whose predictions are left open, because a person left no tumour that they could be of; and why."""
    doubt = Doubt(AbstainCode.NO_TUMOUR, "the corrected outline has no tumour, so nothing is told of one", predicted)
    judged, reasons = apply_doubts([fact for fact in facts if predicted(fact) and fact.status is FactStatus.FOUND], [doubt])
    by_id = {fact.id: fact for fact in judged}
    return [by_id.get(fact.id, fact) for fact in facts], reasons


def mask_digest(labels_IJK: NDArray[np.uint8]) -> str:
    """Return the SHA-256 over shape and voxels of a label map, by which a record names the mask that it measured."""
    shape = "x".join(map(str, labels_IJK.shape)).encode()
    return hashlib.sha256(shape + b"\n" + np.ascontiguousarray(labels_IJK, dtype=np.uint8).tobytes()).hexdigest()


def _frame(loaded: LoadedCase, brain: NDArray[np.bool_], tumour: NDArray[np.bool_]) -> MeasurementFrame:
    """Return the frame of a case; a head with its skull, or half a brain, is not laid over the atlas of a whole one."""
    bare = MeasurementFrame.around(brain, loaded.affine, to_mni=None)
    to_mni = None if brain_fault(bare.brain_ml) else register_to_mni(loaded.images, brain, loaded.affine, tumour=tumour)
    return bare if to_mni is None else MeasurementFrame.around(brain, loaded.affine, to_mni=to_mni)


def _judged_facts(
    prediction: CasePrediction,
    labels_IJK: NDArray[np.uint8],
    frame: MeasurementFrame,
    model: KnownModel,
    context: CaseContext,
    quality: tuple[str, ...],
    novelty: Novelty,
) -> tuple[tuple[Fact, ...], tuple[Abstention, ...]]:
    """Return all facts with their status, and the abstentions."""
    measured, findings, calibration = measure(labels_IJK, frame), prediction.findings, model.weights.calibration
    facts = (
        *measured,
        Fact(id=ids.VOLUME_BRAIN, label="volume of the brain with its fluid", value=frame.brain_ml, unit="ml", decimals=0, source="file"),
        *predicted_facts(findings, calibration),
        _novelty_fact(novelty),
        Fact(id=ids.QUALITY, label="images pass the quality checks", value=not quality, source="file"),
        *entered_facts(context),
    )
    doubts = doubts_of(
        findings,
        facts,
        calibration=calibration,
        context=context,
        quality=quality,
        novelty=novelty.reason,
        outlined=has_tumour(measured),
    )
    return apply_doubts(facts, doubts)


def _novelty_fact(novelty: Novelty) -> Fact:
    fact = Fact(
        id=ids.OOD_SCORE, label="unlikeness to known gliomas (0 to 1)", value=novelty.score or 0.0, unit="1", decimals=2, source="network"
    )
    if novelty.score is not None:
        return fact
    missing = {"value": None, "status": FactStatus.ABSENT, "codes": (AbstainCode.NO_TUMOUR,), "reason": "no tumour is outlined"}
    return Fact.model_validate(fact.model_dump() | missing)


def _check_labels(labels_IJK: NDArray[np.uint8], frame: MeasurementFrame) -> None:
    if labels_IJK.shape != frame.shape:
        raise DataError(
            "a corrected mask lies on another grid",
            got=" x ".join(map(str, labels_IJK.shape)) + " voxels",
            expected=" x ".join(map(str, frame.shape)) + " voxels",
            remedy="correct the mask of this case on its own grid",
            code=ReasonCode.DATA_GRID,
        )
    values = np.unique(labels_IJK)
    if labels_IJK.dtype != np.uint8 or values.max(initial=0) > 3:
        raise DataError(
            "a corrected mask has unknown label values",
            got=f"{labels_IJK.dtype} with {', '.join(map(str, values[:6].tolist()))}",
            expected="uint8 with 0 background, 1 necrosis, 2 oedema, 3 enhancing tumour",
            remedy="save the mask as a label map",
            code=ReasonCode.DATA_LABEL,
        )


def _changed(case_id: str) -> DataError:
    return DataError(
        "the images changed while they were analysed",
        where=case_id,
        got="a file that can no longer be read",
        expected="the files as they were a moment ago",
        remedy="analyse the case again",
        code=ReasonCode.DATA_UNREADABLE,
    )
