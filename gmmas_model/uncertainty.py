"""How sure the network is: Monte-Carlo passes with dropped features, their means, spreads and entropy.

    p_k = network(features * mask_k / (1 - d)),   mask_k ~ Bernoulli(1 - d) per case, level and channel
    mean = 1/K sum_k p_k,   std = sqrt(1/(K-1) sum_k (p_k - mean)^2),   entropy = H(mean classes) / log 4

Gal and Ghahramani, ICML 2016 (dropout at prediction as approximate posterior); whole channels are dropped, since neighbouring voxels of one
channel say the same (Tompson et al., CVPR 2015). The encoders and the fusion run once: only the decoder and the heads are repeated. The
network itself is trained without feature dropout, so the spread ranks voxels and cases; it is not a posterior variance.

Shape suffixes: B batch, M modality (order of MODALITIES), R region (WT, TC, ET), C channel, XYZ voxels.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from gmmas_model.calibration import calibrate_prediction
from gmmas_model.inference import Precision, Progress, blend_window, evaluation_mode, mirror, progress_of_part
from gmmas_model.network import GmmasNetwork
from gmmas_model.pooling import PooledSums
from gmmas_model.precision import autocast
from gmmas_model.windows import lay_windows
from gmmas_schema.calibration import Temperatures
from gmmas_schema.errors import ModelError
from gmmas_schema.inference import OVERLAP, Flip
from gmmas_schema.vocabulary import REGIONS, Task


@dataclass(frozen=True)
class Uncertain:
    """Mean and standard deviation of probabilities over Monte-Carlo passes, fp32 on the device of the input, without gradient.

    Attributes:
        region_mean_BRXYZ: probability of the nested regions; never rising from WT to TC to ET.
        region_std_BRXYZ: standard deviation of that probability, at most 0.71.
        marker_mean: probability_B of every marker there is a head for; of 1p/19q not conditional, so never above that of IDH.
        marker_std: its standard deviation.
    """

    region_mean_BRXYZ: Tensor
    region_std_BRXYZ: Tensor
    marker_mean: dict[Task, Tensor]
    marker_std: dict[Task, Tensor]

    @property
    def idh_mean_B(self) -> Tensor:  # noqa: N802
        """Return the mean of P(IDH mutant)."""
        return self.marker_mean[Task.IDH]

    @property
    def idh_std_B(self) -> Tensor:  # noqa: N802
        """Return the standard deviation of P(IDH mutant)."""
        return self.marker_std[Task.IDH]

    @property
    def codeletion_mean_B(self) -> Tensor:  # noqa: N802
        """Return the mean of P(1p/19q codeleted)."""
        return self.marker_mean[Task.CODELETION]

    @property
    def codeletion_std_B(self) -> Tensor:  # noqa: N802
        """Return the standard deviation of P(1p/19q codeleted)."""
        return self.marker_std[Task.CODELETION]


class RunningMoments:
    """Mean and spread of tensors that come one at a time (Welford, Technometrics 1962: no difference of nearly equal sums)."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = torch.empty(0)
        self._squares = torch.empty(0)

    def add(self, value: Tensor) -> None:
        """Take in one value; all have one shape."""
        self.add_group(value, torch.zeros_like(value), count=1)

    def add_group(self, mean: Tensor, std: Tensor, *, count: int) -> None:
        """Take in `count` values by their mean and sample standard deviation (Chan et al., American Statistician 1983)."""
        squares = std.square() * (count - 1)
        if self._count == 0:
            self._mean, self._squares, self._count = mean.clone(), squares, count
            return
        difference, total = mean - self._mean, self._count + count
        self._mean += difference * (count / total)
        self._squares += squares + difference.square() * (self._count * count / total)
        self._count = total

    def mean(self) -> Tensor:
        """Return the mean of what came."""
        return self._mean

    def std(self) -> Tensor:
        """Return the sample standard deviation; 0 for a single value."""
        return (self._squares / max(self._count - 1, 1)).sqrt()


