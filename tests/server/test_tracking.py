import logging
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient

from gmmas_model.inference import predict_probabilities
from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import load_weights, save_calibration, save_weights
from gmmas_schema.calibration import Calibration, HeadCalibration, Reliability, ReliabilityPair
from gmmas_schema.errors import ReasonCode
from gmmas_schema.federation import FederationConfig, TrackingConfig
from gmmas_schema.messages import Evaluation, Interval
from gmmas_schema.model import ModelDefinition, NetworkConfig
from gmmas_schema.privacy import PrivacySpent
from gmmas_schema.vocabulary import Modality, Region, Split, Task
from gmmas_workflows.model_source import read_model
from gmmas_workflows.scores import ModelScore
from gmmas_workflows.tracking import flatten
from server.records import Outcome, RoundRecord, RunResult, SiteRecord
from server.tracking import MlflowTracker, round_metrics

DEFINITION = ModelDefinition(network=NetworkConfig(channels=(4, 8), blocks=(1, 1), transformer_heads=2))
CONFIG = FederationConfig(name="trial", rounds=2, model=DEFINITION)
RESOLVED = CONFIG.model_dump(mode="json") | {"run": "trial-0a1b2c3d"}


def score(model_round: int, dice: float, split: Split = Split.VALIDATION) -> ModelScore:
    north = Evaluation(
        split=split,
        cases=4,
        dice={Region.WT: Interval(value=dice, low=0.1, high=0.9, n=4), Region.ET: Interval(n=0)},
        auc={Task.IDH: Interval(value=0.75, low=0.2, high=1.0, n=4)},
        loss={Task.SEGMENTATION: 1.25},
    )
    return ModelScore(model_round=model_round, split=split, metrics={"dice_wt": dice}, score=dice, sites={"north": north})


def record(number: int, *, dice: float = 0.5) -> RoundRecord:
    return RoundRecord(
        run="trial-0a1b2c3d",
        round=number,
        rounds=2,
        attempt=1,
        started_at=1_800_000_000.0 + 60 * number,
        seconds=42.5,
        sites=(
            SiteRecord(
                site="north",
                node="1",
                outcome=Outcome.ACCEPTED,
                cases=10,
                labelled={Task.SEGMENTATION: 10},
                losses={Task.SEGMENTATION: 0.9},
                seconds={"train": 30.0},
                bytes_down=1000,
                bytes_up=900,
                peak_memory_mib=512.0,
            ),
            SiteRecord(site="south", node="2", outcome=Outcome.MISSING, code=ReasonCode.DEADLINE, bytes_down=800),
        ),
        validation=score(number - 1, dice),
        model_sha256="0" * 64,
        peak_memory_mib=256.0,
    )


def result(sha256: str) -> RunResult:
    return RunResult(
        run="trial-0a1b2c3d",
        rounds=2,
        best_round=1,
        model_digest=DEFINITION.digest(),
        best_sha256=sha256,
        last_sha256=sha256,
        validation=score(1, 0.7),
        last=score(2, 0.6),
        test=score(1, 0.65, Split.TEST),
    )


def write_network(folder: Path, *, seed: int) -> tuple[GmmasNetwork, str]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = GmmasNetwork(DEFINITION.network)
    tensors = {name: tensor.detach().numpy().copy() for name, tensor in network.state_dict().items()}
    return network, save_weights(folder, tensors, DEFINITION, metadata={"run": "trial-0a1b2c3d", "round": "1"})


def write_round(folder: Path, entry: RoundRecord) -> None:
    path = folder / f"rounds/{entry.round:04d}/round.json"
    path.parent.mkdir(parents=True)
    path.write_text(entry.model_dump_json())


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store with its tables and nothing in them; making them takes seconds, copying the file does not."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        MlflowClient(tracking_uri=f"sqlite:///{file}")
    return file


