"""Combining a group's holders so that a few of them cannot carry the result off: coordinate-wise median and trimmed mean.

    median:   theta_i = median_k theta_k,i
    trimmed:  theta_i = sum_{k in M_i} w_k theta_k,i / sum_{k in M_i} w_k,   M_i without the b smallest and b largest values of coordinate i

Yin, Chen, Ramchandran and Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018, here among the
holders of a group only: a site without T1ce has no say about the T1ce encoder, bad or good.

How weights go with it: what protects is a count of sites, and a site's weight is what it says of itself. So the median gives every
holder one vote, and trimming drops values by count; among those that are left the weights count again, for a mean of values that lie
between honest ones lies between them whatever its weights are. With b bad sites of n > 2b no coordinate leaves the honest range.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.robustness import CombineRule, MeanRule, TrimmedRule

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Combining:
    """How one group is combined.

    Attributes:
        kind: of the combination.
        drop: values dropped at either end, of a trimmed mean.
        reason: why it is not what the configuration asks for; empty where it is.
    """

    kind: Literal["mean", "median", "trimmed"]
    drop: int = 0
    reason: str = ""


def choose_combining(rule: CombineRule, *, holders: int) -> Combining:
    """Return how a group of so many holders is combined: fewer than three are averaged, for none of two is the odd one out."""
    if isinstance(rule, MeanRule):
        return Combining("mean")
    if holders < 3:
        return Combining("mean", reason=f"{holders} holder{'s' if holders > 1 else ''}, {rule.kind} needs 3: weighted mean")
    if not isinstance(rule, TrimmedRule):
        return Combining("median")
    wanted, possible = math.ceil(rule.share * holders - 1e-9), (holders - 1) // 2
    reason = f"{holders} holders, {wanted} at either end leave none: {possible} dropped" if wanted > possible else ""
    return Combining("trimmed", drop=min(wanted, possible), reason=reason)


def median(block_SN: Float32) -> Float32:
    """Return the median over sites of every coordinate; of an even number the mean of the middle two."""
    result_N: Float32 = np.median(block_SN, axis=0).astype(np.float32)
    return result_N


def trimmed_mean(block_SN: Float32, weights_S: Float64, *, drop: int) -> Float32:
    """Return the weighted mean over sites of every coordinate without its `drop` smallest and largest values.

    Args:
        block_SN: values, sites in a fixed order: of equal values the first site's counts as the smaller.
        weights_S: positive.
        drop: at either end; 2 drop < S.
    """
    order_SN = np.argsort(block_SN, axis=0, kind="stable")
    kept_SN = order_SN[drop : block_SN.shape[0] - drop]
    weights_SN = weights_S[kept_SN]
    values_SN = np.take_along_axis(block_SN, kept_SN, axis=0)
    result_N: Float32 = ((values_SN * weights_SN).sum(axis=0) / weights_SN.sum(axis=0)).astype(np.float32)
    # A mean of values lies between them; its rounding may not.
    return np.clip(result_N, values_SN[0], values_SN[-1])
