"""`gmmas model` over a real registry: two federated runs of tiny sites, a validation of their models, and promotion."""

import json
import shutil
from pathlib import Path

import pytest

from client.in_process import InProcessSite
from gmmas_cli.main import run_program
from gmmas_cli.model_report import comparison_links, find_comparison
from gmmas_cli.validate import copy_models, matrix_tables
from gmmas_runtime.keys import SIGNING_CERTIFICATE, SIGNING_KEY, issue_signing_certificate, make_authority
from gmmas_runtime.manifest import Signer, check_manifest, write_manifest
from gmmas_schema.errors import ModelError
from gmmas_schema.events import EventKind
from gmmas_schema.federation import TrackingConfig, TrainingPlan
from gmmas_schema.manifest import CARD_FILE, CARD_TEXT, MANIFEST_FILE
from gmmas_schema.model_card import ModelCard
from gmmas_schema.validation import ValidationConfig, ValidationMatrix
from gmmas_schema.vocabulary import MODALITIES, Split
from gmmas_workflows.training import LocalTrainer
from server.card_text import LONGEST_DESCRIPTION
from server.checkpoint import RunFolder
from server.deployment import init_coordinator
from server.events import EventLog, read_events
from server.local_grid import LocalGrid
from server.registry import Registry
from server.rounds import run_federation
from server.submission import Submission
from server.tracking import MlflowTracker
from server.validation import publish_matrix, validate_in_folder
from server.validation_folder import ValidationFolder
from tests.client.tiny_sites import TINY, make_config, make_sample


def make_site(name: str, first: int) -> LocalTrainer:
    """A site with six test patients."""
    parts = {Split.TRAIN: range(3), Split.VALIDATION: range(3, 5), Split.TEST: range(5, 11)}
    samples = {split: [make_sample(first + number) for number in numbers] for split, numbers in parts.items()}
    return LocalTrainer(TINY, samples, modalities=MODALITIES, site=name, device="cpu", threads=1)


class Federation:
    """A coordinator's folder, two runs with one store, and a validation of both best models."""

    def __init__(self, path: Path) -> None:
        self.path, self.store = path, f"sqlite:///{path / 'mlflow.db'}"
        self.coordinator = init_coordinator(path / "coordinator")
        self.sites = {"north": make_site("north", 0), "south": make_site("south", 20)}
        self.runs = [self._run(name, steps) for name, steps in (("first", 1), ("second", 30))]
        self.authority = str(self.coordinator.authority_certificate)

    def grid(self) -> LocalGrid:
        return LocalGrid({node: InProcessSite(trainer) for node, trainer in enumerate(self.sites.values(), start=10)})

    def _run(self, name: str, steps: int) -> RunFolder:
        plan = TrainingPlan(local_steps=steps, learning_rate=0.02, warmup_steps=0, precision="fp32")
        config = make_config(2).model_copy(update={"rounds": 1, "training": plan, "tracking": TrackingConfig(uri=self.store)})
        folder = RunFolder.create(self.path / name, config)
        submission = Submission(flower_run="1", coordinator=self.coordinator.path, submitted=0.0)
        (folder.path / "submission.json").write_text(submission.model_dump_json())
        run_federation(self.grid(), folder, tracker=MlflowTracker(config.tracking, folder.path), events=EventLog(folder.events_path))
        return folder

    def validate(self, *models: str, name: str) -> ValidationMatrix:
        place = self.path / name
        entries = copy_models(models, place, tracking_uri=self.store)
        config = ValidationConfig(models=tuple(entries), sites=2, tracking=TrackingConfig(uri=self.store))
        return validate_in_folder(self.grid(), ValidationFolder.create(place, config), publish=publish_matrix)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return Federation(tmp_path_factory.mktemp("federation"))


def program(*arguments: object) -> int:
    return run_program(["model", *map(str, arguments)])


def test_a_run_publishes_cards_that_name_no_hospital_and_signed_manifests(federation: Federation) -> None:
    for run in federation.runs:
        for kind in ("best", "last"):
            place = run.model_path(kind)
            origin = check_manifest(place, authority=Path(federation.authority))
            assert (origin.manifest.run, set(origin.manifest.files) >= {CARD_FILE, CARD_TEXT}) == (run.run, True)
            text = (place / CARD_TEXT).read_text()
            assert "north" not in text
            assert "south" not in text
            card = ModelCard.from_yaml(place / CARD_FILE)
            assert set(card.data.by_site) == {"site-1", "site-2"}
            assert card.test is not None or kind == "last"
    first, second = ((folder.model_path("best") / CARD_FILE).read_text() for folder in federation.runs)
    assert json.loads(first)["data"]["by_site"].keys() == json.loads(second)["data"]["by_site"].keys()


