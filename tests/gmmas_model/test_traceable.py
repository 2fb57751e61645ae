import pytest
import torch
from torch import Tensor

from gmmas_model.calibration import calibrate_prediction
from gmmas_model.network import GmmasNetwork
from gmmas_model.prediction import Prediction
from gmmas_model.traceable import TraceableNetwork, output_names
from gmmas_schema.model import NetworkConfig
from gmmas_schema.vocabulary import MODALITIES, TASKS, Modality, Region, Task

EVERY_SUBSET = torch.tensor([[bool(code >> place & 1) for place in range(4)] for code in range(1, 16)])


def flat(prediction: Prediction) -> tuple[Tensor, ...]:
    return (prediction.region_probability(), *prediction.marker_probabilities().values(), prediction.subtype_probability())


def images(count: int) -> Tensor:
    return torch.randn(count, 4, 8, 12, 8, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def lively(network: GmmasNetwork) -> GmmasNetwork:
    """Random tensors everywhere, so that nothing that starts at zero can hide."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def test_every_subset_gives_the_networks_own_answer(lively) -> None:
    image_BMXYZ = images(15)
    with torch.inference_mode():
        expected, found = flat(lively(image_BMXYZ, EVERY_SUBSET)), TraceableNetwork(lively)(image_BMXYZ, EVERY_SUBSET)
    assert len(found) == len(output_names(lively.config)) == 4
    for want, got in zip(expected, found, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_what_stands_in_an_absent_modality_changes_no_bit(lively) -> None:
    traceable, image_BMXYZ = TraceableNetwork(lively), images(15)
    spoilt_BMXYZ = image_BMXYZ.clone()
    spoilt_BMXYZ[~EVERY_SUBSET] = float("nan")
    for want, got in zip(traceable(image_BMXYZ, EVERY_SUBSET), traceable(spoilt_BMXYZ, EVERY_SUBSET), strict=True):
        assert torch.equal(want, got)


def test_temperatures_are_built_in(lively) -> None:
    temperatures = {Region.TC: 2.5, Task.IDH: 0.5}
    image_BMXYZ, present_BM = images(2), EVERY_SUBSET[[14, 4]]
    with torch.inference_mode():
        expected = flat(calibrate_prediction(lively(image_BMXYZ, present_BM), temperatures))
        found = TraceableNetwork(lively, temperatures=temperatures)(image_BMXYZ, present_BM)
        plain = TraceableNetwork(lively)(image_BMXYZ, present_BM)
    for want, got in zip(expected, found, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    assert (found[0] - plain[0]).abs().max() > 1e-3


def test_optional_heads_and_missing_encoders() -> None:
    config = NetworkConfig(channels=(4, 8), blocks=(1, 1), transformer_heads=2, tasks=TASKS)
    network = GmmasNetwork(config, modalities=[Modality.T2, Modality.FLAIR]).eval()
    present_BM = torch.tensor([[m in (Modality.T1, Modality.FLAIR) for m in MODALITIES]])
    with torch.inference_mode():
        expected, found = flat(network(images(1), present_BM)), TraceableNetwork(network)(images(1), present_BM)
    assert output_names(config) == ("regions", "idh", "codeletion", "grade", "mgmt", "subtype")
    for want, got in zip(expected, found, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_the_network_that_was_copied_stays_as_it_is(lively) -> None:
    before = {name: value.clone() for name, value in lively.state_dict().items()}
    traceable = TraceableNetwork(lively.train())
    traceable(images(1), EVERY_SUBSET[:1])
    assert lively.training
    assert all(parameter.requires_grad for parameter in lively.parameters())
    assert all(torch.equal(before[name], value) for name, value in lively.state_dict().items())
