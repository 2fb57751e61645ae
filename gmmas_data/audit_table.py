"""The counts of a cohort's audit, and how they hang together.

Cases are counted by the set of sequences they have (each case in one set, rare sets together as `other`), and per task by label within
each set. Margins, the cases with and without each sequence, verdicts, and findings follow. Every case is one record; patients with several
time points count several times, as they do in training.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gmmas_data.cases import Case
from gmmas_data.sequence_identity import Verdict
from gmmas_data.suppression import Sum
from gmmas_schema.audit import SMALLEST_COUNT, CaseAudit, FindingKind
from gmmas_schema.vocabulary import MARKERS, MODALITIES, Modality, Task

CASES = "cases"
OTHER = "other"
_STRIPPED = ("yes", "no", "cannot tell")


@dataclass(frozen=True)
class AuditTable:
    """Counts by cell name, their sums, the cells that are never told, and what a cell's name says that it has at least."""

    counts: dict[str, int]
    sums: tuple[Sum, ...]
    hidden: frozenset[str]
    held: tuple[str, ...]
    least: dict[str, int]


class _Builder:
    """Collects cells and sums."""

    def __init__(self, cases: Sequence[tuple[Case, CaseAudit]]) -> None:
        self.cases = cases
        self.counts: dict[str, int] = {CASES: len(cases)}
        self.sums: list[Sum] = []
        self.hidden: set[str] = set()

    def count(self, name: str, test: Callable[[Case, CaseAudit], bool]) -> str:
        """Add a cell and return its name."""
        self.counts[name] = sum(test(case, audit) for case, audit in self.cases)
        return name

    def add_up(self, total: str, parts: Iterable[str]) -> None:
        """Add a sum, unless it has no part."""
        names = tuple(parts)
        if names:
            self.sums.append(Sum(total, names))

    def hide(self, name: str) -> str:
        """Mark a cell as never told."""
        self.hidden.add(name)
        return name


def make_table(cases: Sequence[tuple[Case, CaseAudit]]) -> AuditTable:
    """Count accepted cases with their audits."""
    table = _Builder(cases)
    kind_of = _kinds(cases)
    kinds = sorted(set(kind_of.values()))
    rows = [table.count(f"sequences={kind}", lambda case, _, kind=kind: kind_of[case.case_id] == kind) for kind in kinds]  # type: ignore[misc]
    table.add_up(CASES, rows)
    _count_modalities(table)
    tasks = _held_tasks(cases)
    for task in tasks:
        _count_labels(table, task, kinds, kind_of)
    for stripped in _STRIPPED:
        table.count(f"stripped={stripped}", lambda _, audit, stripped=stripped: audit.stripped == stripped)  # type: ignore[misc]
    table.add_up(CASES, [f"stripped={stripped}" for stripped in _STRIPPED])
    for finding in FindingKind:
        name = f"finding={finding.name.lower()}"
        table.count(name, lambda _, audit, finding=finding: any(one.kind is finding for one in audit.findings))  # type: ignore[misc]
        table.counts[table.hide(f"no {name}")] = len(cases) - table.counts[name]
        table.add_up(CASES, [name, f"no {name}"])
    held = (*(str(m) for m in MODALITIES if any(m in case.images for case, _ in cases)), *(str(task) for task in tasks))
    # A set of sequences has a row of its own only where it is frequent, and the others have one only where there are any.
    least = {f"sequences={kind}": 1 if kind == OTHER else SMALLEST_COUNT for kind in kinds}
    return AuditTable(table.counts, tuple(table.sums), frozenset(table.hidden), held, least)


def _kinds(cases: Sequence[tuple[Case, CaseAudit]]) -> dict[str, str]:
    """Return which set of sequences each case counts under."""
    names = {case.case_id: "+".join(case.modalities) for case, _ in cases}
    frequency = Counter(names.values())
    return {case_id: name if frequency[name] >= SMALLEST_COUNT else OTHER for case_id, name in names.items()}


def _held_tasks(cases: Sequence[tuple[Case, CaseAudit]]) -> list[Task]:
    every = [case for case, _ in cases]
    return [task for task in (Task.SEGMENTATION, *MARKERS) if any(label_of(case, task) != "unknown" for case in every)]


def label_of(case: Case, task: Task) -> str:
    """Return a case's label of a task in a word."""
    if task is Task.SEGMENTATION:
        return "unknown" if case.segmentation is None else "positive"
    known = case.marker(task)
    return "unknown" if known is None else "positive" if known else "negative"


def _count_modalities(table: _Builder) -> None:
    """Count cases with and without each sequence, and the verdicts of those with it.

    Cases in `other` are of several sets, so their part in a sequence is a cell of its own.
    """
    for modality in MODALITIES:
        if not any(modality in case.images for case, _ in table.cases):
            continue
        having = table.count(f"with {modality}", lambda case, _, m=modality: m in case.images)  # type: ignore[misc]
        rows = [name for name in table.counts if name.startswith("sequences=") and name != f"sequences={OTHER}"]
        there = [row for row in rows if str(modality) in _members(row)]
        absent = [row for row in rows if row not in there]
        if f"sequences={OTHER}" in table.counts:
            rest, none = table.hide(f"with {modality}, {OTHER}"), table.hide(f"without {modality}, {OTHER}")
            table.counts[rest] = table.counts[having] - sum(table.counts[row] for row in there)
            table.counts[none] = table.counts[f"sequences={OTHER}"] - table.counts[rest]
            table.add_up(f"sequences={OTHER}", (rest, none))
            there, absent = [*there, rest], [*absent, none]
        table.add_up(having, there)
        if absent:  # else the sets that are named say already that nobody lacks it
            lacking = table.hide(f"without {modality}")
            table.counts[lacking] = table.counts[CASES] - table.counts[having]
            table.add_up(lacking, absent)
            table.add_up(CASES, (having, lacking))
        _count_verdicts(table, modality, having)


def _members(row: str) -> set[str]:
    return set(row.removeprefix("sequences=").split("+"))


def _count_verdicts(table: _Builder, modality: Modality, having: str) -> None:
    names = []
    for verdict in Verdict:
        name = f"{modality} {verdict}"
        table.count(name, lambda _, audit, m=modality, v=verdict: m in audit.scans and audit.scans[m].verdict == v)  # type: ignore[misc]
        names.append(name)
    table.add_up(having, names)


def _count_labels(table: _Builder, task: Task, kinds: Sequence[str], kind_of: dict[str, str]) -> None:
    """Count a task's labels, and within each set of sequences."""
    values = ("positive", "unknown") if task is Task.SEGMENTATION else ("positive", "negative", "unknown")
    for value in values:
        name = table.count(f"{task}={value}", lambda case, _, value=value: label_of(case, task) == value)  # type: ignore[misc]
        cells = []
        for kind in kinds:
            cell = f"{task}={value}, sequences={kind}"
            table.count(cell, lambda case, _, v=value, k=kind: label_of(case, task) == v and kind_of[case.case_id] == k)  # type: ignore[misc]
            cells.append(cell)
        table.add_up(name, cells)
    table.add_up(CASES, [f"{task}={value}" for value in values])
    for kind in kinds:
        table.add_up(f"sequences={kind}", [f"{task}={value}, sequences={kind}" for value in values])
