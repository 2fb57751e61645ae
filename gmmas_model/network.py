"""The GMMAS network: one encoder per modality, masked fusion, nested regions and factorised molecular heads.

    image -> encoders -> fusion per level -> bottleneck -> decoder -> regions
                              '----------------'---- pooled over the predicted tumour -> IDH, 1p/19q, and grade and MGMT where asked for

After GMMAS (arXiv 2501.17758), with a whole encoder per modality so that any subset of the four sequences will do. Tensor names
follow gmmas_schema.groups; the only buffers are the adapter's anchors.

Shape suffixes: B batch, M modality (order of MODALITIES), R region, C channel, F pooled feature, XYZ voxels.
"""

from collections.abc import Collection, Sequence
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from gmmas_model.adapter import AnchorAdapter, Anchors
from gmmas_model.blocks import Bottleneck, Encoder, ResidualBlock
from gmmas_model.fusion import GateBias, MaskedFusion
from gmmas_model.pooling import PooledSums, pool_sums
from gmmas_model.prediction import Prediction
from gmmas_schema.errors import ModelError
from gmmas_schema.federation import CHANCE_LOG_LOSS
from gmmas_schema.model import NetworkConfig
from gmmas_schema.vocabulary import MARKERS, MODALITIES, REGIONS, Modality, Task

_PRIOR_LOGIT = (-3.0, 0.0, 0.0)
"""Start of the region logits: a tumour fills a few per cent of the box, and the first steps need not learn that."""

_HIDDEN = 32


class Decoder(nn.Module):
    """From the bottleneck to full resolution: project, double, add the fused features of that level, one residual block."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        pairs = list(zip(channels[1:], channels[:-1], strict=True))
        self.projections = nn.ModuleList(nn.Conv3d(coarse, fine, 1, bias=False) for coarse, fine in pairs)
        self.blocks = nn.ModuleList(ResidualBlock(fine, fine) for _, fine in pairs)

    def forward(self, levels_BCXYZ: Sequence[Tensor]) -> Tensor:
        """Return features at full resolution from the fused levels, finest first, the last one behind the bottleneck."""
        x_BCXYZ = levels_BCXYZ[-1]
        for level in reversed(range(len(self.blocks))):
            x_BCXYZ = F.interpolate(self.projections[level](x_BCXYZ), scale_factor=2)
            x_BCXYZ = self.blocks[level](x_BCXYZ + levels_BCXYZ[level])
        return x_BCXYZ


class MolecularHead(nn.Module):
    """Two-layer perceptron from the pooled features to one logit."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, _HIDDEN)
        self.logit = nn.Linear(_HIDDEN, 1)

    def forward(self, pooled_BF: Tensor) -> Tensor:
        """Return logit_B."""
        return cast(Tensor, self.logit(F.leaky_relu(self.hidden(pooled_BF))).squeeze(1))


