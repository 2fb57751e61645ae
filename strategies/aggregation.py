"""The running mean of the sites' replies: constant memory in their number, and the same bits in whatever order they arrive.

    theta_g = sum_k w_k,g theta_k,g / sum_k w_k,g

Floating-point sums depend on their order, and replies arrive in any order. Each product v = w * theta is therefore split on two fixed
grids, v = h + l + (less than 2^-53), h a multiple of 2^-10 and l a multiple of 2^-52, and h and l are added up in float64. A sum of
multiples of q is exact in float64 while it stays below 2^53 q: nothing is rounded, so addition is associative and the order cannot
matter. Pre-rounding to a fixed grid: Demmel and Nguyen, "Parallel Reproducible Summation", IEEE Trans. Computers 64(7), 2015.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.groups import group_of

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

HIGH_GRID, LOW_GRID = 2.0**-10, 2.0**-52
REPLY_LIMIT = 2**11
"""Most replies in one mean: each adds at most 2^-11 to a low sum, which is exact up to 2."""
PRODUCT_LIMIT = 2.0**53 * HIGH_GRID / REPLY_LIMIT
"""Largest |w theta| of one reply, 4.3e9, so that as many replies keep the high sums exact."""
BLOCK = 1 << 16
"""Elements handled at a time, so that temporaries stay in cache and do not grow with the model."""


class ExactSum:
    """Element-wise sum of weighted float32 arrays that does not depend on their order.

    Args:
        size: number of elements.
    """

    def __init__(self, size: int) -> None:
        self._high: Float64 = np.zeros(size)
        self._low: Float64 = np.zeros(size)

    def add(self, values: Float32, *, weight: float) -> None:
        """Add weight * values; `values` has `size` elements in any shape."""
        flat = values.reshape(-1)
        for start in range(0, flat.size, BLOCK):
            part = slice(start, start + BLOCK)
            product = flat[part] * np.float64(weight)
            high = np.rint(product / HIGH_GRID) * HIGH_GRID
            self._high[part] += high
            self._low[part] += np.rint((product - high) / LOW_GRID) * LOW_GRID

    def total(self) -> Float64:
        """Return the sum, one-dimensional."""
        return self._high + self._low

    def divide(self, total: float) -> Float32:
        """Return sum / total as float32, one-dimensional."""
        mean: Float32 = np.empty(self._high.size, np.float32)
        for start in range(0, mean.size, BLOCK):
            part = slice(start, start + BLOCK)
            mean[part] = (self._high[part] + self._low[part]) / total
        return mean


@dataclass(frozen=True)
class Verdict:
    """What became of a round's replies once all were there.

    Attributes:
        refused: why, by site; these have no part in the result.
        norms: length of each accepted update by site and group (strategies.norms).
        cosines: with the mean direction of the others, of the sites that could be judged.
        clipped: factor below 1 by which an update was shortened, by site and group.
        combined: why a group was combined otherwise than configured.
        traffic: bytes that judging cost, to and from a site, where it needed further messages.
    """

    refused: Mapping[str, ProtocolError] = field(default_factory=dict)
    norms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    cosines: Mapping[str, float] = field(default_factory=dict)
    clipped: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    combined: Mapping[str, str] = field(default_factory=dict)
    traffic: Mapping[str, tuple[int, int]] = field(default_factory=dict)


class Aggregate(Protocol):
    """Takes the replies of a round one by one and gives the sites' joint model; the order of arrival never shows in it."""

    def fold(self, site: str, tensors: Mapping[str, Float32], *, weights: Mapping[str, float]) -> None:
        """Take a checked reply; may refuse it with a ProtocolError. Keeps none of its arrays."""

    def settle(self) -> Verdict:
        """Judge the replies together, once, after the last one."""

    def result(self) -> dict[str, Float32]:
        """Return the joint model: shapes and order of the current one, which groups that nobody sent keep."""

    def shares(self) -> dict[str, dict[str, float]]:
        """Return each site's share in every group it took part in, {site: {group: share}}."""

    def close(self) -> None:
        """Let go of what the round needed; may be called at any time."""


class RunningMean:
    """Folds one reply at a time into the next global model.

    Args:
        tensors: the current global model; groups that nobody sends keep its very arrays.
    """

    def __init__(self, tensors: Mapping[str, Float32]) -> None:
        self._current = tensors
        self._sums: dict[str, ExactSum] = {}
        self._weights: dict[str, dict[str, float]] = {}
        self._sites: set[str] = set()

    def fold(self, site: str, tensors: Mapping[str, Float32], *, weights: Mapping[str, float]) -> None:
        """Add a checked reply. Groups without a positive weight are ignored; nothing of the reply is kept.

        Raises:
            ProtocolError: the site was folded in before, or its values are too large to be added exactly. Nothing is added then.
        """
        if site in self._sites or len(self._sites) == REPLY_LIMIT:
            raise ProtocolError(
                "a reply cannot be folded in",
                where=site,
                got=f"{len(self._sites)} replies already",
                expected=f"one a site, {REPLY_LIMIT} at most",
                code=ReasonCode.REPLY_REFUSED,
            )
        counted = {name: weight for name in tensors if (weight := weights.get(group_of(name), 0.0)) > 0}
        for name, weight in counted.items():
            check_magnitude(site, name, tensors[name], weight)
        self._sites.add(site)
        for name, weight in counted.items():
            if name not in self._sums:
                self._sums[name] = ExactSum(tensors[name].size)
            self._sums[name].add(tensors[name], weight=weight)
            self._weights.setdefault(group_of(name), {})[site] = weight

    def withdraw(self, site: str, tensors: Mapping[str, Float32]) -> None:
        """Take a reply out again: nothing was rounded, so the sums are those without it to the last bit.

        Args:
            site: was folded in.
            tensors: the very tensors that were.
        """
        self._sites.remove(site)
        for name, value in tensors.items():
            weight = self._weights.get(group_of(name), {}).get(site, 0.0)
            if weight > 0:
                self._sums[name].add(value, weight=-weight)
        for own in self._weights.values():
            own.pop(site, None)

    def settle(self) -> Verdict:
        """Judge nothing: every reply that passed the checks counts."""
        return Verdict()

    def close(self) -> None:
        """Nothing to let go of."""

    def result(self) -> dict[str, Float32]:
        """Return the next global model: shapes and order of the current one, float32."""
        totals = {group: math.fsum(weights.values()) for group, weights in self._weights.items() if weights}
        return {
            name: self._sums[name].divide(totals[group_of(name)]).reshape(value.shape)
            if name in self._sums and group_of(name) in totals
            else value
            for name, value in self._current.items()
        }

    def shares(self) -> dict[str, dict[str, float]]:
        """Return each site's share in the mean of every group it took part in, {site: {group: share}}."""
        shares: dict[str, dict[str, float]] = {}
        for group, weights in self._weights.items():
            total = math.fsum(weights.values())
            for site, weight in weights.items():
                shares.setdefault(site, {})[group] = weight / total
        return shares


def check_magnitude(site: str, name: str, values: Float32, weight: float) -> None:
    """Refuse values that could not be added exactly; the bound also refuses NaN."""
    largest = weight * float(np.max(np.abs(values), initial=0.0))
    if not largest <= PRODUCT_LIMIT:
        raise ProtocolError(
            "a tensor's values are too large to be averaged",
            where=f"{site} {name}",
            got=f"weight times value {largest:.3g}",
            expected=f"at most {PRODUCT_LIMIT:.3g}",
            remedy="look at the site's training: its update diverged",
            code=ReasonCode.REPLY_REFUSED,
        )
