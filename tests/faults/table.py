"""The table of faults: what was done, and what became of the run.

`make test-faults` writes benchmarks/results/faults.json and faults.md; a cell that is run again takes the place of its earlier result.
"""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.software import commit

TABLE_VARIABLE = "GMMAS_FAULTS_TABLE"
"""Names the table without its ending; not set: nothing is written."""
EQUAL = "equal"
MISSING = "finished with a missing reply"
COMMAND = "make test-faults"

HEAD = f"""\
# Faults

`{COMMAND}` (tests/faults). One coordinator and two hospitals of real processes on loopback, both replies needed in every round: two
rounds, then evaluation, calibration, test. The fault happens in round 2 or at the end. *equal*: the weights of every round, the
published models and their calibration are those of an unbroken run, bit for bit. *Resumed*: how often the run's process had ended and
`gmmas run --resume` was called. *Asked again*: rounds or questions that were tried anew because a reply was missing. The machine was
busy with other work, so the seconds tell little.

| fault | stage | outcome | resumed | asked again | seconds | commit | |
|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """One fault.

    Attributes:
        fault: what was done, and to what.
        stage: when in the run.
        outcome: EQUAL: the weights of an unbroken run, bit for bit. MISSING: a round that counts went without a reply.
        resumes: how often the run had stopped and was resumed by `gmmas run --resume`.
        failed_attempts: rounds or questions that were asked again.
        seconds: of the whole run; an unbroken one is in the table too.
        software: commit that was tried.
    """

    fault: str
    stage: str
    outcome: str
    resumes: int
    failed_attempts: int
    seconds: float
    note: str = ""
    software: str = field(default_factory=commit)


def write_row(row: Row) -> None:
    """Put a row into the table, where one is asked for."""
    name = os.environ.get(TABLE_VARIABLE)
    if not name:
        return
    path = Path(name).with_suffix(".json")
    table = json.loads(path.read_text()) if path.exists() else {"rows": []}
    rows = [old for old in table["rows"] if (old["fault"], old["stage"]) != (row.fault, row.stage)] + [asdict(row)]
    machine = {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"command": COMMAND, "machine": machine, "rows": rows}, indent=1) + "\n")
    path.with_suffix(".md").write_text(_page(rows))


def _page(rows: list[dict[str, object]]) -> str:
    lines = [
        f"| {row['fault']} | {row['stage']} | {row['outcome']} | {row['resumes']} | {row['failed_attempts']} "
        f"| {row['seconds']:.0f} | {row['software']} | {row['note']} |"
        for row in sorted(rows, key=lambda row: (str(row["fault"]), str(row["stage"])))
    ]
    return HEAD + "\n".join(lines) + "\n"
