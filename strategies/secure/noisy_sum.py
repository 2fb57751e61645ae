"""Updates as integers with each site's share of the noise, so that the sum that is opened is private and nothing before it is seen.

    u_k = w_k,g delta_k,g over all groups g that the site adds to,  w in [0, 1],  shortened to |u_k| <= C - h sqrt(d)
    q_k = floor(u_k / h) + [r < frac(u_k / h)]      r uniform: rounding at random, without bias
    x_k,g = q_k,g + N_Z(0, s_g)                     s_g = ceil((z C / h)^2 / m_g), discrete Gaussian noise
    sum over survivors of x_k,g                     modulo 2^R, which cannot wrap;  the coordinator reads  theta_g + h sum / D_g

The distributed discrete Gaussian mechanism of Kairouz, Liu and Steinke, ICML 2021, with a grid h that is fine enough (R = 32 bits: about
10^-8 C) that neither their rotation nor their conditional rounding is needed: rounding moves a vector of d values by less than h sqrt(d),
which is taken off the clip beforehand. So |h q_k| <= C holds always, exactly, in the integers, and the mean of the sum is that of the
clipped updates.

Enough noise whoever drops out. m_g is the smallest number of the group's holders that can stand behind a sum the sites would open, less
`privacy.colluders`: of M sites that mask, M - t may drop out, and a group below `minimum_holders` stays closed. A site signs among whom it
masked and made its noise, and is not unmasked by sites that masked among others, so none can be shown a larger M. Each drop-out less than
feared leaves more noise than the z C that is accounted for, never less. Colluders are sites whose noise is not counted on: every hospital
could take its own share out of the model again, so there is at least one unless the configuration says otherwise; sites that a coordinator
made up for itself are others (node.peers keeps them out).

What is accounted for. A sum of m discrete Gaussians is one of variance m s up to a factor 1 +- 10 m exp(-pi^2 s) a value (Theorem 1
there), and s is above 2^8 here: exp(-pi^2 s) < 10^-1000. So the release is (1 / (2 z^2))-concentrated like the Gaussian one, and its
epsilon that of strategies.accountant up to the lattice: where a single value moves by the whole clip, delta is larger by a relative
2 / (m s) at most, computed for z from 0.3 to 4 (tests/strategies/secure), and m s is 10^13 or so. That rests on u_k being a site's only way
into the sum: the neighbouring run is the one in which the hospital's update is zero, and it makes its noise in both.

Error of the mean against that of clipped updates, beside the noise: h sqrt(n / 4) / D standard deviations from rounding, no bias; a value
beyond TAIL standard deviations of noise is cut (probability exp(-TAIL^2 / 2), 10^-55).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.errors import ConfigError, ModelError
from gmmas_schema.privacy import PrivacyConfig
from strategies.discrete_gaussian import draw
from strategies.noise import NoiseSource
from strategies.secure.fixed_point import BLOCK, Ring, impossible

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

TAIL: Final = 16.0
"""Standard deviations of a share of noise that have room in the ring."""
MOST_LEVELS: Final = 1 << 44
"""Steps of a value: with more, doubles would not tell neighbours apart; 10^-13 C is fine enough."""
LARGEST_LOSS: Final = 2.0**-6
"""Most of the clip that may be taken off for rounding."""
FEWEST_STEPS: Final = 16.0
"""Standard deviation of the smallest share of noise, in steps of the grid."""


@dataclass(frozen=True)
class NoisySum:
    """The grid of one private round.

    Args:
        sites: most sites that can add to a sum.
        ring_bits: width R of the integers.
        elements: d, values of the whole model.
        fewest: smallest number of sites whose noise a sum may rest on.
        privacy: clip C, noise z, full weight.

    Raises:
        ConfigError: the ring is too narrow for the noise.
    """

    sites: int
    ring_bits: int
    elements: int
    fewest: int
    privacy: PrivacyConfig

    def __post_init__(self) -> None:
        loss, smallest = self.rounding / self.privacy.clip_norm, self._share(self.sites) / self.step
        if loss > LARGEST_LOSS or smallest < FEWEST_STEPS:
            raise ConfigError(
                "the integers of secure aggregation are too coarse for the noise",
                where="secure.ring_bits",
                got=f"{self.ring_bits} bits for {self.sites} sites and {self.elements} values: rounding takes {100 * loss:.3g} % of the"
                f" clip, and a share of noise is {smallest:.3g} steps",
                expected=f"at most {100 * LARGEST_LOSS:.2g} %, and {FEWEST_STEPS:g} steps or more",
                remedy="set secure.ring_bits to 32 or 64, or privacy.noise_multiplier to a number between 0.01 and 100",
            )

    @property
    def levels(self) -> int:
        """Largest step of a value with its noise; sites * levels stays below 2^(ring_bits - 1)."""
        return min(((1 << (self.ring_bits - 1)) - 1) // self.sites, MOST_LEVELS)

    @property
    def step(self) -> float:
        """h: the distance of two neighbours on the grid."""
        return (self.privacy.clip_norm + TAIL * self._share(self.fewest)) / self.levels

    @property
    def rounding(self) -> float:
        """The farthest that rounding can move an update: h sqrt(d)."""
        return self.step * math.sqrt(self.elements)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Little-endian unsigned integers of the ring."""
        return np.dtype(f"<u{self.ring_bits // 8}")

    def weigh(self, weight: float) -> float:
        """Return the bounded weight of a site in a group."""
        return min(1.0, weight / self.privacy.full_weight)

    def variance(self, makers: int) -> int:
        """Return s, in squared steps, of each site's noise where so many make it."""
        return math.ceil((self._share(makers) / self.step) ** 2)

    def encode(
        self, update: Mapping[str, Float32], *, weights: Mapping[str, float], makers: Mapping[str, int], source: NoiseSource
    ) -> dict[str, Ring]:
        """Return a site's groups as they are masked, each with a 1 behind it that counts the sites.

        Args:
            update: flat change of every group that the site adds to.
            weights: of these groups, in [0, 1].
            makers: sites that each group's noise can rest on.
            source: a new one for this round.

        Raises:
            ModelError: an update is not finite, or has no length.
        """
        factor = self._shorten(update, weights)
        return {
            group: self._encode(delta_E, factor * weights[group], variance=self.variance(makers[group]), source=source)
            for group, delta_E in update.items()
        }

    def decode(self, total: Ring, *, sites: int) -> tuple[Float32, float]:
        """Return the noisy sum over the number of sites behind it, and that number.

        Raises:
            ProtocolError: no such sites add up to this.
        """
        signed = total.view(self.dtype.str.replace("u", "i"))
        steps_E, counted = signed[:-1], int(signed[-1])
        largest = max(abs(int(bound(steps_E, initial=0))) for bound in (np.min, np.max))
        if counted != sites or largest > sites * self.levels:
            raise impossible(counted, sites)
        mean_E = np.empty(total.size - 1, np.float32)
        for start in range(0, mean_E.size, BLOCK):
            part = slice(start, min(start + BLOCK, mean_E.size))
            mean_E[part] = steps_E[part] * (self.step / sites)
        return mean_E, float(sites)

    def _share(self, makers: int) -> float:
        """Return the standard deviation of each site's noise where so many make it: z C over the root of their number."""
        return self.privacy.noise_multiplier * self.privacy.clip_norm / math.sqrt(makers)

    def _shorten(self, update: Mapping[str, Float32], weights: Mapping[str, float]) -> float:
        """Return the factor that brings the weighted update, all groups together, to the clip less what rounding may add."""
        squares = (
            weights[group] ** 2 * float(np.dot(part, part))
            for group, delta_E in update.items()
            for part in (delta_E[start : start + BLOCK].astype(np.float64) for start in range(0, delta_E.size, BLOCK))
        )
        norm = math.sqrt(math.fsum(squares))
        if not math.isfinite(norm):
            raise ModelError("an update is not finite", got="NaN or infinity", expected="finite numbers", remedy="lower the learning rate")
        # A part in a million covers the rounding of all these doubles.
        limit = self.privacy.clip_norm * (1 - 2.0**-20) - self.rounding
        return min(1.0, limit / norm) if norm > 0 else 1.0

    def _encode(self, delta_E: Float32, factor: float, *, variance: int, source: NoiseSource) -> Ring:
        encoded = np.empty(delta_E.size + 1, self.dtype)
        for start in range(0, delta_E.size, BLOCK):
            steps = self.round_at_random(delta_E[start : start + BLOCK].astype(np.float64) * factor, source)
            noisy = np.clip(steps + draw(source, steps.size, variance=variance), -self.levels, self.levels)
            encoded[start : start + steps.size] = noisy.astype(self.dtype)
        encoded[-1] = 1
        return encoded

    def round_at_random(self, values_E: Float64, source: NoiseSource) -> NDArray[np.int64]:
        """Return values as steps of the grid, up or down by chance so that the mean is the value."""
        scaled = values_E / self.step
        below = np.floor(scaled)
        return (below + (source.uniform(scaled.size) < scaled - below)).astype(np.int64)
