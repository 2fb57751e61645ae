import json
from pathlib import Path

import nibabel as nib
import pytest
import torch

from gmmas_cli.main import run_program
from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import save_weights
from gmmas_schema.model import GridConfig, ModelDefinition, NetworkConfig
from gmmas_schema.vocabulary import Modality, Task

CASE = Path(__file__).parents[1] / "data" / "BraTS2021_00006"


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a tiny network under which every region appears."""
    network_config = NetworkConfig(channels=(4, 8), blocks=(1, 1), transformer_heads=2)
    definition = ModelDefinition(network=network_config, grid=GridConfig(spacing_mm=8.0, shape=(24, 24, 24)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        network = GmmasNetwork(definition.network)
    with torch.no_grad():
        network.heads[Task.SEGMENTATION].bias.fill_(1.5)
    folder = tmp_path_factory.mktemp("weights")
    save_weights(folder, {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}, definition)
    return folder


def test_predict_writes_a_folder_and_tells_what_it_found(weights_folder, tmp_path, capsys) -> None:
    out = tmp_path / "deep" / "out"
    arguments = ["predict", str(CASE), "--model", str(weights_folder), "--out", str(out), "--modalities", "flair, T2", "--threads", "1"]
    assert run_program(arguments) == 0
    shown = capsys.readouterr().out
    for words in ("whole tumour (WT)", "P(IDH mutant)", "t2, flair", "t1, t1ce", "Research use only", str(out)):
        assert words in shown
    findings = json.loads((out / "findings.json").read_text())
    assert findings["modalities_used"] == [Modality.T2, Modality.FLAIR]
    assert nib.load(out / "segmentation.nii.gz").shape == nib.load(CASE / "BraTS2021_00006_t1.nii.gz").shape

    before = (out / "findings.json").read_bytes()
    assert run_program(arguments) == 1
    assert "--force" in capsys.readouterr().err
    assert (out / "findings.json").read_bytes() == before
    assert run_program([*arguments, "--force", "--flip", "lr", "--uncertainty", "--overlap", "0.25"]) == 0
    shown = capsys.readouterr().out
    assert "mean spread in WT" in shown
    assert " ± " in shown
    findings = json.loads((out / "findings.json").read_text())
    assert findings["inference"] == {"flip": "lr", "overlap": 0.25, "passes": 8, "dropout": 0.2, "seed": 0}
    assert (out / "uncertainty.nii.gz").is_file()


@pytest.mark.parametrize(
    ("case", "options", "code", "message"),
    [
        ("nowhere", [], 1, "the data folder cannot be read"),
        (".", ["--modalities", "pet"], 2, "pet is none of t1, t1ce, t2, flair"),
        (".", ["--model", "nowhere"], 1, "weights cannot be read"),
        (".", ["--flip", "up"], 2, "'up' is not one of"),
        (".", ["--overlap", "1"], 2, "1.0 is not in the range"),
        (".", ["--model", "models:/gmmas@best"], 1, "no MLflow store"),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(case, options, code, message, weights_folder, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    out = tmp_path / "out"
    arguments = ["predict", str(CASE / case), "--model", str(weights_folder), "--out", str(out), *options]
    assert run_program(arguments) == code
    shown = " ".join(capsys.readouterr().err.split())
    assert message in shown
    assert "Traceback" not in shown
    assert list(tmp_path.iterdir()) == []