@pytest.fixture
def run(tmp_path: Path, empty_store: Path) -> Path:
    """The folder of a federated run."""
    folder = tmp_path / "trial"
    folder.mkdir()
    shutil.copyfile(empty_store, folder / "mlflow.db")
    return folder


def history(run: Path, metric: str) -> list[tuple[int, float]]:
    client = MlflowClient(tracking_uri=f"sqlite:///{run / 'mlflow.db'}")
    return sorted((point.step, point.value) for point in client.get_metric_history((run / "mlflow_run").read_text(), metric))


def test_figures_of_the_sites_own_models_stand_at_the_round_of_the_model_beside_those_of_the_global_one(run: Path) -> None:
    tracker = MlflowTracker(TrackingConfig(), run)
    tracker.start(RESOLVED)
    entry = record(2, dice=0.4).model_copy(update={"personalised": score(1, 0.8)})
    tracker.log_round(entry)
    tracker.log_round(entry)
    assert history(run, "personalised/score") == [(1, 0.8)]
    assert history(run, "validation/score") == [(1, 0.4)]


def test_a_refusal_and_what_privacy_has_cost_can_be_read(run: Path) -> None:
    tracker = MlflowTracker(TrackingConfig(), run)
    tracker.start(RESOLVED)
    bad = SiteRecord(site="east", node="3", outcome=Outcome.REFUSED, code=ReasonCode.REPLY_REFUSED, reason="far too long", cosine=-0.5)
    spent = PrivacySpent(epsilon=2.5, delta=1e-5, noise_multiplier=2.0, clip_norm=1.0, releases=1, affordable=3)
    entry = record(1)
    tracker.log_round(entry.model_copy(update={"sites": (*entry.sites, bad), "privacy": spent}))
    assert [history(run, f"site/{site}/refused") for site in ("north", "east")] == [[(1, 0.0)], [(1, 1.0)]]
    assert history(run, "site/east/cosine") == [(1, -0.5)]
    assert history(run, "privacy/epsilon") == [(1, 2.5)]
    tags = MlflowClient(tracking_uri=f"sqlite:///{run / 'mlflow.db'}").get_run((run / "mlflow_run").read_text()).data.tags
    assert tags["refused/east"] == "round 1: E_REPLY_REFUSED far too long"
    assert "refused/north" not in tags


def test_a_whole_run_is_recorded_and_its_models_come_back(run: Path) -> None:
    network, sha256 = write_network(run / "models" / "best", seed=1)
    write_network(run / "models" / "last", seed=2)
    tracker = MlflowTracker(TrackingConfig(), run)
    tracker.start(RESOLVED)
    tracker.log_round(record(1, dice=0.4))
    tracker.log_round(record(2, dice=0.7))
    best = tracker.register("best", run / "models" / "best", round=1, metrics={"dice_wt": 0.7})
    last = tracker.register("last", run / "models" / "last", round=2, metrics={})
    tracker.log_result(result(sha256))
    tracker.finish("FINISHED")
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"

    client = MlflowClient(tracking_uri=tracker.uri, registry_uri=tracker.uri)
    (logged,) = client.search_runs([client.get_experiment_by_name("gmmas").experiment_id])
    assert logged.info.status == "FINISHED"
    assert logged.info.run_name == "trial-0a1b2c3d"
    assert logged.data.params["training.learning_rate"] == "0.002"
    assert logged.data.params["model.network.channels"] == "[4, 8]"
    assert logged.data.tags["best_round"] == "1"
    assert logged.data.tags["gmmas.training"] == "federated"
    assert history(run, "validation/dice_wt") == [(0, 0.4), (1, 0.7), (2, 0.6)]
    assert history(run, "site/north/validation/dice_wt") == [(0, 0.4), (1, 0.7), (2, 0.6)]
    assert history(run, "test/dice_wt") == [(1, 0.65)]
    assert history(run, "bytes_up") == [(1, 900), (2, 900)]
    assert history(run, "site/south/accepted") == [(1, 0), (2, 0)]
    files = {path.name for path in (run / "mlflow-artifacts").rglob("*") if path.is_file()}
    assert {"federation.json", "result.json", "model.safetensors", "model.json", "MLmodel"} <= files
    assert not any(name.endswith((".pkl", ".pt", ".pth")) for name in files)

    assert (best, last) == ("models:/gmmas/1", "models:/gmmas/2")
    version = client.get_model_version_by_alias("gmmas", "best")
    assert version.tags == {"round": "1", "model_digest": DEFINITION.digest(), "weights_sha256": sha256, "dice_wt": "0.7"}
    check_model_comes_back(network, tracker.uri)


