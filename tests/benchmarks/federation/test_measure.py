import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks.federation.accounting import Sample, at
from benchmarks.federation.measure import by_program, reason_of
from benchmarks.federation.plan import COMPARED, DEPLOYED, MODELS, WHAT, Cell, plan_cells
from benchmarks.federation.stand_in import FOLDER_VARIABLE, SECONDS_VARIABLE, train
from gmmas_schema.errors import FederationError
from server.initial_model import make_initial_model

SCRIPT = '''
"""Measures a "system" of one process whose sites are threads: half of them work while the other half train."""
import sys, types
from pathlib import Path
from benchmarks.federation import measure as module
from benchmarks.federation.plan import Cell

PROGRAM = """
import threading, time
from benchmarks.federation.stand_in import train
barrier = threading.Barrier(4)
def burn():
    end = time.thread_time() + 0.15
    while time.thread_time() < end: pass
def site(number):
    for round in (1, 2, 3):
        barrier.wait()
        steps = [lambda: train(f"s{number}", round_number=round), burn]
        for step in steps if number < 2 else reversed(steps): step()
threads = [threading.Thread(target=site, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""

def run(cell, folder, launcher):
    launcher.run("nodes", (sys.executable, "-c", PROGRAM), role="site")
    return {"payload_down": 1.0, "payload_up": 1.0}

sys.modules["benchmarks.federation.threads"] = types.SimpleNamespace(run=run)
module.MODULES["gmmas-nodes"] = "threads"
module.become_reaper()
cell = Cell(system="gmmas-nodes", sites=4, model="tiny", rounds=3, train_s=0.5)
print(module.measure(cell, Path(sys.argv[1]), own_loopback=False).model_dump_json())
'''


def test_sites_that_are_threads_are_charged_for_what_they_work_and_the_parts_add_up(tmp_path) -> None:
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=120)
    result = json.loads(done.stdout)
    assert result["periods"] == 2
    # Four threads work 0.15 s a round, beside half a second in which two of them train: nothing of it is the training's.
    assert result["cpu_s"] == pytest.approx(0.6, abs=0.25)
    assert result["stand_in_cpu_s"] < 0.1
    assert result["cpu_s"] + result["stand_in_cpu_s"] == pytest.approx(sum(result["cpu_by_program"].values()), abs=0.01)
    assert result["unseen_s"] == 0


def test_training_notes_the_work_of_its_own_thread(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setenv(SECONDS_VARIABLE, "0.2")
    sites = [threading.Thread(target=train, args=(f"s{number}",)) for number in range(3)]
    for site in sites:
        site.start()
    end = time.thread_time() + 0.15
    while time.thread_time() < end:
        pass
    for site in sites:
        site.join()
    notes = [json.loads(path.read_text()) for path in tmp_path.glob("*.jsonl")]
    assert len(notes) == 3
    assert all(note["cpu_s"] < 0.05 for note in notes)
    assert all(note["end"] - note["start"] >= 0.2 for note in notes)


def test_every_program_has_its_place_in_the_sum() -> None:
    begin = Sample(0.0, {("site", "a"): 1.0, ("site", "b"): 3.0}, 0)
    end = Sample(9.0, {("site", "a"): 2.0, ("site", "a: ended children"): 5.0, ("coordinator", "c"): 0.008, ("coordinator", "d"): 0.006}, 0)
    parts = by_program(begin, end, periods=2)
    assert list(parts) == ["site/a: ended children", "site/a", "site/b", "the rest"]
    assert sum(parts.values()) == pytest.approx((end.total_s - begin.total_s) / 2)
    assert parts["site/b"] == -1.5


def test_the_tree_between_two_samples_is_on_a_line():
    samples = [Sample(0.0, {("site", "a"): 1.0}, 100), Sample(2.0, {("site", "a"): 2.0, ("site", "b"): 1.0}, 300, 1.0)]
    middle = at(samples, 1.0)
    assert middle.seconds == {("site", "a"): 1.5, ("site", "b"): 0.5}
    assert middle.total_s == 2.0
    assert middle.loopback_bytes == 200
    assert middle.unseen_s == 0.5
    with pytest.raises(ValueError, match="not between"):
        at(samples, 3.0)


def test_systems_alternate_within_a_repeat():
    cells = plan_cells(systems=("gmmas", "flower"), sites=(4, 8), models=("4 MB",), rounds=2, train_s=1, repeats=2)
    assert [cell.system for cell in cells] == ["gmmas", "flower"] * 4
    assert [cell.repeat for cell in cells] == [0] * 4 + [1] * 4
    assert len({cell.name for cell in cells}) == len(cells)


def test_what_is_measured_by_default_has_both_sides_of_what_is_compared():
    sides = {side for what, *pair in COMPARED for side in pair if what != "nodes as threads"}
    assert sides == set(DEPLOYED)
    assert sides < set(WHAT)


def test_one_missing_reply_ends_a_run_of_ours():
    federation = Cell(system="gmmas", sites=3, model="tiny").federation
    assert (federation.quorum.sites, federation.quorum.replies, federation.quorum.round_attempts) == (3, 3, 1)


@pytest.mark.parametrize(("model", "megabytes"), [("4 MB", 4.1), ("20 MB", 20.6)])
def test_models_are_as_big_as_they_are_called(model, megabytes):
    tensors = make_initial_model(Cell(system="flower", sites=1, model=model).federation)
    assert sum(value.nbytes for value in tensors.values()) / 1e6 == pytest.approx(megabytes, abs=0.1)
    assert model in MODELS


def test_why_a_cell_failed_is_one_line():
    assert reason_of(FederationError("a", got="b\nc", expected="d")) == "a; got b c; expected d"
    assert reason_of(ValueError("x\n y")) == "ValueError: x y"
