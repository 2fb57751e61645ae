"""What a run costs, by site and round, from the ledger in its events (server.event_tables)."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from gmmas_schema.base import FrozenModel
from server.events import open_for_reading


class LedgerEntry(FrozenModel):
    """One answer of a site, or the coordinator's own part in a round.

    Attributes:
        event: row of the event that told it.
        time: seconds since 1970-01-01 UTC.
        round: the round, or of an evaluation the round that made the model; None before the first.
        site: None for the coordinator.
        action: query (what the site holds), train, evaluate, sum (a phase of a secure round); coordinate for the coordinator.
        outcome: of the answer (server.records.Outcome); None for the coordinator.
        bytes_down: bytes sent to the site; None for the coordinator, whose bytes are those of the sites.
        bytes_up: bytes received from it.
        round_trip_s: from the push of the request to the end of folding the answer in.
        seconds: wall seconds of the work, over all stages.
        cpu_seconds: processor seconds.
        peak_memory_mib: largest resident memory of the process so far.
        stages: wall seconds by stage.
    """

    event: int
    time: float
    round: int | None
    site: str | None
    action: str
    split: str | None
    outcome: str | None
    code: str | None
    bytes_down: int | None
    bytes_up: int | None
    round_trip_s: float | None
    seconds: float | None
    cpu_seconds: float | None
    peak_memory_mib: float | None
    stages: dict[str, float] = Field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What several entries come to.

    Attributes:
        asked: requests; `answered` is how many of them came back and counted.
        slowest_s: longest time from a request to its answer.
    """

    asked: int
    answered: int
    bytes_down: int
    bytes_up: int
    seconds: float
    slowest_s: float
    cpu_seconds: float
    peak_memory_mib: float


def read_ledger(path: Path) -> tuple[LedgerEntry, ...]:
    """Return the ledger of a run in the order of its events; a missing record has none.

    Raises:
        ConfigError: the file is no record of events.
    """
    database = open_for_reading(path)
    if database is None:
        return ()
    with closing(database):
        database.row_factory = sqlite3.Row
        stages: dict[int, dict[str, float]] = {}
        for row in database.execute("SELECT event, stage, seconds FROM stages"):
            stages.setdefault(row["event"], {})[row["stage"]] = row["seconds"]
        rows = database.execute("SELECT * FROM ledger ORDER BY event, site IS NULL").fetchall()
        return tuple(LedgerEntry.model_validate(dict(row) | {"stages": stages.get(row["event"], {})}) for row in rows)


def add_up(entries: Iterable[LedgerEntry]) -> Cost:
    """Return what entries come to together."""
    every = list(entries)
    return Cost(
        asked=sum(entry.outcome is not None for entry in every),
        answered=sum(entry.outcome == "accepted" for entry in every),
        bytes_down=sum(entry.bytes_down or 0 for entry in every),
        bytes_up=sum(entry.bytes_up or 0 for entry in every),
        seconds=sum(entry.seconds or 0.0 for entry in every),
        slowest_s=max((entry.round_trip_s or 0.0 for entry in every), default=0.0),
        cpu_seconds=sum(entry.cpu_seconds or 0.0 for entry in every),
        peak_memory_mib=max((entry.peak_memory_mib or 0.0 for entry in every), default=0.0),
    )