def check_model_comes_back(network: GmmasNetwork, uri: str) -> None:
    """`models:/gmmas@best` predicts what the network predicts."""
    import mlflow

    # By the variable: set_tracking_uri and set_registry_uri would hold for every later test of this process.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        loaded = mlflow.pyfunc.load_model("models:/gmmas@best")
    image_BMXYZ = np.random.default_rng(0).normal(size=(2, 4, 8, 8, 8)).astype(np.float32)
    present_BM = np.array([[True, True, True, True], [True, False, False, True]])
    answer = loaded.predict({"image": image_BMXYZ, "present": present_BM})
    expected = predict_probabilities(network, torch.from_numpy(image_BMXYZ), torch.from_numpy(present_BM))
    np.testing.assert_allclose(answer["regions"], expected.region_probability().numpy(), atol=1e-6)
    np.testing.assert_allclose(answer["subtype"], expected.subtype_probability().numpy(), atol=1e-6)


def calibrate(folder: Path, *, temperature: float) -> None:
    count = (0.0,) * 14 + (12.0,)
    pair = ReliabilityPair(
        before=Reliability(patients=count, confidence=(0.0,) * 14 + (11.8,), correct=(0.0,) * 14 + (9.0,)),
        after=Reliability(patients=count, confidence=(0.0,) * 14 + (11.7,), correct=(0.0,) * 14 + (9.0,)),
    )
    head = HeadCalibration(temperature=temperature, fitted=True, patients=12, nll_before=0.9, nll_after=0.6, reliability=pair)
    save_calibration(folder, Calibration(weights_sha256=load_weights(folder).sha256, heads={Task.IDH: head}))


def test_a_calibrated_version_brings_its_figures_and_its_diagram(run: Path, tmp_path: Path) -> None:
    write_network(run / "models" / "best", seed=1)
    calibrate(run / "models" / "best", temperature=2.5)
    tracker = MlflowTracker(TrackingConfig(), run)
    tracker.start(RESOLVED)
    first = tracker.register("best", run / "models" / "best", round=1, metrics={})
    assert tracker.register("last", run / "models" / "best", round=1, metrics={}) == first
    assert history(run, "calibration/temperature_idh") == [(1, 2.5)]
    assert history(run, "calibration/ece_before_idh") == [(1, pytest.approx(2.8 / 12))]
    assert history(run, "calibration/nll_after_idh") == [(1, 0.6)]
    assert history(run, "calibration/test_ece_before_idh") == []
    (picture,) = (run / "mlflow-artifacts").rglob("reliability.png")
    assert picture.stat().st_size > 10_000
    weights = read_model("models:/gmmas@best", tracking_uri=tracker.uri)
    assert weights.temperatures == {Task.IDH: 2.5}
    # The same weights with another calibration are another version.
    calibrate(run / "models" / "best", temperature=2.0)
    assert tracker.register("best", run / "models" / "best", round=1, metrics={}) != first
    assert read_model("models:/gmmas@best", tracking_uri=tracker.uri).temperatures == {Task.IDH: 2.0}
    assert read_model("models:/gmmas@last", tracking_uri=tracker.uri).temperatures == {Task.IDH: 2.5}


