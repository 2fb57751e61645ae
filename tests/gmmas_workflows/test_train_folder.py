import json
import warnings
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from gmmas_schema.errors import ConfigError
from gmmas_schema.messages import Evaluation, Interval, SiteReport
from gmmas_schema.model import ModelDefinition, NetworkConfig
from gmmas_schema.standalone import CohortConfig, TrainConfig, TrainTracking
from gmmas_schema.vocabulary import Region, Split, Task
from gmmas_workflows.scores import score_model
from gmmas_workflows.train_folder import TrainFolder, TrainRound, TrainTracker, round_metrics

CONFIG = TrainConfig(cohorts=(CohortConfig(name="north", root=Path("/data/north")),), rounds=4, threads=1)


def record(number: int) -> TrainRound:
    north = Evaluation(split=Split.VALIDATION, cases=4, dice={Region.WT: Interval(value=0.5, low=0.1, high=0.9, n=4)})
    report = SiteReport(
        site="north",
        run="train-1",
        round=number,
        model_digest="0",
        cases=10,
        labelled={Task.SEGMENTATION: 8},
        losses={Task.SEGMENTATION: 0.75},
        steps=30,
        seconds={"train": 20.0},
    )
    return TrainRound(
        run="train-1",
        round=number,
        rounds=4,
        started_at=1_800_000_000.0 + 60 * number,
        seconds=25.0,
        validation=score_model({"north": north}, model_round=number, split=Split.VALIDATION),
        model_sha256="0" * 64,
        training=report,
        samples_per_s=3.0,
        device="cpu",
    )


def test_a_new_folder_holds_the_resolved_configuration_and_is_private(tmp_path: Path) -> None:
    folder = TrainFolder.prepare(tmp_path / "run", CONFIG, resume=False)
    assert TrainConfig.model_validate(json.loads((folder.path / "train.json").read_text())) == CONFIG
    assert TrainFolder.open(folder.path).run == folder.run == CONFIG.run
    assert folder.path.stat().st_mode & 0o077 == 0


def test_an_unfinished_training_is_gone_on_with_only_when_asked(tmp_path: Path) -> None:
    TrainFolder.prepare(tmp_path / "run", CONFIG, resume=False)
    with pytest.raises(ConfigError, match="--resume"):
        TrainFolder.prepare(tmp_path / "run", CONFIG, resume=False)
    assert TrainFolder.prepare(tmp_path / "run", CONFIG, resume=True).config == CONFIG


@pytest.mark.parametrize("resume", [False, True])
def test_another_configuration_is_refused_by_the_key_that_differs(tmp_path: Path, resume: bool) -> None:
    TrainFolder.prepare(tmp_path / "run", CONFIG, resume=False)
    other = CONFIG.model_copy(update={"rounds": 5, "cohorts": (CohortConfig(name="north", root=Path("/data/south")),)})
    with pytest.raises(ConfigError) as caught:
        TrainFolder.prepare(tmp_path / "run", other, resume=resume)
    assert caught.value.got == 'cohorts.0.root: "/data/north" -> "/data/south"; rounds: 4 -> 5'


def test_there_must_be_something_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no training to resume"):
        TrainFolder.prepare(tmp_path / "run", CONFIG, resume=True)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(ConfigError, match="not empty"):
        TrainFolder.prepare(tmp_path, CONFIG, resume=False)


def test_a_kill_while_the_folder_is_made_leaves_one_that_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"run": "train-1"}')
    assert TrainFolder.prepare(tmp_path, CONFIG, resume=False).config == CONFIG


def test_metrics_have_the_names_of_a_federated_run() -> None:
    metrics = round_metrics(record(1))
    assert metrics["train/loss_segmentation"] == 0.75
    assert metrics["site/north/train_loss_segmentation"] == 0.75
    assert metrics["site/north/cases"] == 10
    assert metrics["site/north/seconds_train"] == 20.0
    assert metrics["samples_per_s"] == 3.0


def test_a_training_is_recorded_in_mlflow(tmp_path: Path) -> None:
    store = tmp_path / "mlflow.db"
    uri = f"sqlite:///{store}"
    config = CONFIG.model_copy(update={"tracking": TrainTracking(uri=uri)})
    folder = TrainFolder.prepare(tmp_path / "run", config, resume=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        MlflowClient(tracking_uri=uri)
    tracker = TrainTracker(folder)
    tracker.start(config.model_dump(mode="json") | {"run": folder.run})
    tracker.log_round(record(1))
    tracker.log_round(record(2))
    tracker.finish("FINISHED")
    client = MlflowClient(tracking_uri=uri)
    run = client.get_run((folder.path / "mlflow_run").read_text())
    assert run.data.tags["gmmas.training"] == "local"
    assert run.data.params["training.learning_rate"] == "0.002"
    for metric in ("validation/dice_wt", "site/north/validation/dice_wt", "validation/score", "train/loss_segmentation"):
        assert [point.step for point in client.get_metric_history(run.info.run_id, metric)] == [1, 2]
    assert [path.name for path in tmp_path.rglob("train.json")] == ["train.json"] * 2


def test_a_model_of_another_size_cannot_slip_in(tmp_path: Path) -> None:
    network = NetworkConfig(channels=(4, 8), blocks=(1, 1), transformer_heads=2)
    folder = TrainFolder.prepare(tmp_path / "a", CONFIG, resume=False)
    with pytest.raises(ConfigError, match="network"):
        TrainFolder.prepare(folder.path, CONFIG.model_copy(update={"model": ModelDefinition(network=network)}), resume=True)
