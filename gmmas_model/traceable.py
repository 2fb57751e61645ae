"""The network as one fixed graph of tensor operations, for exporters: every encoder runs, and what is absent is masked.

    image -> where(present, image, 0) -> encoder -> where(present, features, 0) -> fusion, bottleneck, decoder, heads -> probabilities

GmmasNetwork runs an encoder on the samples that have its modality, and normalises sample by sample; a tracer would freeze both choices as
they fell for its example. Everything behind the encoders is GmmasNetwork's own code. What stands in an absent modality, NaN included,
reaches nothing, as in GmmasNetwork; a sample without any modality, which GmmasNetwork refuses, gives NaN here.

Shape suffixes: B batch, M modality (order of MODALITIES), XYZ voxels.
"""

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from gmmas_model.blocks import Conv3, InstanceNorm
from gmmas_model.calibration import calibrate_prediction
from gmmas_model.network import GmmasNetwork
from gmmas_schema.calibration import Temperatures
from gmmas_schema.model import NetworkConfig
from gmmas_schema.vocabulary import MARKERS, MODALITIES, Modality

NO_TEMPERATURES: Temperatures = {}


class TraceableNetwork(nn.Module):
    """From image and present modalities to probabilities, in evaluation mode, without gradients.

    Args:
        network: whose tensors are copied; it is left as it is.
        temperatures: of calibrated heads; 1 for those that are not named.
    """

    def __init__(self, network: GmmasNetwork, *, temperatures: Temperatures = NO_TEMPERATURES) -> None:
        super().__init__()
        self.network = _MaskedNetwork(network.config, modalities=network.modalities)
        self.network.load_state_dict(network.state_dict())
        self.temperatures = dict(temperatures)
        _use_plain_blocks(self.network)
        for parameter in self.network.parameters():
            parameter.data = parameter.data.contiguous()
        self.requires_grad_(False).eval()

    def forward(self, image_BMXYZ: Tensor, present_BM: Tensor) -> tuple[Tensor, ...]:
        """Return the probabilities in the order of output_names: region_BRXYZ, one probability_B per marker, subtype_BS.

        Args:
            image_BMXYZ: normalised intensities in the order of MODALITIES, float32.
            present_BM: bool.
        """
        prediction = calibrate_prediction(self.network(image_BMXYZ, present_BM), self.temperatures)
        return (prediction.region_probability(), *prediction.marker_probabilities().values(), prediction.subtype_probability())


def output_names(config: NetworkConfig) -> tuple[str, ...]:
    """Return the names of TraceableNetwork's outputs."""
    return ("regions", *(str(task) for task in MARKERS if task in config.tasks), "subtype")


class _MaskedNetwork(GmmasNetwork):
    """GmmasNetwork whose encoders all run on the whole batch."""

    def encode(self, image_BMXYZ: Tensor, present_BM: Tensor) -> dict[Modality, list[Tensor]]:
        """Return the features of every modality, zeros for the samples that lack it; shapes are not checked."""
        features: dict[Modality, list[Tensor]] = {}
        for modality in self.modalities:
            column = MODALITIES.index(modality)
            absent_B1111 = ~present_BM[:, column, None, None, None, None]
            levels = self.encoders[modality](image_BMXYZ[:, column : column + 1].masked_fill(absent_B1111, 0.0))
            features[modality] = [x_BCXYZ.masked_fill(absent_B1111, 0.0) for x_BCXYZ in levels]
        return features


class _PlainInstanceNorm(nn.Module):
    """InstanceNorm as one operation on the batch, whatever its size."""

    def __init__(self, norm: InstanceNorm) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x_BCXYZ: Tensor) -> Tensor:
        return F.instance_norm(x_BCXYZ, weight=self.weight, bias=self.bias)


def _plain_convolution(convolution: Conv3) -> nn.Conv3d:
    """Return Conv3 without its detour for single small samples."""
    stride = (convolution.stride[0], convolution.stride[1], convolution.stride[2])
    plain = nn.Conv3d(convolution.in_channels, convolution.out_channels, 3, stride, 1, bias=False)
    plain.weight = convolution.weight
    return plain


def _use_plain_blocks(module: nn.Module) -> None:
    """Replace, below a module, what chooses its way by the size of the batch."""
    for name, child in module.named_children():
        if isinstance(child, InstanceNorm):
            setattr(module, name, _PlainInstanceNorm(child))
        elif isinstance(child, Conv3):
            setattr(module, name, _plain_convolution(child))
        else:
            _use_plain_blocks(child)