class GmmasNetwork(nn.Module):
    """The network with encoders for `modalities` only; a site that lacks a sequence has no tensor of it.

    Args:
        config: sizes.
        modalities: sequences this instance can read.

    Raises:
        ModelError: no modality is given.
    """

    def __init__(self, config: NetworkConfig, *, modalities: Collection[Modality] = MODALITIES) -> None:
        super().__init__()
        if not modalities:
            raise ModelError(
                "a network without a modality cannot be made",
                expected="at least one of " + ", ".join(Modality),
                remedy="name its modalities",
            )
        self.config = config
        self.modalities = tuple(m for m in MODALITIES if m in modalities)
        channels = config.channels
        self.encoders = nn.ModuleDict({m: Encoder(channels, config.blocks) for m in self.modalities})
        self.gates = nn.ModuleDict({m: GateBias(len(channels)) for m in self.modalities})
        self.fusion = nn.ModuleList(MaskedFusion(width) for width in channels)
        self.bottleneck = Bottleneck(channels[-1], layers=config.transformer_layers, heads=config.transformer_heads)
        self.decoder = Decoder(channels)
        pooled = sum(channels) + channels[-1] + len(REGIONS)
        segmentation = nn.Conv3d(channels[0], len(REGIONS), 1)
        with torch.no_grad():
            cast(Tensor, segmentation.bias).copy_(torch.tensor(_PRIOR_LOGIT))
        self.heads = nn.ModuleDict({task: segmentation if task is Task.SEGMENTATION else MolecularHead(pooled) for task in config.tasks})
        # Log-variances start where every task has a weighed loss near 1/2. A short run would not get there from 0, for a log-variance
        # moves by no more than the learning rate a step.
        self.uncertainty = nn.ParameterDict({task: nn.Parameter(torch.tensor(CHANCE_LOG_LOSS[task])) for task in config.tasks})
        if config.prototypes:
            self.adapter = AnchorAdapter(channels[-1], heads=config.transformer_heads)
            self.anchors = Anchors(channels[-1], prototypes=config.prototypes)
        # Channels-last convolutions take a third to a half of the time of channels-first ones on CPUs.
        for parameter in self.parameters():
            if parameter.dim() == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)

    def forward(self, image_BMXYZ: Tensor, present_BM: Tensor) -> Prediction:
        """Predict regions and molecular status.

        Args:
            image_BMXYZ: normalised intensities in the order of MODALITIES; what stands in an absent modality is never read.
            present_BM: bool, which sample has which of MODALITIES; at least one that this instance can read.

        Raises:
            ModelError: a shape does not fit, or a sample has no modality this instance can read.
        """
        features = self.encode(image_BMXYZ, present_BM)
        fused = self.fuse(features, present_BM)
        return self.decode(fused)

    def encode(self, image_BMXYZ: Tensor, present_BM: Tensor) -> dict[Modality, list[Tensor]]:
        """Return the features of each modality that any sample has: levels finest first, zeros for samples that lack it."""
        self._check_input(image_BMXYZ, present_BM)
        features: dict[Modality, list[Tensor]] = {}
        for modality in self.modalities:
            column = MODALITIES.index(modality)
            rows_K = present_BM[:, column].nonzero().squeeze(1)
            if len(rows_K) == 0:
                continue
            image_K1XYZ = image_BMXYZ[rows_K, column : column + 1].contiguous(memory_format=torch.channels_last_3d)
            levels = self.encoders[modality](image_K1XYZ)
            features[modality] = levels if len(rows_K) == len(image_BMXYZ) else [_spread_rows(x, rows_K, len(image_BMXYZ)) for x in levels]
        return features

    def fuse(self, features: dict[Modality, list[Tensor]], present_BM: Tensor) -> list[Tensor]:
        """Return the fused features of every level, finest first, the last one behind the bottleneck."""
        columns = [MODALITIES.index(m) for m in features]
        bias_ML = torch.stack([cast(Tensor, self.gates[m].bias) for m in features])
        fused = [
            fusion([features[m][level] for m in features], bias_ML[:, level], present_BM[:, columns])
            for level, fusion in enumerate(self.fusion)
        ]
        coarsest = self.bottleneck(fused[-1])
        return [*fused[:-1], self.adapter(coarsest, present_BM, self.anchors) if self.config.prototypes else coarsest]

    def weigh(self, features: dict[Modality, list[Tensor]], present_BM: Tensor) -> list[Tensor]:
        """Return what the gates give each modality of `features`, in their order: weight_BMXYZ per level, finest first."""
        columns = [MODALITIES.index(m) for m in features]
        bias_ML = torch.stack([cast(Tensor, self.gates[m].bias) for m in features])
        return [
            cast(MaskedFusion, fusion).weigh([features[m][level] for m in features], bias_ML[:, level], present_BM[:, columns])
            for level, fusion in enumerate(self.fusion)
        ]

    def decode(self, fused_BCXYZ: Sequence[Tensor]) -> Prediction:
        """Return the prediction from the fused levels.

        Only the fused features feed the molecular heads, so a site without segmentation labels leaves the decoder alone.
        """
        return self.classify(*self.segment(fused_BCXYZ))

    def segment(self, fused_BCXYZ: Sequence[Tensor], *, share_XYZ: Tensor | None = None) -> tuple[Tensor, PooledSums]:
        """Return region_logits_BRXYZ, and the sums that the molecular heads need; those of several windows of one volume add up.

        Args:
            fused_BCXYZ: the fused levels.
            share_XYZ: as in pool_sums.
        """
        region_logits_BRXYZ = self.heads[Task.SEGMENTATION](self.decoder(fused_BCXYZ))
        probability_BRXYZ = region_logits_BRXYZ.detach().float().sigmoid().cumprod(1)
        return region_logits_BRXYZ, pool_sums(fused_BCXYZ, probability_BRXYZ, share_XYZ=share_XYZ)

    def classify(self, region_logits_BRXYZ: Tensor, pooled: PooledSums) -> Prediction:
        """Return the prediction: the region logits as they are, and the molecular heads' answer to what was pooled."""
        pooled_BF = pooled.features()
        # In bf16 the logits of different patients would tie, which costs AUC; these layers are tiny.
        with torch.autocast(pooled_BF.device.type, enabled=False):
            logits_B = {task: self.heads[task](pooled_BF) for task in self.config.tasks if task in MARKERS}
        return Prediction(
            region_logits_BRXYZ, logits_B[Task.IDH], logits_B[Task.CODELETION], logits_B.get(Task.GRADE), logits_B.get(Task.MGMT)
        )

    def _check_input(self, image_BMXYZ: Tensor, present_BM: Tensor) -> None:
        factor = 2 ** (len(self.config.channels) - 1)
        shape = tuple(image_BMXYZ.shape)
        if len(shape) != 5 or shape[1] != len(MODALITIES) or any(n % factor or n < 2 * factor for n in shape[2:]):
            raise ModelError(
                "an image does not fit the network",
                got=f"shape {shape}",
                expected=f"(B, {len(MODALITIES)}, X, Y, Z), each axis a multiple of {factor} and at least {2 * factor}",
                remedy="resample to the grid of the model definition",
            )
        if present_BM.shape != shape[:2] or present_BM.dtype != torch.bool:
            raise ModelError(
                "the table of present modalities does not fit the image",
                got=f"shape {tuple(present_BM.shape)}, {present_BM.dtype}",
                expected=f"shape {shape[:2]}, bool",
                remedy="pass one row per sample with a column for each of MODALITIES",
            )
        readable_BM = present_BM[:, [MODALITIES.index(m) for m in self.modalities]]
        if not bool(readable_BM.any(1).all()):
            raise ModelError(
                "a sample has no modality the network can read",
                got=f"present {present_BM.tolist()}",
                expected="at least one of " + ", ".join(self.modalities),
                remedy="leave the sample out, or load a network with its modality",
            )


def _spread_rows(x_KCXYZ: Tensor, rows_K: Tensor, batch: int) -> Tensor:
    """Return features of the whole batch with zeros in the rows that are not among `rows_K`."""
    x_BCXYZ = x_KCXYZ.new_zeros((batch, *x_KCXYZ.shape[1:])).contiguous(memory_format=torch.channels_last_3d)
    return x_BCXYZ.index_copy(0, rows_K, x_KCXYZ)
