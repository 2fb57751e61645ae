"""The course of one patient's volumes, drawn as SVG by the server, so that it needs no script and reads as a table as well.

Nothing here says that a tumour grows or shrinks: response assessment needs clinical status (RANO 2.0, Wen et al., J Clin Oncol 2023).
A volume that is left open is not drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from gmmas_portal.analysis import fact_ids as ids
from gmmas_portal.web.cases import CaseRow
from gmmas_schema.case_record import CaseRecord, FactStatus

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 16, 34
CURVES: Final = ((ids.VOLUME_WT, "Whole tumour", "wt"), (ids.VOLUME_TC, "Tumour core", "tc"), (ids.VOLUME_ET, "Enhancing tumour", "et"))


@dataclass(frozen=True)
class TimePoint:
    """One case of the patient, with its newest record."""

    case: CaseRow
    record: CaseRecord

    @property
    def day(self) -> date | None:
        """When it was scanned, as entered."""
        return date.fromisoformat(self.case.scanned_on) if self.case.scanned_on else None

    def volume_ml(self, name: str) -> float | None:
        """Return a volume that may be told."""
        fact = self.record.fact(name)
        return float(fact.value) if fact is not None and fact.status is FactStatus.FOUND and isinstance(fact.value, int | float) else None


@dataclass(frozen=True)
class Mark:
    """A point of a curve, in the units of the drawing."""

    x: float
    y: float
    value: str
    day: str


@dataclass(frozen=True)
class Curve:
    """One volume over time."""

    title: str
    style: str
    marks: tuple[Mark, ...]

    @property
    def path(self) -> str:
        """SVG path through the marks."""
        return " ".join(f"{'L' if place else 'M'}{mark.x:.1f} {mark.y:.1f}" for place, mark in enumerate(self.marks))


@dataclass(frozen=True)
class Drawing:
    """The curves and the axes' labels: (position, text)."""

    curves: tuple[Curve, ...]
    days: tuple[tuple[float, str], ...]
    levels: tuple[tuple[float, str], ...]


def draw_timeline(points: Sequence[TimePoint]) -> Drawing | None:
    """Return the curves of all dated time points; None for fewer than two of them."""
    dated = sorted(((point.day, point) for point in points if point.day is not None), key=lambda pair: pair[0])
    if len(dated) < 2:
        return None
    first, last = dated[0][0], dated[-1][0]
    span = max(1, (last - first).days)
    values = [value for _, point in dated for name, _, _ in CURVES if (value := point.volume_ml(name)) is not None]
    step = _step_of(max(values, default=1.0))
    top = step * max(1, -(-max(values, default=1.0) // step))

    def place(day: date, value: float) -> Mark:
        x = LEFT + (day - first).days / span * (WIDTH - LEFT - RIGHT)
        return Mark(x, TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM), f"{value:.1f} ml", day.isoformat())

    curves = []
    for name, title, style in CURVES:
        marks = [place(day, value) for day, point in dated if (value := point.volume_ml(name)) is not None]
        curves.append(Curve(title, style, tuple(marks)))
    days = tuple((place(day, 0).x, day.isoformat()) for day in dict.fromkeys([first, last]))
    levels = tuple((place(first, step * number).y, f"{step * number:g}") for number in range(int(top / step) + 1))
    return Drawing(tuple(curve for curve in curves if curve.marks), days, levels)


def _step_of(largest: float) -> float:
    """Return the distance of the lines across: 1, 2 or 5 times a power of ten, at most five of them."""
    power = 1.0
    while largest / power > 50:
        power *= 10
    return next(power * factor for factor in (1, 2, 5, 10) if largest / (power * factor) <= 5)
