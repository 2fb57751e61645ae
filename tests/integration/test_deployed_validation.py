"""Cross-site validation over real processes and TLS: a federated model and the untrained start, measured at two hospitals."""

import json
import shutil

import pytest

from gmmas_cli.demo_deployment import DemoFolder, prepare_deployment, running_deployment
from gmmas_cli.main import run_program
from gmmas_data.phantom import make_cohorts
from gmmas_runtime.manifest import Standing, check_manifest
from gmmas_schema.events import EventKind
from gmmas_schema.federation import FederationConfig
from gmmas_schema.phantom import PhantomSpec
from gmmas_schema.validation import ValidationMatrix
from server.checkpoint import RunFolder
from server.deployment import prepare_run, submit_run
from server.following import follow_run

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

SPEC = PhantomSpec.model_validate(
    {
        "seed": 3,
        "spacing_mm": 4.0,
        "sites": [
            {"name": "north", "cases": 8, "scanner": "research-3t"},
            {"name": "east", "cases": 8, "scanner": "clinical-3t", "modalities": ["t2", "flair"], "layout": "brats2023"},
        ],
    }
)
CONFIG = FederationConfig.model_validate(
    {
        "name": "integration",
        "rounds": 2,
        "model": {
            "network": {"channels": [4, 8], "blocks": [1, 1], "transformer_heads": 2},
            "grid": {"spacing_mm": 8.0, "shape": [24, 24, 24]},
        },
        "training": {"local_steps": 2},
        "measure_subsets": True,
        "quorum": {"sites": 2, "replies": 2, "join_deadline_s": 120, "round_deadline_s": 60},
    }
)


def test_models_are_measured_at_every_hospital_and_a_signed_card_names_none(tmp_path_factory: pytest.TempPathFactory, capsys) -> None:
    folder = DemoFolder(tmp_path_factory.mktemp("validation"))
    make_cohorts(SPEC, folder.cohorts, processes=2)
    prepare_deployment(folder, SPEC)
    store = f"sqlite:///{folder.path / 'mlflow.db'}"
    config = CONFIG.model_copy(update={"tracking": CONFIG.tracking.model_copy(update={"uri": store})})
    prepare_run(folder.run, config)
    with running_deployment(folder, SPEC, on_wait=lambda _text: None):
        submit_run(folder.coordinator, folder.run)
        assert follow_run(folder.run, on_event=lambda _event: None).kind is EventKind.RUN_FINISHED
        untrained = folder.path / "untrained"
        start = RunFolder.open(folder.run).round_path(0)
        untrained.mkdir()
        for name in ("model.safetensors", "model.json"):
            shutil.copyfile(start / name, untrained / name)
        out = folder.path / "validation"
        arguments = ["validate", "--models", f"start={untrained}", "models:/gmmas@best", "--out", str(out), "--sites", "2"]
        assert run_program([*arguments, "--server", str(folder.coordinator), "--tracking-uri", store]) == 0
    shown = capsys.readouterr().out
    assert "Dice WT, test patients" in shown
    matrix = ValidationMatrix.from_yaml(out / "matrix.json")
    assert matrix.sites == ("east", "north")
    assert [row.model.label for row in matrix.rows] == ["start", "gmmas@best"]
    assert all(own.paired for own in matrix.rows[1].sites.values())
    assert (out / "matrix.png").is_file()

    authority = folder.coordinator / "authority" / "authority.pem"
    best = folder.run / "models" / "best"
    assert check_manifest(best, authority=authority).standing is Standing.VOUCHED
    card = json.loads((best / "model-card.json").read_text())
    assert set(card["data"]["by_site"]) == {"site-1", "site-2"}
    assert len(card["test"]["subsets"]) == 15
    assert "north" not in (best / "model-card.md").read_text()
    assert run_program(["model", "verify", str(folder.run), "--authority", str(authority)]) == 0
