import pytest
import torch

from gmmas_model.blocks import Bottleneck, Encoder
from gmmas_model.determinism import deterministic


def test_a_cpu_needs_no_switch() -> None:
    with deterministic(torch.device("cpu")):
        assert not torch.are_deterministic_algorithms_enabled()


def use_and_fail() -> None:
    # The switches are global and need no GPU.
    with deterministic(torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        raise KeyError


def test_switches_are_put_back_after_an_error() -> None:
    before = torch.backends.cudnn.benchmark
    with pytest.raises(KeyError):
        use_and_fail()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark is before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gradients_on_a_gpu_are_the_same_twice() -> None:
    def gradients() -> list[torch.Tensor]:
        torch.manual_seed(0)
        network = torch.nn.ModuleList([Encoder((8, 16), (1, 1)), Bottleneck(16, layers=1, heads=4)]).cuda()
        image_B1XYZ = torch.randn(2, 1, 32, 32, 32, device="cuda")
        encoder, bottleneck = network
        bottleneck(encoder(image_B1XYZ)[-1]).square().mean().backward()
        return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]

    with deterministic(torch.device("cuda")):
        assert all(torch.equal(one, other) for one, other in zip(gradients(), gradients(), strict=True))
