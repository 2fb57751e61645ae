"""Building blocks: instance normalisation, the residual block, one modality's encoder and the bottleneck transformer.

    block(x) = lrelu(IN(conv3(lrelu(IN(conv3(x))))) + skip(x))

He et al., CVPR 2016 (residual block); Ulyanov et al., 2016 (instance normalisation: no running statistics, so nothing about a
site's intensities is averaged or sent); Vaswani et al., NeurIPS 2017; Chu et al., ICLR 2023 (positions from a depthwise
convolution, so any grid size works).

Shape suffixes: B batch, C channel, XYZ voxels, N tokens (N = X * Y * Z), H heads, D channels per head.
"""

from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

_SLOPE = 0.01


class Conv3(nn.Conv3d):
    """A 3x3x3 convolution without bias that keeps its speed for a single small sample.

    Torch gives a batch of one in fp32 with at most 20480 values in its first three axes to a fallback several times slower than
    oneDNN (`use_mkldnn` in ATen's Convolution.cpp), so such a sample goes in twice.
    """

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1) -> None:
        super().__init__(channels_in, channels_out, 3, stride, 1, bias=False)

    def forward(self, x_BCXYZ: Tensor) -> Tensor:
        """Return the convolution."""
        small = len(x_BCXYZ) == 1 and x_BCXYZ[0, ..., 0].numel() <= 20480
        if small and x_BCXYZ.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            return super().forward(x_BCXYZ.expand(2, -1, -1, -1, -1))[:1]
        return super().forward(x_BCXYZ)


class InstanceNorm(nn.Module):
    """Zero mean and unit variance per sample and channel, then a learned scale and shift.

    Batch normalisation of one sample at a time is the same function, and its kernel reads channels-last memory, takes bf16
    values with fp32 parameters and keeps its sums in fp32; `F.instance_norm` copies to channels-first and back instead.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x_BCXYZ: Tensor) -> Tensor:
        """Return the normalised features, in the shape and dtype of the input."""
        return torch.cat([F.batch_norm(x, None, None, self.weight, self.bias, training=True) for x in x_BCXYZ.chunk(len(x_BCXYZ))])


class ResidualBlock(nn.Module):
    """Two 3x3x3 convolutions beside a skip; `stride` 2 halves the resolution in the first of them."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = Conv3(channels_in, channels_out, stride=stride)
        self.norm1 = InstanceNorm(channels_out)
        self.conv2 = Conv3(channels_out, channels_out)
        self.norm2 = InstanceNorm(channels_out)
        same = stride == 1 and channels_in == channels_out
        self.skip = nn.Identity() if same else nn.Conv3d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x_BCXYZ: Tensor) -> Tensor:
        """Return features of `channels_out` channels at the block's resolution."""
        y_BCXYZ = F.leaky_relu_(self.norm1(self.conv1(x_BCXYZ)), _SLOPE)
        y_BCXYZ = self.norm2(self.conv2(y_BCXYZ))
        return F.leaky_relu_(y_BCXYZ + self.skip(x_BCXYZ), _SLOPE)


class Encoder(nn.Module):
    """Encoder of one modality: one stage of residual blocks per level, each level at half the resolution of the one before."""

    def __init__(self, channels: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        super().__init__()
        stages = []
        for level, (width, count) in enumerate(zip(channels, blocks, strict=True)):
            first = ResidualBlock(channels[level - 1] if level else 1, width, stride=2 if level else 1)
            stages.append(nn.Sequential(first, *(ResidualBlock(width, width) for _ in range(count - 1))))
        self.stages = nn.ModuleList(stages)

    def forward(self, image_B1XYZ: Tensor) -> list[Tensor]:
        """Return the features of every level, finest first."""
        features, x_BCXYZ = [], image_B1XYZ
        for stage in self.stages:
            x_BCXYZ = stage(x_BCXYZ)
            features.append(x_BCXYZ)
        return features


class TransformerLayer(nn.Module):
    """Pre-norm self-attention and a two-layer perceptron, each beside a skip."""

    def __init__(self, channels: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(channels)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.attention_out = nn.Linear(channels, channels)
        self.perceptron_norm = nn.LayerNorm(channels)
        self.perceptron = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(self, x_BNC: Tensor) -> Tensor:
        """Return tokens of the same shape."""
        qkv_BNC = self.query_key_value(self.attention_norm(x_BNC))
        q_BHND, k_BHND, v_BHND = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in qkv_BNC.chunk(3, dim=2))
        attended_BHND = F.scaled_dot_product_attention(q_BHND, k_BHND, v_BHND)
        x_BNC = x_BNC + self.attention_out(attended_BHND.transpose(1, 2).flatten(2))
        return cast(Tensor, x_BNC + self.perceptron(self.perceptron_norm(x_BNC)))


class Bottleneck(nn.Module):
    """Transformer over the fused features of the coarsest level."""

    def __init__(self, channels: int, *, layers: int, heads: int) -> None:
        super().__init__()
        self.position = nn.Conv3d(channels, channels, 3, padding=1, groups=channels)
        self.layers = nn.ModuleList(TransformerLayer(channels, heads=heads) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)

    def forward(self, x_BCXYZ: Tensor) -> Tensor:
        """Return features of the same shape."""
        shape = x_BCXYZ.shape
        tokens_BNC = (x_BCXYZ + self.position(x_BCXYZ)).flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens_BNC = layer(tokens_BNC)
        out_BCXYZ: Tensor = self.norm(tokens_BNC).transpose(1, 2).reshape(shape)
        return out_BCXYZ.contiguous(memory_format=torch.channels_last_3d)