def monte_carlo(
    network: GmmasNetwork,
    image_BMXYZ: Tensor,
    present_BM: Tensor,
    *,
    passes: int = 6,
    dropout: float = 0.2,
    generator: torch.Generator,
    temperatures: Temperatures = MappingProxyType({}),
    patch: tuple[int, int, int] | None = None,
    overlap: float = OVERLAP,
    precision: Precision = "auto",
    on_progress: Progress | None = None,
) -> Uncertain:
    """Return what the network says on average, and how far its answers spread, when features are dropped at random.

    The result depends on the generator's state alone; torch's global generator and the network's mode stay as they were. A pass drops the
    same channels in every window. Where windows overlap, their means and their standard deviations are averaged, so the latter is an upper
    bound of that of the averaged probability.

    Args:
        network: on the device to compute on.
        image_BMXYZ: normalised intensities in the order of MODALITIES; results are kept on its device.
        present_BM: bool, as in GmmasNetwork.forward.
        passes: Monte-Carlo passes, 2 or more.
        dropout: share of fused channels dropped in each pass, in (0, 1).
        generator: source of randomness, on any device.
        temperatures: of a calibrated model.
        patch: voxels of a window (GridConfig.patch); None for the whole volume.
        overlap: share of a window's side that the next window covers again.
        precision: of the forward passes.
        on_progress: called with (done, total) windows.

    Raises:
        ModelError: `passes` or `dropout` out of bounds, or as in predict_volume.
    """
    _check_passes(passes, dropout)
    home, device = image_BMXYZ.device, next(network.parameters()).device
    masks = draw_masks(network.config.channels, batch=len(image_BMXYZ), passes=passes, dropout=dropout, generator=generator)
    tiling = lay_windows(image_BMXYZ, present_BM, patch=patch, overlap=overlap)
    mean_BRXYZ = torch.zeros(len(image_BMXYZ), len(REGIONS), *image_BMXYZ.shape[2:], device=home)
    std_BRXYZ = torch.zeros_like(mean_BRXYZ)
    pooled: list[PooledSums] = []
    # Not inference_mode: the caller may use the means as targets of a loss, which tensors of that mode refuse.
    with evaluation_mode(network), torch.no_grad(), autocast(device, precision):
        for done, (place, share_XYZ) in enumerate(tiling):
            window_BMXYZ, present = image_BMXYZ[(..., *place)].to(device), present_BM.to(device)
            fused = network.fuse(network.encode(window_BMXYZ, present), present)
            moments, sums = RunningMoments(), []
            for factors in masks:
                dropped = [x_BCXYZ * f_BC111.to(x_BCXYZ) for x_BCXYZ, f_BC111 in zip(fused, factors, strict=True)]
                logits_BRXYZ, one = network.segment(dropped, share_XYZ=None if share_XYZ is None else share_XYZ.to(device))
                moments.add(calibrate_prediction(network.classify(logits_BRXYZ, one), temperatures).region_probability())
                sums.append(one)
            blend_window(mean_BRXYZ, moments.mean(), place, share_XYZ)
            blend_window(std_BRXYZ, moments.std(), place, share_XYZ)
            pooled = [a + b for a, b in zip(pooled, sums, strict=True)] if pooled else sums
            if on_progress is not None:
                on_progress(done + 1, len(tiling))
        markers = _marker_moments(network, pooled, temperatures)
    return Uncertain(
        mean_BRXYZ,
        std_BRXYZ,
        {task: moments.mean().to(home) for task, moments in markers.items()},
        {task: moments.std().to(home) for task, moments in markers.items()},
    )


def monte_carlo_mirrored(
    network: GmmasNetwork,
    image_BMXYZ: Tensor,
    present_BM: Tensor,
    *,
    flip: Flip,
    passes: int,
    on_progress: Progress | None = None,
    **options: Any,
) -> Uncertain:
    """Return mean and spread over the passes of all mirror images, `passes` each; other arguments as in monte_carlo."""
    regions, markers = RunningMoments(), defaultdict[Task, RunningMoments](RunningMoments)
    for number, axes in enumerate(flip.axes):
        report = progress_of_part(on_progress, number, len(flip.axes))
        one = monte_carlo(network, mirror(image_BMXYZ, axes), present_BM, passes=passes, on_progress=report, **options)
        regions.add_group(mirror(one.region_mean_BRXYZ, axes), mirror(one.region_std_BRXYZ, axes), count=passes)
        for task, mean_B in one.marker_mean.items():
            markers[task].add_group(mean_B, one.marker_std[task], count=passes)
    means, stds = ({task: getattr(moments, what)() for task, moments in markers.items()} for what in ("mean", "std"))
    return Uncertain(regions.mean(), regions.std(), means, stds)


def predictive_entropy(probability_BRXYZ: Tensor) -> Tensor:
    """Return entropy_BXYZ in [0, 1] of the four classes that nested regions tell apart: none, WT without TC, TC without ET, ET."""
    outer_BRXYZ = torch.cat([torch.ones_like(probability_BRXYZ[:, :1]), probability_BRXYZ], dim=1)
    inner_BRXYZ = torch.cat([probability_BRXYZ, torch.zeros_like(probability_BRXYZ[:, :1])], dim=1)
    classes_BKXYZ = (outer_BRXYZ - inner_BRXYZ).clamp_min(0)
    return -torch.xlogy(classes_BKXYZ, classes_BKXYZ).sum(1) / math.log(classes_BKXYZ.shape[1])


def draw_masks(channels: Sequence[int], *, batch: int, passes: int, dropout: float, generator: torch.Generator) -> list[list[Tensor]]:
    """Return per pass and level factors_BC111: 0 for a dropped channel, 1 / (1 - dropout) for the others."""
    device = generator.device
    return [
        [(torch.rand(batch, width, 1, 1, 1, generator=generator, device=device) >= dropout) / (1 - dropout) for width in channels]
        for _ in range(passes)
    ]


def _marker_moments(network: GmmasNetwork, pooled: Sequence[PooledSums], temperatures: Temperatures) -> dict[Task, RunningMoments]:
    """Return the moments of every marker's probability over the passes."""
    markers = defaultdict[Task, RunningMoments](RunningMoments)
    for sums in pooled:
        nowhere_BR111 = sums.volume_BR.new_zeros(*sums.volume_BR.shape, 1, 1, 1)
        prediction = calibrate_prediction(network.classify(nowhere_BR111, sums), temperatures)
        for task, probability_B in prediction.marker_probabilities().items():
            markers[task].add(probability_B)
    return dict(markers)


def _check_passes(passes: int, dropout: float) -> None:
    """Refuse settings without a spread.

    Raises:
        ModelError: fewer than 2 passes, or a dropout outside (0, 1).
    """
    if passes < 2 or not 0 < dropout < 1:
        raise ModelError(
            "Monte-Carlo passes would have no spread",
            got=f"passes {passes}, dropout {dropout}",
            expected="2 passes or more, dropout between 0 and 1",
            remedy="take for instance 8 passes with a dropout of 0.2",
        )
