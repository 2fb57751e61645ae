"""Temperatures on a prediction, and the sums over one case from which temperatures and reliability are found.

    p_WT = s(l0 / T_wt),  p_TC = p_WT s(l1 / T_tc),  a = s(l / T_idh),  b = s(l / T_codeletion)

Only conditional logits change, so regions stay nested, subtypes still sum to 1, and nothing can contradict itself. The likelihood of
nested regions is that of their conditional probabilities, each where its condition holds, and so each temperature is fitted by itself:

    log P(case) = sum log s(+-l0) + sum_{in WT} log s(+-l1) + sum_{in TC} log s(+-l2)

Voxels count where something is at stake: within a margin of where the network, before calibration, sees a tumour at all. The far
background is right with certainty and would hide everything. The truth has no say in the choice: voxels chosen because they are tumour
make even a calibrated network look too sure of the others. Where the network sees nothing, the whole brain counts, so a missed tumour
does too.

Shape suffixes: B batch, R region (WT, TC, ET), XYZ voxels, N voxels or cases, T temperatures, S the three sums of Reliability, K bins.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from gmmas_model.prediction import Prediction
from gmmas_schema.calibration import BINS, LARGEST_NATS, Temperatures
from gmmas_schema.vocabulary import MARKERS, REGIONS, Task

SEEN: Final = 0.05
"""P(whole tumour) from which the network sees a tumour at all."""

MARGIN_MM: Final = 10.0
"""Along each axis, to whole voxels: a cube around every voxel where it sees one."""


def calibrate_prediction(prediction: Prediction, temperatures: Temperatures) -> Prediction:
    """Return the prediction with calibrated logits, in fp32; a head without a temperature keeps its own.

    Args:
        prediction: logits of any batch, window or mirror image. Calibrate before probabilities are averaged, and after features were
            pooled over the predicted tumour, for the temperatures were fitted to features pooled over the uncalibrated one.
        temperatures: of heads (regions and markers), all > 0.
    """
    region_BRXYZ = prediction.region_logits_BRXYZ.float()
    scale_R111 = region_BRXYZ.new_tensor([temperatures.get(region, 1.0) for region in REGIONS])[:, None, None, None]
    markers = {f"{task}_logit_B": logit_B / temperatures.get(task, 1.0) for task, logit_B in marker_logits(prediction).items()}
    return replace(prediction, region_logits_BRXYZ=region_BRXYZ / scale_R111, **markers)


def marker_logits(prediction: Prediction) -> dict[Task, Tensor]:
    """Return logit_B in fp32 of the conditional probability of every marker there is a head for."""
    found = {task: getattr(prediction, f"{task}_logit_B", None) for task in MARKERS}
    return {task: cast(Tensor, logit_B).float() for task, logit_B in found.items() if logit_B is not None}


def voxels_at_stake(probability_XYZ: Tensor, brain_XYZ: Tensor, *, spacing_mm: float) -> Tensor:
    """Return bool_XYZ: the brain within MARGIN_MM of where the network sees a tumour, or the whole brain where it sees none.

    Args:
        probability_XYZ: P(whole tumour) before calibration.
        brain_XYZ: bool.
        spacing_mm: of the grid.
    """
    seen_XYZ = (probability_XYZ >= SEEN) & brain_XYZ
    margin = round(MARGIN_MM / spacing_mm)
    near_XYZ = F.max_pool3d(seen_XYZ[None, None].float(), 2 * margin + 1, stride=1, padding=margin)[0, 0] > 0
    return near_XYZ & brain_XYZ if bool(seen_XYZ.any()) else brain_XYZ


def region_curves(logits_RXYZ: Tensor, truth_RXYZ: Tensor, stake_XYZ: Tensor, grid_T: Sequence[float]) -> list[NDArray[np.float64] | None]:
    """Return per region the mean negative log-likelihood (nats) at each temperature, over the voxels at stake inside the region around it.

    Args:
        logits_RXYZ: conditional logits.
        truth_RXYZ: bool, nested.
        stake_XYZ: bool.
        grid_T: temperatures.

    Returns:
        One curve a region, or None where no voxel answers for it: no tumour at stake, say, for TC and ET.
    """
    curves: list[NDArray[np.float64] | None] = []
    inside_XYZ = stake_XYZ
    for logit_XYZ, own_XYZ in zip(logits_RXYZ, truth_RXYZ, strict=True):
        curves.append(likelihood_curve(logit_XYZ[inside_XYZ], own_XYZ[inside_XYZ], grid_T) if bool(inside_XYZ.any()) else None)
        inside_XYZ = inside_XYZ & own_XYZ
    return curves


def likelihood_curve(logit_N: Tensor, truth_N: Tensor, grid_T: Sequence[float]) -> NDArray[np.float64]:
    """Return the mean negative log-likelihood (nats, at most LARGEST_NATS) of s(l / T) at each temperature; convex in 1 / T."""
    wrong_N = torch.where(truth_N, -logit_N.float(), logit_N.float())
    means = [float(F.softplus(wrong_N / temperature).mean(dtype=torch.float64)) for temperature in grid_T]
    return np.minimum(np.array(means, dtype=np.float64), LARGEST_NATS)


def reliability_sums(probability_N: Tensor, truth_N: Tensor) -> NDArray[np.float64]:
    """Return sums_SK of a case: share of its N decisions, their confidence and their correctness per bin, which sum to 1 over the first.

    A decision is positive where its probability exceeds 1/2; its confidence is max(p, 1 - p).
    """
    p_N = probability_N.double().flatten()
    confidence_N = torch.maximum(p_N, 1 - p_N)
    correct_N = ((p_N > 0.5) == truth_N.flatten()).double()
    bin_N = ((confidence_N - 0.5) * (2 * BINS)).long().clamp(0, BINS - 1)
    weights = (torch.ones_like(p_N), confidence_N, correct_N)
    sums = [torch.bincount(bin_N, weights=weight_N, minlength=BINS) for weight_N in weights]
    sums_SK: NDArray[np.float64] = (torch.stack(sums) / len(p_N)).cpu().numpy()
    return sums_SK