def test_a_resumed_run_goes_on_in_the_same_mlflow_run_and_doubles_nothing(run: Path) -> None:
    first = MlflowTracker(TrackingConfig(), run)
    first.start(RESOLVED)
    first.log_round(record(1))
    write_round(run, record(1))
    write_round(run, record(2))  # the coordinator died before MLflow heard of it
    resumed = MlflowTracker(TrackingConfig(), run)
    resumed.start(RESOLVED)
    resumed.log_round(record(2))
    _, sha256 = write_network(run / "models" / "best", seed=1)
    write_network(run / "models" / "last", seed=1)
    for _ in range(2):
        resumed.log_result(result(sha256))
    assert history(run, "seconds") == [(1, 42.5), (2, 42.5)]
    assert history(run, "test/dice_wt") == [(1, 0.65)]
    client = MlflowClient(tracking_uri=resumed.uri, registry_uri=resumed.uri)
    assert len(client.search_runs([client.get_experiment_by_name("gmmas").experiment_id])) == 1
    # Best and last hold the same weights: one version with two aliases.
    (version,) = client.search_model_versions("name='gmmas'")
    assert sorted(client.get_registered_model("gmmas").aliases) == ["best", "last"]
    assert version.tags["weights_sha256"] == sha256


def test_a_store_that_is_gone_is_written_anew(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    (run / "mlflow_run").write_text("0123456789abcdef0123456789abcdef")
    write_round(run, record(1))
    MlflowTracker(TrackingConfig(), run).start(RESOLVED)
    assert "no longer has this run" in caplog.text
    assert history(run, "seconds") == [(1, 42.5)]


def test_an_unreachable_store_is_warned_of_and_caught_up_with(
    tmp_path: Path, run: Path, empty_store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "store"
    blocked.write_text("a file where the store's folder should be")
    tracker = MlflowTracker(TrackingConfig(uri=f"sqlite:///{blocked}/mlflow.db"), run)
    with caplog.at_level(logging.WARNING, logger="gmmas_workflows.tracking"):
        tracker.start(RESOLVED)
        tracker.log_round(record(1))
        write_network(run / "model", seed=1)
        assert tracker.register("best", run / "model", round=1, metrics={}) == ""
    assert "did not take the configuration, round 1" in caplog.text
    blocked.unlink()
    blocked.mkdir()
    shutil.copyfile(empty_store, blocked / "mlflow.db")
    tracker.log_round(record(2))
    client = MlflowClient(tracking_uri=tracker.uri, registry_uri=tracker.uri)
    points = client.get_metric_history((run / "mlflow_run").read_text(), "seconds")
    assert [point.step for point in points] == [1, 2]
    assert client.get_model_version_by_alias("gmmas", "best").tags["round"] == "1"


def test_what_never_arrived_is_named_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "store"
    blocked.write_text("")
    tracker = MlflowTracker(TrackingConfig(uri=f"sqlite:///{blocked}/mlflow.db"), tmp_path)
    tracker.start(RESOLVED)
    tracker.finish("FINISHED")
    assert "MLflow lacks the configuration, the end of the run; resuming the run writes them" in caplog.text


def test_flatten_gives_dotted_keys() -> None:
    assert dict(flatten({"a": {"b": [1, 2], "c": {"d": None}}, "e": True})) == {"a.b": "[1, 2]", "a.c.d": "None", "e": "True"}


def test_metrics_of_a_round_leave_out_what_a_missing_site_did_not_say() -> None:
    metrics = round_metrics(record(1))
    assert metrics["replies"] == 1
    assert metrics["bytes_down"] == 1800
    assert metrics["site/north/train_loss_segmentation"] == 0.9
    assert metrics["train/loss_segmentation"] == 0.9
    assert metrics["site/south/accepted"] == 0
    assert "site/south/cases" not in metrics


def test_modalities_are_not_metrics() -> None:
    entry = record(1).model_copy(update={"sites": (record(1).sites[0].model_copy(update={"modalities": (Modality.T1,)}),)})
    assert all(isinstance(value, int | float) for value in round_metrics(entry).values())
