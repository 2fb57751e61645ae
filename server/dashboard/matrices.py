"""A cross-site validation as tables: every model at every hospital, without counts of patients.

A figure that rests on fewer than 11 patients is marked; on how many is told for none.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gmmas_schema.audit import SMALLEST_COUNT
from gmmas_schema.errors import ReasonCode
from gmmas_schema.messages import Evaluation, Interval
from gmmas_schema.validation import MatrixRow, ValidationMatrix
from gmmas_schema.vocabulary import HEAD_NAMES
from gmmas_workflows.matrix_figure import FEWEST_SURE
from server.reasons import Reason, reason_of
from server.wording import METRICS


@dataclass(frozen=True)
class MatrixCell:
    """One model at one hospital; all None where it was not measured.

    Attributes:
        few: it rests on fewer than 11 patients.
        difference: to the first model on the same patients, with its 95 % interval.
        sure: 1 or -1 where the interval leaves zero out, of an AUC from 10 patients on; else 0.
    """

    value: float | None = None
    few: bool = False
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    sure: int = 0


@dataclass(frozen=True)
class MatrixTable:
    """One metric: `rows` are models, by label, with a cell per hospital; `means` are over the hospitals, weighted by patients."""

    metric: str
    title: str
    rows: dict[str, tuple[MatrixCell, ...]]
    means: dict[str, float | None]


@dataclass(frozen=True)
class Refusal:
    """A hospital that gave no figures of a model."""

    model: str
    site: str
    code: ReasonCode
    reason: Reason


@dataclass(frozen=True)
class CalibrationRow:
    """How far one head's probabilities of one model are from what was right, over all hospitals."""

    model: str
    head: str
    ece: float | None
    nll: float | None
    few: bool


def matrix_tables(matrix: ValidationMatrix) -> list[MatrixTable]:
    """Return a table for every metric that anybody measured."""
    tables = []
    for family, names in METRICS.items():
        for metric, label in names.items():
            rows = {row.model.label: tuple(_cell(row.sites.get(site), metric) for site in matrix.sites) for row in matrix.rows}
            if any(cell.value is not None for cells in rows.values() for cell in cells):
                means = {row.model.label: row.metrics.get(metric) for row in matrix.rows}
                tables.append(MatrixTable(metric, f"{family} {label}", rows, means))
    return tables


def refusals(matrix: ValidationMatrix) -> list[Refusal]:
    """Return who gave no figures, and why."""
    return [Refusal(row.model.label, site, code, reason_of(code)) for row in matrix.rows for site, code in sorted(row.refused.items())]


def calibration_rows(rows: Iterable[MatrixRow]) -> list[CalibrationRow]:
    """Return the calibration of every model and head that was measured."""
    return [
        CalibrationRow(row.model.label, HEAD_NAMES.get(head, str(head)), error.ece, error.nll, few=error.patients < SMALLEST_COUNT)
        for row in rows
        for head, error in row.calibration.items()
        if error.ece is not None or error.nll is not None
    ]


def _cell(evaluation: Evaluation | None, metric: str) -> MatrixCell:
    own = None if evaluation is None else _figures(evaluation, metric)
    if evaluation is None or own is None or own.value is None:
        return MatrixCell()
    paired = evaluation.paired.get(metric, Interval())
    few = own.n < SMALLEST_COUNT
    sure = 0
    # As in the picture: resamples of a few patients' AUC may all be alike, and say nothing of other patients.
    if paired.low is not None and paired.high is not None and (paired.n >= FEWEST_SURE or not metric.startswith("auc_")):
        sure = (paired.low > 0) - (paired.high < 0)
    return MatrixCell(own.value, few, paired.value, paired.low, paired.high, sure)


def _figures(evaluation: Evaluation, metric: str) -> Interval | None:
    family, _, name = metric.partition("_")
    found: Mapping[str, Interval] = {str(key): own for key, own in (evaluation.dice if family == "dice" else evaluation.auc).items()}
    return found.get(name)
