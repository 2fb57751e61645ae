from pathlib import Path

import pytest

from gmmas_cli.main import run_program
from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import load_weights, save_calibration, save_weights
from gmmas_schema.calibration import Calibration, HeadCalibration
from gmmas_schema.errors import ModelError
from gmmas_schema.model import GridConfig, ModelDefinition, NetworkConfig
from gmmas_schema.vocabulary import Task
from gmmas_workflows.export import extra
from gmmas_workflows.export.onnx_graph import OnnxCheck, OnnxRecord


@pytest.fixture
def model(tmp_path: Path) -> Path:
    network_config = NetworkConfig(channels=(4, 8), blocks=(1, 1), transformer_heads=2)
    definition = ModelDefinition(network=network_config, grid=GridConfig(spacing_mm=8.0, shape=(24, 24, 24)))
    folder = tmp_path / "model"
    network = GmmasNetwork(network_config)
    save_weights(folder, {name: value.detach().numpy().copy() for name, value in network.state_dict().items()}, definition)
    return folder


def export(model: Path, out: Path, form: str, *options: str) -> int:
    return run_program(["export", str(model), str(out), "--format", form, "--threads", "1", *options])


def test_weights_come_out_as_they_are_with_their_calibration(model, tmp_path, capsys) -> None:
    weights = load_weights(model)
    out = tmp_path / "deep" / "out"
    assert export(model, out, "weights") == 0
    assert "not calibrated" in capsys.readouterr().out
    save_calibration(model, Calibration(weights_sha256=weights.sha256, heads={Task.IDH: HeadCalibration(temperature=2.0)}))
    assert export(model, out, "weights") == 1
    assert "--force" in capsys.readouterr().err
    assert export(model, out, "weights", "--force") == 0
    assert "not calibrated" not in capsys.readouterr().out
    again = load_weights(out)
    assert (again.sha256, again.definition, again.temperatures) == (weights.sha256, weights.definition, {Task.IDH: 2.0})


def test_a_bundle_takes_its_folders_name(model, tmp_path, capsys) -> None:
    assert export(model, tmp_path / "glioma_small", "bundle") == 0
    assert "metadata verified by MONAI" in capsys.readouterr().out
    assert (tmp_path / "glioma_small" / "docs" / "README.md").read_text().startswith("# glioma_small\n")
    assert load_weights(tmp_path / "glioma_small" / "models").sha256 == load_weights(model).sha256


def test_onnx_tells_what_the_check_found(model, tmp_path, capsys, monkeypatch) -> None:
    def write(folder: Path, weights: object, *, on_progress) -> OnnxRecord:
        on_progress(1, 1)
        (folder / "onnx.json").touch()
        check = OnnxCheck(tolerance=0.002, largest=0.0001, subsets=15, shapes=(), versions={})
        return OnnxRecord.model_construct(check=check)

    monkeypatch.setattr("gmmas_workflows.export.onnx_graph.write_onnx", write)
    assert export(model, tmp_path / "out", "onnx") == 0
    assert "15 subsets of sequences, logits within 0.0001" in capsys.readouterr().out
    assert (tmp_path / "out" / "onnx.json").exists()


def test_a_failed_check_leaves_nothing(model, tmp_path, capsys, monkeypatch) -> None:
    def fail(folder: Path, *_: object, **__: object) -> None:
        (folder / "half").touch()
        raise ModelError("ONNX Runtime does not answer as PyTorch does", got="logits that differ by 0.1")

    monkeypatch.setattr("gmmas_workflows.export.onnx_graph.write_onnx", fail)
    assert export(model, tmp_path / "out", "onnx") == 1
    assert "does not answer as PyTorch" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("form", ["onnx", "bundle"])
def test_a_missing_extra_is_named_before_any_work(form, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(extra, "find_spec", lambda _: None)
    assert export(tmp_path / "nowhere", tmp_path / "out", form) == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert "packages that are not installed" in shown
    assert "pip install 'gmmas-fed[export]'" in shown
    assert list(tmp_path.iterdir()) == []


def test_other_results_are_not_replaced(model, tmp_path, capsys) -> None:
    assert export(model, model, "onnx", "--force") == 1
    assert "something that is not an ONNX export" in capsys.readouterr().err
    assert load_weights(model)


def test_an_export_says_what_was_never_trained_and_keeps_the_record_of_it(half_trained, tmp_path, capsys) -> None:
    assert export(half_trained, tmp_path / "out", "weights") == 0
    shown = capsys.readouterr().out
    assert "never trained on t1ce, and does not read it" in shown
    assert "never trained on ET, 1p/19q" in shown
    assert load_weights(tmp_path / "out").trained == load_weights(half_trained).trained
    assert (tmp_path / "out" / "model.json").read_bytes() == (half_trained / "model.json").read_bytes()
