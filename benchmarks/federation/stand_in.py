"""Training as every system does it here: sleep, and note when. Standard library only, for it runs in other projects' environments.

The processor seconds that are noted, and that measure takes off again, are those of the one thread that trains. What else its process does
meanwhile (heartbeats, and where sites are threads of one process the messages of all others) is work of the system and stays in the sum.
"""

import json
import os
import time
from pathlib import Path
from typing import Final

FOLDER_VARIABLE: Final = "GMMAS_BENCH_NOTES"
SECONDS_VARIABLE: Final = "GMMAS_BENCH_TRAIN_S"


def train(site: str, *, round_number: int | None = None) -> None:
    """Sleep for the seconds of the environment and append a line to the site's notes, on the machine's monotonic clock.

    Args:
        site: name of the site; one file each.
        round_number: counted by the site where the system does not tell.
    """
    start, before = time.monotonic(), time.thread_time()
    notes = Path(os.environ[FOLDER_VARIABLE]) / f"{site}.jsonl"
    if round_number is None:
        round_number = len(notes.read_text().splitlines()) + 1 if notes.exists() else 1
    time.sleep(float(os.environ[SECONDS_VARIABLE]))
    note = {"round": round_number, "start": start, "end": time.monotonic(), "cpu_s": time.thread_time() - before}
    with notes.open("a") as handle:
        handle.write(json.dumps(note) + "\n")
