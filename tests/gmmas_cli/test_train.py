"""The command on real files: what options mean, what it leaves on disk, and that neither a kill nor Ctrl-C changes its weights."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml

from gmmas_cli.main import run_program
from gmmas_cli.train import base_config, name_cohorts
from gmmas_model.weights import load_weights
from gmmas_schema.errors import ConfigError
from gmmas_schema.standalone import TrainConfig
from gmmas_schema.vocabulary import MODALITIES, Modality, Task
from gmmas_workflows.train_folder import TrainFolder
from tests.gmmas_data.scans import SUFFIX, Layout, brain, save, tumour, write_case

SHAPE = (30, 36, 28)
ROUNDS = 8  # enough that an interrupt after the second never comes too late
SPLIT = {"validation": 0.25, "test": 0.25}


@pytest.fixture(scope="module")
def north(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six cases of different intensities, with molecular labels of four."""
    root = tmp_path_factory.mktemp("cohorts") / "North Hospital"
    rng = np.random.default_rng(0)
    for number in range(6):
        for modality in MODALITIES:
            noise = rng.integers(0, 400, SHAPE) * (brain(modality, shape=SHAPE) > 0)
            scan = brain(modality, shape=SHAPE) + noise + 300 * tumour(shape=SHAPE).astype(np.int64)
            save(root / f"N{number}" / f"N{number}{SUFFIX[Layout.BRATS2021][modality]}.nii.gz", scan.astype(np.int16))
        save(root / f"N{number}" / f"N{number}_seg.nii.gz", tumour(shape=SHAPE))
    rows = [f"N{number},{'mutant' if number % 2 else 'wildtype'}," for number in range(4)]
    (root / "labels.csv").write_text("\n".join(["patient_id,idh,codeletion", *rows]) + "\n")
    return root