def test_the_version_in_the_registry_has_the_card_and_its_origin(federation: Federation) -> None:
    import mlflow

    client = mlflow.MlflowClient(federation.store, federation.store)
    version, *_ = client.search_model_versions("name='gmmas'")
    assert version.description.startswith("# Model card: gmmas")
    assert len(version.description) <= LONGEST_DESCRIPTION
    tags = client.get_run(version.run_id).data.tags
    assert (tags["gmmas.strategy"], tags["gmmas.wire"], tags["gmmas.privacy"], tags["gmmas.secure"]) == (
        "fedavg",
        "fp16/fp32",
        "none",
        "off",
    )
    assert Path(tags["gmmas.folder"]) in {run.path for run in federation.runs}


def test_verify_tells_who_vouches(federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = federation.runs[0]
    assert program("verify", run.path, "--authority", federation.authority) == 0
    assert "signed by the given authority (gmmas models)" in " ".join(capsys.readouterr().out.split())
    assert program("verify", "models:/gmmas@last", "--tracking-uri", federation.store, "--authority", federation.authority) == 0
    copy = tmp_path / "copy"
    shutil.copytree(run.model_path("best"), copy)
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(bytes(content))
    capsys.readouterr()
    assert program("verify", copy) == 1
    assert "not the one that was published" in capsys.readouterr().err
    (copy / MANIFEST_FILE).unlink()
    assert program("verify", copy) == 1
    assert "Nobody vouches for this model: no manifest." in capsys.readouterr().out


FORGED = "The model is as it was published, signed by the given authority (gmmas models)."


@pytest.mark.parametrize("words", [f"first\n{FORGED}", f"first [green]{FORGED}[/green]", "first[/]", f"first\x1b[2K\r{FORGED}"])
def test_verify_lets_no_manifest_speak_in_its_place(federation: Federation, tmp_path: Path, capsys, words: str) -> None:
    """Anybody can write a manifest and sign it with a certificate of their own making; neither makes a line of its own."""
    copy = tmp_path / "copy"
    shutil.copytree(federation.runs[0].model_path("best"), copy)
    make_authority(tmp_path / "authority", name="other")
    issue_signing_certificate(tmp_path / "authority", tmp_path / "signing", name=words[:60])
    signer = Signer.load(tmp_path / "signing" / SIGNING_CERTIFICATE, tmp_path / "signing" / SIGNING_KEY)
    write_manifest(copy, model_digest="ab" * 32, run=words, round=1, signer=signer)
    assert program("verify", copy) == 0
    out = capsys.readouterr().out
    assert not [line for line in out.splitlines() if line.startswith(FORGED[:40])]
    assert "\x1b[2K" not in out
    assert "is as it was signed" in out
    assert ("[" in words) <= ("[" in out), "told as it is written"


@pytest.mark.parametrize("command", ["predict", "export"])
def test_a_changed_model_is_neither_predicted_with_nor_exported(federation: Federation, tmp_path: Path, capsys, command: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(federation.runs[0].model_path("best"), copy)
    (copy / "model.json").write_text((copy / "model.json").read_text() + " ")
    case = Path(__file__).parents[1] / "data" / "BraTS2021_00006"
    arguments = {
        "predict": ["predict", str(case), "--model", str(copy), "--out", str(tmp_path / "out")],
        "export": ["export", str(copy), str(tmp_path / "out"), "--format", "weights"],
    }[command]
    assert run_program([*arguments, "--threads", "1"]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "a model is not the one that was published" in told
    assert "copy the whole folder again" in told
    assert not (tmp_path / "out").exists()


def test_an_export_of_weights_keeps_card_and_signature(federation: Federation, tmp_path: Path, capsys) -> None:
    source, out = federation.runs[0].model_path("best"), tmp_path / "out"
    assert run_program(["export", str(source), str(out), "--format", "weights", "--authority", federation.authority, "--threads", "1"]) == 0
    assert check_manifest(out, authority=Path(federation.authority)).is_signed
    assert (out / CARD_TEXT).read_bytes() == (source / CARD_TEXT).read_bytes()


def test_a_card_is_shown_and_can_be_made_anew(federation: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    run = federation.runs[1]
    assert program("card", run.path, "--kind", "last", "--format", "markdown") == 0
    assert "## Known limits" in capsys.readouterr().out
    before = check_manifest(run.model_path("last")).manifest
    assert program("card", run.path, "--kind", "last", "--rewrite", "--format", "json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["weights"] == before.files["model.safetensors"]
    assert shown["cost"]["hours"] is not None
    after = check_manifest(run.model_path("last"), authority=Path(federation.authority)).manifest
    assert after.files[CARD_FILE] != before.files[CARD_FILE]
    version = Registry.open(str(run.path)).resolve(str(run.model_path("last")))
    assert program("verify", version.address, "--tracking-uri", federation.store, "--authority", federation.authority) == 0


def test_a_champion_is_replaced_only_if_no_hospital_loses(federation: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    """The second model was trained for longer, and is the better one at both hospitals."""
    registry, store = Registry(federation.store), ("--tracking-uri", federation.store)
    worse, better = (registry.resolve(str(run.model_path("best"))) for run in federation.runs)

    def champion() -> str:
        return Registry(federation.store).holder("gmmas", "champion").version

    assert program("promote", better.address, "champion", *store) == 0
    assert champion() == better.version
    assert program("promote", worse.address, "champion", *store) == 1
    assert "no validation has measured both" in capsys.readouterr().err
    matrix = federation.validate(better.address, worse.address, name="validation")
    assert [row.model.run for row in matrix.rows] == [federation.runs[1].run, federation.runs[0].run]
    assert all(own.paired["dice_wt"].value < 0 for own in matrix.rows[1].sites.values())
    strict = ("--dice", "0", "--auc", "0")
    assert program("promote", worse.address, "champion", *store, *strict, "--dry-run") == 1
    assert program("promote", worse.address, "champion", *store, *strict) == 1
    assert "checks failed" in capsys.readouterr().err
    assert champion() == better.version

    assert program("promote", worse.address, "champion", *store, *strict, "--override", "for the test alone") == 0
    assert champion() == worse.version
    tags = registry.resolve(worse.address).tags
    assert tags["override/champion"].endswith(": for the test alone")
    assert matrix.validation in tags["promoted/champion"]
    event = read_events(federation.runs[0].events_path)[-1]
    assert event.kind is EventKind.MODEL_PROMOTED
    assert event.detail["override"] == "for the test alone"
    assert event.detail["failed"]
    # Back again, by the rules: six patients say little of an AUC or a calibration error, so their margins are left wide.
    assert program("promote", better.address, "champion", *store, "--auc", "1", "--ece", "1") == 0
    assert champion() == better.version
    assert "override/champion" not in registry.resolve(better.address).tags


def test_models_are_listed_and_compared(federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program("list", federation.runs[0].path) == 0
    shown = capsys.readouterr().out
    assert "gmmas/1" in shown
    registry = Registry(federation.store)
    versions = tuple(registry.resolve(str(run.model_path("best"))) for run in federation.runs)
    picture = tmp_path / "compare.png"
    assert program("compare", *(v.address for v in versions), "--tracking-uri", federation.store, "--picture", picture) == 0
    shown = capsys.readouterr().out
    assert "Dice WT, test patients" in shown
    assert "compare-runs" in shown
    assert picture.stat().st_size > 5_000
    (_, address) = comparison_links(registry, versions)
    assert all(own.run in address for own in versions)
    own = find_comparison(registry, versions, evidence=None)
    assert len(own.matrix.rows) == 2
    assert len(matrix_tables(own.matrix)) >= 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["promote", "models:/gmmas/1", "best"], "set by runs themselves"),
        (["promote", "models:/gmmas/99", "champion"], "the registry has no such model"),
        (["promote", "models:/gmmas@nobody", "champion"], "the registry has no such model"),
        (["compare", "models:/gmmas/1", "models:/other/1"], "the registry has no such model"),
        (["list", "nothing"], "the registry has no such model"),
        (["card", "nowhere"], "no card"),
        (["promote", "models:/gmmas/1", "champion", "--evidence", "nowhere"], "this is no validation"),
    ],
)
def test_faults_are_one_message(federation: Federation, capsys, monkeypatch, tmp_path, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert program(*arguments, "--tracking-uri", federation.store) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert message in told
    assert "Traceback" not in told


def test_a_forged_artifact_is_not_promoted(federation: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody who can write to the artifact store puts other weights in the place of a version's."""
    registry = Registry(federation.store)
    version = registry.resolve(str(federation.runs[1].model_path("last")))
    copies = federation.path.rglob(f"{version.run}/**/model.safetensors")
    (place,) = {file.parent for file in copies if f"round-{version.round:04d}" in str(file)}
    kept = (place / "model.json").read_bytes()
    try:
        (place / "model.json").write_bytes(kept + b" ")
        assert program("promote", version.address, "elsewhere", "--tracking-uri", federation.store) == 1
        assert "signature" in capsys.readouterr().err
    finally:
        (place / "model.json").write_bytes(kept)
    with pytest.raises(ModelError):
        registry.resolve("models:/gmmas/0")
