import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from gmmas_model.inference import predict_probabilities
from gmmas_model.weights import Weights, make_network
from gmmas_schema.calibration import Calibration, HeadCalibration
from gmmas_schema.errors import ModelError
from gmmas_schema.trained_parts import TrainedParts
from gmmas_schema.vocabulary import MODALITIES, REGIONS, Modality, Region, Task
from gmmas_workflows.evaluation import subsets
from gmmas_workflows.export.onnx_graph import TOLERANCE, OnnxRecord, compare, write_onnx
from tests.gmmas_workflows.predictions import without_encoders

pytestmark = pytest.mark.slow  # PyTorch takes half a minute to trace; test_traceable.py holds what it traces against the network

TEMPERATURES = {Region.TC: 2.0, Task.IDH: 3.0}


@pytest.fixture(scope="module", params=[(Modality.T1CE, Modality.FLAIR), MODALITIES], ids="+".join)
def readable(request: pytest.FixtureRequest) -> tuple[Modality, ...]:
    """Sequences that the model has an encoder for."""
    return request.param


@pytest.fixture(scope="module")
def weights(weights: Weights, readable: tuple[Modality, ...]) -> Weights:
    return without_encoders(weights, *(modality for modality in MODALITIES if modality not in readable))


@pytest.fixture(scope="module")
def calibrated(weights) -> Weights:
    heads = {head: HeadCalibration(temperature=value, fitted=True) for head, value in TEMPERATURES.items()}
    return replace(weights, calibration=Calibration(weights_sha256=weights.sha256, heads=heads))


@pytest.fixture(scope="module")
def exported(calibrated, tmp_path_factory) -> tuple[Path, OnnxRecord]:
    folder = tmp_path_factory.mktemp("onnx")
    return folder, write_onnx(folder, calibrated)


@pytest.fixture(scope="module")
def session(exported) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(exported[0] / "model.onnx", options, providers=["CPUExecutionProvider"])


def test_onnx_runtime_answers_as_the_network_for_every_subset(session, calibrated, readable) -> None:
    network = make_network(calibrated, modalities=readable)
    shown = subsets(readable)
    present = np.array([[m in subset for m in MODALITIES] for subset in shown])
    image = np.random.default_rng(5).normal(0, 1.5, (len(shown), 4, 24, 20, 26)).astype(np.float32)
    spoilt = np.where(present[:, :, None, None, None], image, np.float32("nan"))
    found = dict(zip([o.name for o in session.get_outputs()], session.run(None, {"image": spoilt, "present": present}), strict=True))
    prediction = predict_probabilities(network, torch.from_numpy(image), torch.from_numpy(present))
    logits = prediction.region_logits_BRXYZ.clone()
    logits[:, 1] /= TEMPERATURES[Region.TC]
    np.testing.assert_allclose(found["regions"], logits.sigmoid().cumprod(1), atol=1e-4)
    idh = (prediction.idh_logit_B / TEMPERATURES[Task.IDH]).sigmoid()
    np.testing.assert_allclose(found["idh"], idh, atol=1e-5)
    np.testing.assert_allclose(found["codeletion"], idh * prediction.codeletion_logit_B.sigmoid(), atol=1e-5)
    np.testing.assert_allclose(found["subtype"].sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(found["subtype"][:, 2], found["codeletion"], atol=1e-6)
    assert (np.diff(found["regions"], axis=1) <= 1e-6).all()
    assert np.ptp(found["idh"]) > 1e-3


def test_the_file_says_what_it_is_and_not_where_it_was_made(exported, calibrated, readable) -> None:
    folder, record = exported
    model = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["gmmas.weights_sha256"] == calibrated.sha256
    assert json.loads(said["gmmas.modalities"]) == list(MODALITIES)
    assert json.loads(said["gmmas.readable"]) == list(readable)
    assert json.loads(said["gmmas.temperatures"]) == {"tc": 2.0, "idh": 3.0}
    assert str(Path(__file__).parents[3]).encode() not in (folder / "model.onnx").read_bytes()
    assert OnnxRecord.model_validate_json((folder / "onnx.json").read_bytes()) == record
    assert record.check.subsets == 2 ** len(readable) - 1
    assert 0 < record.check.largest <= record.check.tolerance == TOLERANCE
    assert (1, 24, 24, 24) in record.check.shapes


def test_a_sequence_that_nobody_trained_is_not_read(weights, tmp_path) -> None:
    trained = TrainedParts(modalities=(Modality.FLAIR,), heads=(*REGIONS, Task.CODELETION))
    record = write_onnx(tmp_path, replace(weights, trained=trained))
    assert (record.readable, record.untrained) == ((Modality.FLAIR,), ("idh", "codeletion", "subtype"))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    image, present = np.random.default_rng(5).normal(size=(1, 4, 24, 24, 24)).astype(np.float32), np.ones((1, 4), bool)
    other = image.copy()
    other[:, :3] = 7
    for first, second in zip(*(session.run(None, {"image": each, "present": present}) for each in (image, other)), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("spoil", ["a weight", "a temperature"])
def test_another_answer_than_pytorchs_fails(spoil, exported, calibrated, readable) -> None:
    network, temperatures = make_network(calibrated, modalities=readable), dict(calibrated.temperatures)
    if spoil == "a weight":
        with torch.no_grad():
            network.heads[Task.IDH].logit.bias.add_(0.05)
    else:
        temperatures[Region.TC] *= 1.05
    content = (exported[0] / "model.onnx").read_bytes()
    with pytest.raises(ModelError, match="does not answer as PyTorch"):
        compare(content, network, window=(24, 24, 24), temperatures=temperatures)


def test_a_failed_check_writes_nothing(exported, weights, tmp_path, monkeypatch) -> None:
    # As if the exporter had lost the temperatures.
    calibrated_graph = onnx.load(exported[0] / "model.onnx")
    monkeypatch.setattr("gmmas_workflows.export.onnx_graph.trace_network", lambda *_, **__: calibrated_graph)
    with pytest.raises(ModelError, match="does not answer as PyTorch"):
        write_onnx(tmp_path, weights)
    assert list(tmp_path.iterdir()) == []
