"""What the terminal and summaries show of a calibration: per head its temperature, and calibration errors before and after it."""

from collections.abc import Mapping

from pydantic import Field
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from gmmas_schema.base import FrozenModel
from gmmas_schema.calibration import Abstention, Calibration, Head, ReliabilityPair
from gmmas_schema.vocabulary import HEAD_NAMES, REGIONS, Region, Task

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
            abstention=_when_open(known.abstention) if known.abstention is not None else "",
        )
    return summaries


def calibration_table(heads: Mapping[Region | Task, HeadSummary], *, title: str) -> Group:
    """Return a table that fits 80 columns, one row per head, and below it when the markers are left open."""
    table = Table(
        title=title,
        caption="ECE: mean gap between confidence and share of right answers, in 15 bins;\n"
        "in brackets the patients: of a marker with few of them it says little",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("head")
    table.add_column("temperature", justify="right")
    sources = list(dict.fromkeys(source for found in heads.values() for source in found.error))
    for source in sources:
        table.add_column(f"ECE {source}", justify="right")
    for head, found in heads.items():
        table.add_row(HEAD_NAMES[head], _temperature(found), *(_error(found.error.get(source)) for source in sources))
    return Group(table, *(f"{HEAD_NAMES[head]} is {found.abstention}" for head, found in heads.items() if found.abstention))


def _when_open(abstention: Abstention) -> str:
    """Return when a marker is left open, and why."""
    below = f"left open below a confidence of {abstention.threshold:.2f}" if abstention.threshold is not None else ""
    rule = {"always": "always left open", "never": "never left open", "below": below}[abstention.rule]
    return f"{rule}: {abstention.note}" if abstention.note else rule


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
    moved = f"→{error.after:.3f}" if error.after is not None and error.after != error.before else ""
    return f"{error.before:.3f}{moved} ({error.patients:.0f})"
