"""The command end to end on tiny cohorts: a run like any other, killed and resumed to the same bits."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gmmas_cli.main import run_program
from gmmas_schema.events import EventKind
from server.checkpoint import RunFolder
from server.events import read_events
from server.following import follow_run
from tests.client.simulations import write_simulation

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_simulation(tmp_path_factory.mktemp("simulation"))


@pytest.fixture(scope="module")
def finished(spec: Path) -> RunFolder:
    out, cache = spec.parent / "run", spec.parent / "cache"
    assert run_program(["simulate", str(spec), "--out", str(out), "--processes", "1", "--cache", str(cache)]) == 0
    return RunFolder.open(out)


def test_a_simulation_is_a_run_like_any_other(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert finished.finished_rounds() == (0, 1, 2)
    assert {site.site for site in finished.read_record(2).sites} == {"north", "east"}
    for name in ("learning-curves.png", "mlflow.db", "models/best/model.safetensors", "simulation.json"):
        assert (finished.path / name).stat().st_size > 100, name
    assert run_program(["status", str(finished.path)]) == 0
    assert "finished" in capsys.readouterr().out
    assert run_program(["status", str(finished.path), "--costs", "--json"]) == 0
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    trained = [entry for entry in entries if entry["action"] == "train"]
    assert len(trained) == 4
    assert all(entry["cpu_seconds"] > 0 and entry["bytes_up"] > 1000 for entry in trained)


def test_a_finished_simulation_can_be_followed_again_but_not_resumed(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[object] = []
    assert follow_run(finished.path, on_event=seen.append).kind is EventKind.RUN_FINISHED
    assert len(seen) == len(read_events(finished.events_path))
    assert run_program(["simulate", "--resume", "--out", str(finished.path)]) == 1
    assert "this run is finished" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("signal_", "before", "after"), [(signal.SIGKILL, 1, 2), (signal.SIGINT, 2, 1)])
def test_killed_or_interrupted_it_is_resumed_to_the_same_bits(
    spec: Path, finished: RunFolder, tmp_path: Path, signal_: signal.Signals, before: int, after: int
) -> None:
    """Whatever the numbers of processes."""
    out, cache, own = tmp_path / "run", spec.parent / "cache", [sys.executable, "-m", "gmmas_cli.main"]
    command = [*own, "simulate", str(spec), "--out", str(out), "--processes", str(before), "--cache", str(cache)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as killed:
        assert killed.stdout is not None
        lines: list[str] = []
        for line in killed.stdout:
            if "round 1 of 2" in line and not any("round 1 of 2" in earlier for earlier in lines):
                killed.send_signal(signal_)
            lines.append(line)
    if signal_ is signal.SIGINT:
        assert killed.returncode == 130
        assert f"gmmas simulate --resume --out {out}" in "".join(lines[-2:])
    else:
        assert killed.returncode == -signal.SIGKILL
    folder = RunFolder.open(out)
    assert folder.read_result() is None
    assert run_program(["simulate", "--resume", "--out", str(out), "--processes", str(after), "--cache", str(cache)]) == 0
    kinds = [event.kind for event in read_events(folder.events_path)]
    assert EventKind.RUN_RESUMED in kinds
    assert kinds[-1] is EventKind.RUN_FINISHED
    ours, theirs = folder.read_result(), finished.read_result()
    assert ours is not None and theirs is not None  # noqa: PT018
    assert (ours.last_sha256, ours.best_sha256) == (theirs.last_sha256, theirs.best_sha256)


@pytest.mark.slow
def test_phantoms_are_made_for_the_run(tmp_path: Path) -> None:
    plain = yaml.safe_load(write_simulation(tmp_path, copies=2).read_text())
    del plain["cohorts"]
    site = {"cases": 4, "scanner": "old-1.5t", "modalities": ["flair"], "labelled": {"idh": 0, "codeletion": 0}}
    plain["phantom"] = {"spacing_mm": 4.0, "sites": [site | {"name": "a"}, site | {"name": "b"}]}
    plain |= {"leave_out": ["b"], "federation": plain["federation"] | {"rounds": 1, "calibration": None}}
    (tmp_path / "phantoms.yaml").write_text(yaml.safe_dump(plain))
    out = tmp_path / "run"
    assert run_program(["simulate", str(tmp_path / "phantoms.yaml"), "--out", str(out), "--processes", "1"]) == 0
    assert [site.site for site in RunFolder.open(out).read_record(1).sites] == ["a-0001", "a-0002"]
    assert (out / "cohorts" / "a").is_dir()


def test_what_cannot_be_simulated_is_told(spec: Path, finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["simulate", "--out", str(tmp_path / "new")]) == 1
    assert "a new simulation needs a configuration" in capsys.readouterr().err
    assert run_program(["simulate", str(spec), "--out", str(finished.path)]) == 1
    assert "go on with that run by `--resume`" in capsys.readouterr().err.replace("\n", " ")
    other = spec.with_name("other.yaml")
    other.write_text(spec.read_text().replace("rounds: 2", "rounds: 3"))
    assert run_program(["simulate", str(other), "--out", str(finished.path), "--resume"]) == 1
    assert "federation.rounds: 2 -> 3" in capsys.readouterr().err
