"""What the terminal and summaries show of a calibration: per head its temperature, and calibration errors before and after it."""

from collections.abc import Mapping

from pydantic import Field
from rich.table import Table

from gmmas_schema.base import FrozenModel
from gmmas_schema.calibration import Calibration, Head, ReliabilityPair
from gmmas_schema.vocabulary import MARKER_NAMES, REGIONS, Region, Task

FIT, TEST = "hospitals, fit", "hospitals, test"
"""Whose patients: those that the calibration was fitted to, and test patients of the same hospitals."""


class CalibrationError(FrozenModel):
    """Expected calibration error over some patients, at temperature 1 and calibrated."""

    patients: float = Field(ge=0)
    before: float | None
    after: float | None


class HeadSummary(FrozenModel):
    """One head of a calibrated model.

    Attributes:
        temperature: 1 where no fit was made; None for a model without calibration.
        note: why no fit was made, or that the fit is at the end of its range.
        nll_before: mean negative log-likelihood of the patients of the fit, in nats; `nll_after` calibrated.
        error: calibration error by whose patients.
        abstention: when the marker is left open, in words; empty for a region.
    """

    temperature: float | None = None
    note: str = ""
    nll_before: float | None = None
    nll_after: float | None = None
    error: dict[str, CalibrationError] = Field(default_factory=dict)
    abstention: str = ""


def summarise_calibration(
    calibration: Calibration | None, measured: Mapping[str, Mapping[Region | Task, ReliabilityPair]]
) -> dict[Head, HeadSummary]:
    """Return what is known per head.

    Args:
        calibration: of the model; None for one that was never calibrated.
        measured: reliability per head on further patients, by whose they are.
    """
    heads = calibration.heads if calibration is not None else {}
    summaries: dict[Head, HeadSummary] = {}
    for head in (*REGIONS, *Task):
        known, pairs = heads.get(head), {name: found[head] for name, found in measured.items() if head in found}
        if known is None:
            if pairs:
                summaries[head] = HeadSummary(error=_errors(pairs))
            continue
        own = {FIT: known.reliability} | ({TEST: known.test} if known.test is not None else {})
        summaries[head] = HeadSummary(
            temperature=known.temperature,
            note=known.note,
            nll_before=known.nll_before,
            nll_after=known.nll_after,
            error=_errors(own | pairs),
            abstention=known.abstention.note if known.abstention is not None else "",
        )
    return summaries


def calibration_table(heads: Mapping[Region | Task, HeadSummary], *, title: str) -> Table:
    """Return a table with one row per head."""
    table = Table(
        title=title,
        caption="ECE: mean gap between confidence and share of right answers, in 15 bins; of a marker with few patients it says little",
    )
    table.add_column("head")
    table.add_column("temperature", justify="right")
    sources = list(dict.fromkeys(source for found in heads.values() for source in found.error))
    for source in sources:
        table.add_column(f"ECE {source}", justify="right")
    abstentions = any(found.abstention for found in heads.values())
    if abstentions:
        table.add_column("left open")
    for head, found in heads.items():
        name = head.upper() if isinstance(head, Region) else MARKER_NAMES[head]
        cells = [_temperature(found), *(_error(found.error.get(source)) for source in sources)]
        table.add_row(name, *cells, *([found.abstention or "–"] if abstentions else []))
    return table


def _errors(pairs: Mapping[str, ReliabilityPair]) -> dict[str, CalibrationError]:
    return {
        name: CalibrationError(patients=round(pair.before.total, 6), before=pair.before.ece, after=pair.after.ece)
        for name, pair in pairs.items()
    }


def _temperature(found: HeadSummary) -> str:
    if found.temperature is None:
        return "–"
    return f"{found.temperature:.2f}" if found.nll_after is not None else "not fitted"


def _error(error: CalibrationError | None) -> str:
    if error is None or error.before is None:
        return "–"
    moved = f" → {error.after:.3f}" if error.after is not None and error.after != error.before else ""
    return f"{error.before:.3f}{moved} (n {error.patients:.0f})"
