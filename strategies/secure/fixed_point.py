"""Updates as integers whose sum cannot wrap, and what the rounding costs.

    q = round(clamp(delta, -c, c) L / c)       L = 2^(bits-1) - 1, so q is one of 2^bits - 1 steps of c / L
    W = max(1, round(w V / w_limit))           V weight steps, w clamped to w_limit
    a site adds  [W q, W]  modulo 2^R;  the coordinator reads  mean = (c / L) sum(W q) / sum(W)

V is the largest number (65,535 at most) with n V L < 2^(R-1) for the n sites of a round: no sum of n such terms leaves the signed range of
R bits, so reduction modulo 2^R loses nothing.

Error. The integers are exact: masks cancel to the bit. The mean is a weighted mean of rounded updates with weights W u, u = w_limit / V:
    |mean - mean of clipped deltas with weights W u| <= c / (2 L)          one rounding of each entry, averaged
    |W u - w| <= u / 2, or less than u where w < u / 2, which was raised to one step: whoever holds a group counts in it
    |mean - mean of clipped deltas with weights w|   <= c / (2 L) + 2 c n u / sum(w)
and one rounding of the result to float32. Low-bit precision composes: bits 8 in a ring of 16 bits sends two bytes an entry.

Fixed-point sums in a ring: Bonawitz et al., "Federated Learning with Autotuned Communication-Efficient Secure Aggregation", 2019.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.errors import ConfigError, ModelError, ProtocolError
from gmmas_schema.secure import FEWEST_WEIGHT_STEPS, weight_steps

Float32 = NDArray[np.float32]
Ring = NDArray[np.unsignedinteger[Any]]
"""Integers modulo 2^16, 2^32 or 2^64, little-endian."""

BLOCK: Final = 1 << 16
"""Elements handled at a time, so that temporaries stay in cache and do not grow with the model."""


@dataclass(frozen=True)
class FixedPoint:
    """The grid of one round.

    Args:
        sites: most sites that can add to a sum.
        bits: steps of an entry, 2^bits - 1.
        ring_bits: width R of the integers.

    Raises:
        ConfigError: so many sites leave fewer than 15 weight steps.
    """

    sites: int
    bits: int
    ring_bits: int

    def __post_init__(self) -> None:
        if self.weight_steps < FEWEST_WEIGHT_STEPS:
            raise ConfigError(
                "the integers of secure aggregation are too narrow for so many sites",
                where="secure.bits, secure.ring_bits",
                got=f"{self.sites} sites, {self.bits} bits in a ring of {self.ring_bits}: {self.weight_steps} steps for the weights",
                expected=f"at least {FEWEST_WEIGHT_STEPS} steps",
                remedy="set secure.ring_bits to 32 or 64, or lower secure.bits",
            )

    @property
    def levels(self) -> int:
        """L: the largest step of an entry."""
        return (1 << (self.bits - 1)) - 1

    @property
    def weight_steps(self) -> int:
        """V: the largest integer weight; sites * V * L stays below 2^(ring_bits - 1)."""
        return weight_steps(self.sites, bits=self.bits, ring_bits=self.ring_bits)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Little-endian unsigned integers of the ring."""
        return np.dtype(f"<u{self.ring_bits // 8}")

    def weigh(self, weight: float, *, limit: float) -> int:
        """Return W, 1 to weight_steps, for a positive weight."""
        return max(1, round(min(weight, limit) * self.weight_steps / limit))

    def encode(self, delta_E: Float32, *, weight: int, clip: float) -> Ring:
        """Return [W q, W], one more element than `delta_E` has.

        Args:
            delta_E: update of one group, flat.
            weight: W, from weigh().
            clip: c.

        Raises:
            ModelError: the update is not finite; nothing of it may be summed then.
        """
        encoded = np.empty(delta_E.size + 1, self.dtype)
        for start in range(0, delta_E.size, BLOCK):
            part = delta_E[start : start + BLOCK].astype(np.float64)
            if not np.isfinite(part).all():
                raise ModelError(
                    "an update is not finite", got="NaN or infinity", expected="finite numbers", remedy="lower the learning rate"
                )
            steps = np.rint(np.clip(part, -clip, clip) * (self.levels / clip)).astype(np.int64)
            encoded[start : start + part.size] = (steps * weight).astype(self.dtype)
        encoded[-1] = weight
        return encoded

    def decode(self, total: Ring, *, clip: float, limit: float, sites: int) -> tuple[Float32, float]:
        """Return the mean update and the sum of weights behind it.

        Args:
            total: sum of the encoded updates of one group, modulo the ring.
            clip: c.
            limit: w_limit.
            sites: sites behind the sum.

        Raises:
            ProtocolError: no updates of honest sites add up to this: a site added something else, or masks are left in it.
        """
        signed = total.view(self.dtype.str.replace("u", "i"))
        steps_E, weight = signed[:-1], int(signed[-1])
        largest = max(abs(int(bound(steps_E, initial=0))) for bound in (np.min, np.max))
        if not sites <= weight <= sites * self.weight_steps or largest > weight * self.levels:
            raise impossible(weight, sites)
        mean_E = np.empty(total.size - 1, np.float32)
        for start in range(0, mean_E.size, BLOCK):
            part = slice(start, min(start + BLOCK, mean_E.size))
            mean_E[part] = steps_E[part] * (clip / self.levels / weight)
        return mean_E, weight * limit / self.weight_steps

    def error(self, clip: float) -> float:
        """Return the largest error of an entry of the mean before its rounding to float32: half a step."""
        return clip / (2 * self.levels)


def impossible(weight: int, sites: int) -> ProtocolError:
    """Return the error for a sum that no updates have."""
    return ProtocolError(
        "a sum is not one that updates can have",
        got=f"a weight of {weight} steps, or an entry beyond it, from {sites} sites",
        expected="a sum of clipped updates",
        remedy="a site sent something else than an update: leave sites out one by one to find it",
    )
