"""What a federation holds: cases with a label of each task, by sequence, without small counts.

    n(m, t) = sum over hospitals that hold sequence m of their cases with a label of task t

Hospitals with the same sequences are taken together, so that the counts hang together by few sums: n(m, t) adds up the groups that hold m.
Counts below 11 are withheld, and others with them as far as a withheld one could be computed (gmmas_data.suppression). No
hospital's own count is ever shown.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gmmas_data.suppression import Sum, suppress
from gmmas_schema.vocabulary import MODALITIES, TASKS, Modality, Task
from server.run_view import SiteRow

CASES: Final = "cases"
"""Column of all cases, labelled or not."""
EVERY: Final = "every"
"""Row of all hospitals, whatever they hold."""


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        sites: hospitals that hold the sequence and have such labels.
        count: their cases; None where the count is withheld. 0 only where no hospital has any.
    """

    sites: int
    count: int | None


@dataclass(frozen=True)
class Coverage:
    """The matrix: `rows[sequence or EVERY][task or CASES]`."""

    columns: tuple[str, ...]
    rows: dict[str, dict[str, Cell]]


def coverage_of(sites: Iterable[SiteRow]) -> Coverage:
    """Return what hospitals hold together; those that have not said are left out."""
    known = [row for row in sites if row.cases is not None]
    columns = (CASES, *(task.value for task in TASKS if any(row.labelled.get(task.value, 0) for row in known)))
    groups: dict[tuple[str, ...], dict[str, int]] = {}
    for row in known:
        group = groups.setdefault(tuple(sorted(row.modalities)), dict.fromkeys(columns, 0))
        for column in columns:
            group[column] += _count(row, column)
    counts: dict[str, int] = {}
    sums: list[Sum] = []
    for column in columns:
        # That nobody has something at all is no secret: a run is planned by it.
        parts = {held: group[column] for held, group in groups.items() if group[column] > 0}
        counts |= {_part(held, column): count for held, count in parts.items()}
        for name in (*MODALITIES, EVERY):
            members = tuple(_part(held, column) for held in parts if name == EVERY or name in held)
            if members:
                counts[_cell(name, column)] = sum(counts[member] for member in members)
                sums.append(Sum(_cell(name, column), members))
    parts_hidden = frozenset(name for name in counts if name.startswith("part "))
    told = suppress(counts, sums, hidden=parts_hidden)
    rows = {
        name: {column: Cell(_holders(known, name, column), told.get(_cell(name, column), 0)) for column in columns}
        for name in (*(modality.value for modality in MODALITIES), EVERY)
    }
    return Coverage(columns, rows)


def _count(row: SiteRow, column: str) -> int:
    return (row.cases or 0) if column == CASES else row.labelled.get(Task(column).value, 0)


def _holders(known: Iterable[SiteRow], name: str, column: str) -> int:
    return sum(_count(row, column) > 0 for row in known if name == EVERY or Modality(name) in row.modalities)


def _cell(name: str, column: str) -> str:
    return f"cell {name} {column}"


def _part(held: tuple[str, ...], column: str) -> str:
    return f"part {'+'.join(held)} {column}"
