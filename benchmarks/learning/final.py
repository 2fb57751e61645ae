"""What the final table must hold: every main arm with every seed, and no run less than the one that is committed."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from benchmarks.committed import what_would_be_lost
from benchmarks.learning.plan import LearningPlan
from benchmarks.learning.results import name_runs
from gmmas_schema.errors import ConfigError

Run = tuple[str, int]
"""An arm and a seed."""


def required(plan: LearningPlan) -> tuple[Run, ...]:
    """Return the runs of the main arms."""
    return tuple((arm.name, seed) for arm, seed in plan.runs if arm.name in plan.main)


def check_final(plan: LearningPlan, shown: Collection[Run], *, committed: Path, incomplete: bool = False, replace: bool = False) -> None:
    """Refuse a final table that is not whole.

    Args:
        plan: the whole plan, not what was picked of it.
        shown: runs that the table will hold.
        committed: the final report, as JSON, whether it is there or not.
        incomplete: runs of the main arms may be missing.
        replace: runs of the committed report may be missing.

    Raises:
        ConfigError: runs of the main arms are missing, or of the committed report.
    """
    lacking = [run for run in required(plan) if run not in shown]
    if lacking and not incomplete:
        raise ConfigError(
            "the final table is of all main arms and seeds",
            got=f"no result of {name_runs(lacking)}",
            expected="a result of each",
            remedy="run them first, without --report, --arms and --seeds; --incomplete makes a page that says at its head what it lacks",
        )
    lost = what_would_be_lost(committed, dict.fromkeys([f"{arm} {seed}" for arm, seed in shown], 1), count=_runs_of)
    if lost and not replace:
        raise ConfigError(
            "the committed final table holds more than this one would",
            where=committed,
            got=f"fewer results: {'; '.join(lost)}",
            expected="all that it holds, or more",
            remedy="name these arms too (--arms), with all seeds; --replace puts this one there all the same",
        )


def _runs_of(document: Mapping[str, Any]) -> dict[str, int]:
    """Return the runs of a report, each counted once."""
    return {f"{row['arm']['name']} {seed}": 1 for row in document["arms"] for seed in (*row["seeds"], *row["unpaired"])}
