"""Cross-site validation over real trainers with tiny networks, in the true messages."""

import json
import logging
import shutil
from pathlib import Path
from typing import ClassVar

import pytest

from client.in_process import InProcessSite
from gmmas_cli.main import run_program
from gmmas_schema.errors import ConfigError, FederationError, ModelError, ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.messages import Action, Interval
from gmmas_schema.validation import ValidatedModel, ValidationConfig
from gmmas_schema.vocabulary import Region, Split
from server.app import open_run_folder
from server.checkpoint import RunFolder
from server.courier import Timing
from server.events import read_events
from server.local_grid import LocalGrid
from server.validation import publish_matrix, validate_in_folder
from server.validation_folder import ValidationFolder, open_work
from strategies.codec import read_report
from tests.client.tiny_sites import FLAIR_ONLY, make_config, make_trainer, run

NORTH, SOUTH = ("north", 0), ("south", 10)


def make_site(name: str, first: int):
    return InProcessSite(make_trainer(name, first=first))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A federated model of two sites, and one that north trained alone."""
    folder = tmp_path_factory.mktemp("models")
    together = RunFolder.create(folder / "together", make_config(2))
    run([make_trainer("north"), make_trainer("south", first=10)], together)
    alone = RunFolder.create(folder / "alone", make_config(1).model_copy(update={"seed": 4}))
    run([make_trainer("north")], alone)
    return {"together": together.model_path("last"), "alone": alone.model_path("last")}


def make_validation(folder: Path, models: dict[str, Path], **changes: object) -> ValidationFolder:
    from gmmas_model.weights import load_weights

    entries = []
    for label, source in models.items():
        shutil.copytree(source, folder / "models" / label)
        weights = load_weights(source)
        entries.append(ValidatedModel(label=label, source=str(source), weights=weights.sha256, definition=weights.definition, round=2))
    return ValidationFolder.create(folder, ValidationConfig(models=tuple(entries), **changes))


def test_every_model_is_measured_at_every_site_on_its_own_patients(tmp_path, models) -> None:
    folder = make_validation(tmp_path / "v", models)
    seen = []
    grid = LocalGrid({10: make_site(*NORTH), 11: make_site(*SOUTH)}, watch=seen.append)
    matrix = validate_in_folder(grid, folder)
    assert matrix.sites == ("north", "south")
    assert [row.model.label for row in matrix.rows] == ["together", "alone"]
    together, alone = matrix.rows
    assert all(own.split is Split.TEST for row in matrix.rows for own in row.sites.values())
    # What a site says of a model is what its trainer says of it when it is asked alone.
    from gmmas_model.weights import load_weights
    from gmmas_schema.messages import TaskRequest

    tensors = load_weights(models["alone"]).tensors
    definition = folder.config.models[0].definition
    request = TaskRequest(action=Action.EVALUATE, run="x", round=2, rounds=0, seed=0, model=definition, evaluate=Split.TEST)
    expected = make_trainer("south", first=10).evaluate(tensors, request)
    assert alone.sites["south"].dice[Region.WT].value == pytest.approx(expected.dice[Region.WT].value, abs=2e-3)  # fp16 on the wire
    assert alone.metrics["dice_wt"] == pytest.approx(sum(own.dice[Region.WT].value for own in alone.sites.values()) / 2)
    # One message a site and model beside the description, and no tensors come back.
    replies = [message for message in seen if message.metadata.reply_to_message_id]
    assert sorted(message.metadata.message_type for message in replies) == ["evaluate"] * 4 + ["query"] * 2
    assert all(not read_report(m.content)[1] for m in replies if m.metadata.message_type == "evaluate")
    assert {head: error.patients for head, error in together.calibration.items()} == {}  # of one patient nothing is told
    kinds = [event.kind for event in read_events(folder.events_path)]
    assert kinds.count(EventKind.MODEL_VALIDATED) == 2
    assert kinds[-1] is EventKind.RUN_FINISHED


def test_differences_come_patient_by_patient_from_the_site(tmp_path, models) -> None:
    from gmmas_workflows.training import LocalTrainer
    from tests.client.tiny_sites import MODALITIES, TINY, make_sample

    samples = {Split.TRAIN: [make_sample(0)], Split.TEST: [make_sample(n) for n in range(20, 26)]}
    site = InProcessSite(LocalTrainer(TINY, samples, modalities=MODALITIES, site="north", device="cpu", threads=1))
    matrix = validate_in_folder(LocalGrid({10: site}), make_validation(tmp_path / "v", models))
    first, second = (row.sites["north"] for row in matrix.rows)
    assert (first.against, first.paired) == ("", {})
    assert second.against
    for region in Region:
        difference = second.paired[f"dice_{region}"]
        assert difference.n == 6
        assert difference.value == pytest.approx(second.dice[region].value - first.dice[region].value, abs=1e-9)
        assert difference.low <= difference.value <= difference.high
    assert second.paired["auc_idh"].value == pytest.approx(second.auc["idh"].value - first.auc["idh"].value)
    assert matrix.rows[0].calibration[Region.WT].reliability_patients == pytest.approx(6)
    assert matrix.rows[0].calibration[Region.WT].nll > 0


def test_a_validation_that_broke_off_goes_on_where_it_was(tmp_path, models) -> None:
    folder = make_validation(tmp_path / "v", models)
    grid = LocalGrid({10: make_site(*NORTH)})

    class Unreadable(ValidationFolder):
        def load_model(self, model: ValidatedModel):
            if model.label == "alone":
                raise ModelError("pulled out")
            return super().load_model(model)

    with pytest.raises(ModelError):
        validate_in_folder(grid, Unreadable(folder.path, config=folder.config, run=folder.run))
    assert read_events(folder.events_path)[-1].kind is EventKind.RUN_FAILED
    asked = []
    grid = LocalGrid({10: make_site(*NORTH)}, watch=lambda m: asked.append(m.metadata.message_type))
    matrix = validate_in_folder(grid, open_work(folder.path))
    assert len(matrix.rows) == 2
    assert asked.count("evaluate") == 2  # one request, one reply: the first model's answers were there
    assert validate_in_folder(LocalGrid({}), open_work(folder.path)) == matrix


def test_a_site_that_cannot_answer_is_named_and_the_others_count(tmp_path, models, caplog) -> None:
    folder = make_validation(tmp_path / "v", models)

    def broken(message, context):
        if message.metadata.message_type == "evaluate":
            raise RuntimeError("out of order")
        return make_site(*SOUTH)(message, context)

    matrix = validate_in_folder(LocalGrid({10: make_site(*NORTH), 11: broken}), folder)
    assert all(row.refused.keys() == {"south"} for row in matrix.rows)
    assert matrix.sites == ("north",)


def test_with_too_few_sites_nothing_is_said(tmp_path, models, caplog) -> None:
    folder = make_validation(tmp_path / "v", models, sites=2)
    with caplog.at_level(logging.CRITICAL), pytest.raises(FederationError) as failure:
        validate_in_folder(LocalGrid({10: make_site(*NORTH)}), folder, timing=Timing(deadlines=False))
    assert failure.value.code is ReasonCode.QUORUM
    assert folder.read_matrix() is None


def test_a_site_with_fewer_sequences_measures_what_it_can(tmp_path, models) -> None:
    site = InProcessSite(make_trainer("flair", FLAIR_ONLY, first=20))
    matrix = validate_in_folder(LocalGrid({10: site}), make_validation(tmp_path / "v", models))
    assert matrix.rows[0].sites["flair"].dice[Region.WT].n == 1


def test_a_model_that_was_changed_meanwhile_is_refused(tmp_path, models) -> None:
    folder = make_validation(tmp_path / "v", models)
    shutil.rmtree(folder.path / "models" / "together")
    shutil.copytree(models["alone"], folder.path / "models" / "together")
    with pytest.raises(ModelError, match="another one now"):
        validate_in_folder(LocalGrid({10: make_site(*NORTH)}), folder)


def test_folders_are_told_apart(tmp_path, models) -> None:
    folder = make_validation(tmp_path / "v", models)
    assert isinstance(open_work(folder.path), ValidationFolder)
    with pytest.raises(ConfigError, match="holds a validation"):
        ValidationFolder.create(folder.path, folder.config)

    class Context:
        run_config: ClassVar = {"run-dir": str(folder.path)}

    assert isinstance(open_run_folder(Context()), ValidationFolder)
    with pytest.raises(ConfigError):
        open_work(tmp_path / "nothing")


def test_the_matrix_is_in_mlflow_with_its_picture(tmp_path, models) -> None:
    from mlflow.tracking import MlflowClient

    folder = make_validation(tmp_path / "v", models)
    matrix = validate_in_folder(LocalGrid({10: make_site(*NORTH)}), folder, publish=publish_matrix)
    assert (folder.path / "matrix.png").stat().st_size > 5_000
    client = MlflowClient(tracking_uri=f"sqlite:///{folder.path / 'mlflow.db'}")
    logged = client.get_run((folder.path / "mlflow_run").read_text())
    assert logged.info.status == "FINISHED"
    assert logged.data.tags["gmmas.training"] == "validation"
    assert logged.data.tags[f"weights/{matrix.rows[0].model.weights[:12]}"] == "together"
    assert logged.data.metrics["model/alone/site/north/test/dice_wt"] == matrix.rows[1].sites["north"].dice[Region.WT].value
    assert {path.path for path in client.list_artifacts(logged.info.run_id)} == {"matrix.json", "matrix.png"}
    content = json.loads((folder.path / "matrix.json").read_text())
    assert content["rows"][0]["model"]["label"] == "together"


@pytest.mark.parametrize(
    ("paired", "against", "code"),
    [({"dice_wt": Interval(value=2.0, n=1)}, "", None), ({"dice_wt": Interval(value=0.1, n=1)}, "elsewhere", None)],
)
def test_differences_nobody_asked_for_are_refused(tmp_path, models, paired, against, code) -> None:
    site = make_site(*NORTH)

    def inventive(message, context):
        reply = site(message, context)
        if message.metadata.message_type != "evaluate":
            return reply
        report, _ = read_report(reply.content)
        from flwr.app import Message

        from strategies.codec import write_report

        changed = report.model_copy(update={"evaluation": report.evaluation.model_copy(update={"paired": paired, "against": against})})
        return Message(write_report(changed), reply_to=message)

    folder = make_validation(tmp_path / "v", models)
    with pytest.raises(FederationError, match=ReasonCode.REPLY_REFUSED):
        validate_in_folder(LocalGrid({10: inventive}), folder)


def test_status_shows_a_validation_before_and_after_its_end(tmp_path, models, capsys) -> None:
    folder = make_validation(tmp_path / "v", models)
    assert run_program(["status", str(folder.path)]) == 1
    assert "0 of 2 models measured; not at work" in capsys.readouterr().out
    validate_in_folder(LocalGrid({10: make_site(*NORTH)}), folder)
    assert run_program(["status", str(folder.path)]) == 0
    shown = capsys.readouterr().out
    assert "Dice WT, test patients" in shown
    assert "alone" in shown
    assert run_program(["status", str(folder.path), "--events"]) == 0
    assert "model_validated" in capsys.readouterr().out
