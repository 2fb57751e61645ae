"""Committed results are not replaced by less: a table of some of its cells does not take the place of the fuller one by accident."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Counts = Mapping[str, int]
"""How many runs stand behind each cell of a table."""


def what_would_be_lost(path: Path, new: Counts, *, count: Callable[[dict[str, Any]], Counts]) -> list[str]:
    """Return the cells of a committed result that a new one has not, or from fewer runs; none where there is no committed result.

    Args:
        path: the committed JSON file.
        new: cells of the new result.
        count: cells of a result as it was written.
    """
    if not path.exists():
        return []
    old = count(json.loads(path.read_text()))
    return [f"{cell} ({runs} runs, now {new.get(cell, 0)})" for cell, runs in old.items() if new.get(cell, 0) < runs]
