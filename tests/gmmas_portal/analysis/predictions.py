"""Findings of a made-up case, calibrations of a made-up model, and real analyses of the small real case by random weights."""

from gmmas_schema.calibration import Calibration, HeadCalibration
from gmmas_schema.findings import Findings
from gmmas_schema.vocabulary import MODALITIES, Modality, Region, Subtype, Task

SHA = "ab" * 32


def findings(
    *,
    idh: float = 0.1,
    codeletion: float = 0.05,
    modalities: tuple[Modality, ...] = MODALITIES,
    abstained: dict[Task, str] | None = None,
    **more: float,
) -> Findings:
    """Return findings; further probabilities by the name of their task."""
    return Findings(
        case="case-1",
        modalities_used=modalities,
        modalities_missing=tuple(m for m in MODALITIES if m not in modalities),
        volume_ml={Region.WT: 40.0, Region.TC: 20.0, Region.ET: 10.0},
        probability={Task.IDH: idh, Task.CODELETION: codeletion} | {Task(name): p for name, p in more.items()},
        subtype={Subtype.GLIOBLASTOMA: 1 - idh, Subtype.ASTROCYTOMA: idh - codeletion, Subtype.OLIGODENDROGLIOMA: codeletion},
        calibrated=True,
        abstained=abstained or {},
        model_digest="d" * 64,
        weights_sha256=SHA,
        software="gmmas-fed 0",
        seconds=1.0,
    )


def calibration(*fitted: Task) -> Calibration:
    """Return a calibration with these heads fitted, and the other required ones not."""
    heads = {
        task: HeadCalibration(fitted=task in fitted, note="" if task in fitted else "too few patients")
        for task in Task
        if task is not Task.SEGMENTATION
    }
    return Calibration(weights_sha256=SHA, heads=heads)


ALL_FITTED = calibration(*(task for task in Task if task is not Task.SEGMENTATION))
