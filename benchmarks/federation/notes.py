"""What the sites noted of their training: when every round began, how long it lasted, and that nobody was left out of one.

A system may go on without a site that failed (Flower's FedAvg averages what came), and would be the faster for it. So a run counts only
where every site trained exactly once in every round.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gmmas_schema.errors import FederationError

Notes = Mapping[str, Sequence[Mapping[str, Any]]]
"""Lines of stand_in.train by site."""


@dataclass(frozen=True)
class Training:
    """The training of a run.

    Attributes:
        starts: first training start of each round, monotonic clock.
        longest: seconds of the longest training of each round.
        cpu_s: processor seconds of the stand-in in all rounds but the last, which no period holds.
    """

    starts: tuple[float, ...]
    longest: tuple[float, ...]
    cpu_s: float


def read_notes(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return what each site noted."""
    return {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in sorted(folder.glob("*.jsonl"))}


def summarise_notes(notes: Notes, *, sites: int, rounds: int) -> Training:
    """Return the training of a run in which each of `sites` sites trained once in each of `rounds` rounds.

    Raises:
        FederationError: a site is missing, left out a round or trained twice in one.
    """
    faults = _faults(notes, sites=sites, rounds=rounds)
    if faults:
        raise FederationError(
            "not every site trained in every round",
            got="; ".join(faults[:5]) + ("; ..." if len(faults) > 5 else ""),
            expected=f"{sites} sites, each once in rounds 1 to {rounds}",
            remedy="such a run is no measurement: read its logs, and run the cell again",
        )
    by_round = [[line for lines in notes.values() for line in lines if line["round"] == number] for number in range(1, rounds + 1)]
    return Training(
        starts=tuple(min(line["start"] for line in lines) for lines in by_round),
        longest=tuple(max(line["end"] - line["start"] for line in lines) for lines in by_round),
        cpu_s=sum(line["cpu_s"] for lines in by_round[:-1] for line in lines),
    )


def require_replies(path: Path, *, sites: int, rounds: int, kinds: Collection[str]) -> None:
    """Check what the coordinator of a system without a quorum wrote of the replies that it averaged.

    Args:
        path: a line per round and kind, `{"kind": "train", "round": 1, "good": 4, "failed": 0}`.
        sites: that must have answered.
        rounds: of the run.
        kinds: of replies that every round must have.

    Raises:
        FederationError: a reply failed or is missing.
    """
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    found = {(line["kind"], line["round"]): (line["good"], line["failed"]) for line in lines}
    wanted = [(kind, number) for number in range(1, rounds + 1) for kind in kinds]
    faults = [
        f"{kind} of round {number}: {_told(found.get((kind, number)))}"
        for kind, number in wanted
        if found.get((kind, number)) != (sites, 0)
    ]
    if faults:
        raise FederationError(
            "not every site's reply was averaged", where=path, got="; ".join(faults[:5]), expected=f"{sites} replies of each"
        )


def _told(counts: tuple[int, int] | None) -> str:
    return "no replies" if counts is None else f"{counts[0]} replies, {counts[1]} failed"


def _faults(notes: Notes, *, sites: int, rounds: int) -> list[str]:
    faults = [] if len(notes) == sites else [f"{len(notes)} sites trained"]
    for site, lines in sorted(notes.items()):
        times = Counter(line["round"] for line in lines)
        faults += [f"{site} trained {times[number]} times in round {number}" for number in range(1, rounds + 1) if times[number] != 1]
        faults += [f"{site} trained in round {number}" for number in sorted(times) if not 1 <= number <= rounds]
    return faults