@pytest.fixture(scope="module")
def east(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cases of two sequences without labels."""
    root = tmp_path_factory.mktemp("cohorts") / "east"
    for number in range(4):
        write_case(root / f"E{number}", case_id=f"E{number}", modalities=(Modality.T2, Modality.FLAIR), shape=SHAPE, patient=number)
    return root


@pytest.fixture(scope="module")
def train_yaml(north: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network on the cases of north, untracked."""
    content = {
        "cohorts": [{"name": "north", "root": str(north), "labels": str(north / "labels.csv"), "split": SPLIT}],
        "rounds": ROUNDS,
        "training": {"local_steps": 2, "warmup_steps": 1, "precision": "fp32"},
        "model": {
            "network": {"channels": [4, 8], "blocks": [1, 1], "transformer_heads": 2},
            "grid": {"spacing_mm": 2.0, "shape": [16, 16, 16]},
        },
        "early_stop": None,
        "device": "cpu",
        "threads": 1,
        "tracking": None,
    }
    path = tmp_path_factory.mktemp("config") / "train.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def unbroken(train_yaml: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole training."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    assert run_program(["train", "--config", str(train_yaml), "--out", str(out)]) == 0
    return out


def digests(out: Path) -> list[str]:
    return [record.model_sha256 for record in TrainFolder.open(out).read_records()]


def test_a_training_leaves_models_result_and_curves(unbroken: Path) -> None:
    result = json.loads((unbroken / "result.json").read_text())
    assert (result["rounds"], result["steps"], result["stopped_early"]) == (ROUNDS, 2 * ROUNDS, False)
    assert list(result["test"]["sites"]) == ["north"]
    assert (unbroken / "learning-curves.png").read_bytes().startswith(b"\x89PNG")
    assert load_weights(unbroken / "models" / "best").sha256 == result["best_sha256"]
    assert load_weights(unbroken / "models" / "last").sha256 == result["last_sha256"]
    assert not (unbroken / "mlflow.db").exists()
    assert unbroken.stat().st_mode & 0o077 == 0
    losses = [record.training.losses[Task.SEGMENTATION] for record in TrainFolder.open(unbroken).read_records()]
    assert losses[-1] < losses[0] - 0.05


def test_a_finished_training_is_shown_again_and_not_repeated(unbroken, train_yaml, capsys) -> None:
    before = (unbroken / "result.json").stat().st_mtime_ns
    for arguments in (["--config", str(train_yaml)], ["--config", str(train_yaml), "--resume"], ["--resume"], []):
        assert run_program(["train", *arguments, "--out", str(unbroken)]) == 0
        out = capsys.readouterr().out
        assert f"Training has finished. {2 * ROUNDS} steps" in out
        assert "Dice WT" in out
        assert "cases are ready" not in out
    assert (unbroken / "result.json").stat().st_mtime_ns == before


def test_another_configuration_in_the_same_folder_is_refused(unbroken, train_yaml, capsys) -> None:
    assert run_program(["train", "--config", str(train_yaml), "--seed", "3", "--out", str(unbroken), "--resume"]) == 1
    assert "seed: 0 -> 3" in capsys.readouterr().err


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell has what it puts into the background ignore Ctrl-C, and every child inherits that; a handler it does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextmanager
def started(*arguments: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command in a process of its own; it does not outlive the context."""
    command = [sys.executable, "-m", "gmmas_cli.main", "train", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], *, timeout_s: float = 120.0) -> None:
    """Wait until something is so, while the process lives."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, "the training ended before it could be interrupted"
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.slow  # the interrupted one below and the kills of gmmas_workflows stay in the short suite
def test_a_killed_training_resumes_to_the_same_weights_bit_for_bit(unbroken, train_yaml, tmp_path, capsys) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    with started("--config", str(train_yaml), "--out", str(out), log=log) as process:
        wait_for((out / "rounds" / "0003").exists, process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    finished = len(digests(out))
    assert 3 <= finished < ROUNDS
    assert not (out / "result.json").exists()
    assert run_program(["train", "--config", str(train_yaml), "--out", str(out)]) == 1
    assert "--resume" in capsys.readouterr().err
    assert run_program(["train", "--config", str(train_yaml), "--out", str(out), "--resume"]) == 0
    assert f"resumed after round {finished} of {ROUNDS}" in capsys.readouterr().out
    assert digests(out) == digests(unbroken)
    for kind in ("best", "last"):
        weights = [(folder / "models" / kind / "model.safetensors").read_bytes() for folder in (out, unbroken)]
        assert weights[0] == weights[1]


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_leaves_a_state_to_go_on_from_and_says_how(unbroken, train_yaml, tmp_path, capsys) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    with started("--config", str(train_yaml), "--out", str(out), "--cache", str(tmp_path / "cache"), log=log) as process:
        wait_for((out / "rounds" / "0002").exists, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    text = log.read_text()
    finished = len(digests(out))
    assert f"Interrupted; {finished} of {ROUNDS} rounds are safe. Go on with:" in text
    assert f"gmmas train --out {out} --resume --cache {tmp_path / 'cache'}" in text
    assert "Traceback" not in text
    assert "\x1b" not in text
    assert (out / "learning-curves.png").exists()
    assert run_program(["train", "--out", str(out), "--resume", "--cache", str(tmp_path / "cache")]) == 0
    assert digests(out) == digests(unbroken)


def test_cohorts_alone_are_enough_and_are_pooled_with_mlflow(north, east, train_yaml, tmp_path, capsys) -> None:
    model = yaml.safe_load(train_yaml.read_text())["model"]
    config = tmp_path / "model.yaml"
    # Everything but the size of the network is what the command does by itself.
    config.write_text(yaml.safe_dump({"model": model, "cohorts": [{"name": "other", "root": "/nowhere"}]}))
    out = tmp_path / "run"
    options = ["--rounds", "1", "--steps", "1", "--threads", "1", "--device", "cpu", "--config", str(config)]
    assert run_program(["train", str(north), str(east), "--out", str(out), *options]) == 0
    text = capsys.readouterr().out
    assert "10 cases are ready" in text
    resolved = TrainFolder.open(out).config
    assert [(cohort.name, cohort.labels) for cohort in resolved.cohorts] == [("north-hospital", north / "labels.csv"), ("east", None)]
    assert TrainFolder.open(out).read_record(1).training.site == "pooled"
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    run = client.get_run((out / "mlflow_run").read_text())
    assert run.info.status == "FINISHED"
    assert {"test/score", "validation/score", "train/loss_segmentation", "site/pooled/cases"} <= set(run.data.metrics)
    assert client.get_model_version_by_alias("gmmas-local", "best").tags["weights_sha256"] == load_weights(out / "models" / "best").sha256
    assert f"--backend-store-uri sqlite:///{out}/mlflow.db" in text


def test_a_cohort_is_called_by_its_folder_or_by_its_site(north, east, tmp_path) -> None:
    site = {
        "site": "west",
        "data": {"root": "scans", "modalities": ["t1"], "split": SPLIT},
        "coordinator": {"address": "fed.example.org:9092", "root_certificate": "authority.pem"},
        "node": {"private_key": "key", "state": "state"},
    }
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(site))
    found = name_cohorts([north, east, tmp_path / "site.yaml"])
    config = TrainConfig.parse({"cohorts": found}, where="here")
    assert [cohort.name for cohort in config.cohorts] == ["north-hospital", "east", "west"]
    assert config.cohorts[2].root == tmp_path / "scans"
    assert (config.cohorts[2].modalities, config.cohorts[2].split.test) == ((Modality.T1,), 0.25)


def test_folders_of_one_name_are_told_apart_by_what_they_lie_in(tmp_path) -> None:
    for parent in ("A", "B"):
        (tmp_path / parent / "train").mkdir(parents=True)
    found = name_cohorts([tmp_path / "A" / "train", tmp_path / "B" / "train"])
    assert [cohort["name"] for cohort in found] == ["a-train", "b-train"]


def test_options_change_single_values_and_leave_the_rest(train_yaml, tmp_path, monkeypatch) -> None:
    seen: list[TrainConfig] = []

    def note(console: object, folder: TrainFolder, cache: object) -> None:
        seen.append(folder.config)

    monkeypatch.setattr("gmmas_cli.train.run_to_end", note)
    monkeypatch.setattr("gmmas_cli.train.show_result", lambda *_: None)
    options = ["--steps", "7", "--batch-size", "3", "--learning-rate", "0.01", "--precision", "bf16", "--patience", "4", "--skip-bad"]
    options += ["--network", "paper", "--tracking-uri", "sqlite:////srv/mlflow.db", "--device", "cuda", "--validate-every", "2"]
    assert run_program(["train", "-c", str(train_yaml), "-o", str(tmp_path / "a"), *options]) == 0
    assert run_program(["train", "-c", str(train_yaml), "-o", str(tmp_path / "b"), "--patience", "0"]) == 0
    changed, plain = seen
    before = TrainConfig.from_yaml(train_yaml)
    assert plain == before
    assert (changed.training.local_steps, changed.training.batch_size, changed.training.learning_rate) == (7, 3, 0.01)
    assert (changed.training.precision, changed.training.warmup_steps) == ("bf16", before.training.warmup_steps)
    assert changed.early_stop is not None
    assert changed.early_stop.patience == 4
    assert changed.tracking is not None
    assert (changed.tracking.uri, changed.tracking.registered_model) == ("sqlite:////srv/mlflow.db", "gmmas-local")
    assert (changed.device, changed.validate_every, changed.model.network.channels[0]) == ("cuda", 2, 16)
    assert changed.model.grid == before.model.grid
    assert changed.cohorts == (before.cohorts[0].model_copy(update={"skip_bad_cases": True}),)


def test_a_wrong_value_is_told_by_its_key(train_yaml, tmp_path, capsys) -> None:
    assert run_program(["train", "-c", str(train_yaml), "-o", str(tmp_path / "run"), "--learning-rate", "-1"]) == 1
    assert "training.learning_rate" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_nothing_to_train_on_is_told(tmp_path) -> None:
    with pytest.raises(ConfigError, match="a training needs cases"):
        base_config([], None, tmp_path, resume=False)


def test_a_bad_case_is_named_and_can_be_left_out(north, train_yaml, tmp_path, capsys) -> None:
    root = tmp_path / "cohort"
    for case in sorted(path for path in north.iterdir() if path.is_dir()):
        (root / case.name).mkdir(parents=True)
        for file in case.iterdir():
            (root / case.name / file.name).symlink_to(file)
    (root / "N1" / "N1_t2.nii.gz").unlink()
    (root / "N1" / "N1_t2.nii.gz").write_bytes(b"\x1f\x8b broken")
    options = ["-c", str(train_yaml), "--rounds", "1", "--steps", "1"]
    assert run_program(["train", str(root), "-o", str(tmp_path / "a"), *options]) == 1
    assert "N1_t2.nii.gz" in capsys.readouterr().err
    assert run_program(["train", str(root), "-o", str(tmp_path / "b"), "--skip-bad", *options]) == 0
    text = capsys.readouterr().out
    assert "left out N1 of cohort" in text
    assert json.loads((tmp_path / "b" / "result.json").read_text())["rounds"] == 1
