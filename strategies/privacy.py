"""Differential privacy for hospitals: the next model says almost the same with one hospital's update as without it.

    u_k = (w_k,g (theta_k,g - theta_g)) over all groups g,   w_k,g = min(1, weight_k,g / full_weight)
    u_k <- u_k min(1, C / ||u_k||)                                     one clip over all groups
    theta_g <- theta_g + (sum_k u_k,g + N(0, (z C)^2)) / D_g           D_g sites, fixed before the run

DP-FedAvg with a fixed denominator: McMahan, Ramage, Talwar and Zhang, "Learning Differentially Private Recurrent Language Models", ICLR
2018, without their sampling. Two runs are neighbours where one of the hospitals sends nothing in place of its updates. The sum then moves
by at most C, whatever groups that hospital holds, since all of them together are clipped; strategies.accountant does the rest.

Why one clip over all groups and not one a group: with G groups a clip C_g each has the sensitivity sqrt(sum C_g^2), so the same noise
has to be spread over groups that the site may not even hold. One clip lets a site spend its C where it has something to say.

Weights: the clip comes after them, so they cannot break the guarantee; they are bounded by 1 so that D_g sites that count fully make
exactly a mean. D_g must not follow from who answered, for a quotient by sum_k w_k would tell of every single w_k: `holders` or
`quorum.sites`. All groups that a member of the round could send get noise, whether or not anybody sent them.

What this does not cover: figures of evaluations and training losses, calibration sums, numbers of cases and labels, what sequences a site
has, and who took part travel and are kept in the clear. Pseudo-labels begin, and the best round is chosen, by such figures. The
coordinator sees every update before the noise; who must not trust it needs secure aggregation, with the noise made at the sites
(strategies.secure.noisy_sum). With four hospitals the noise that hides one of them is as large as what they say together.
"""

import math
from collections.abc import Collection, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.groups import REGION_ROWS, group_of
from gmmas_schema.privacy import PrivacyConfig
from gmmas_schema.vocabulary import Task
from strategies.aggregation import ExactSum, Verdict
from strategies.noise import NoiseSource
from strategies.norms import NormLimit, squared_length, update_norms

Float32 = NDArray[np.float32]

_MARGIN: Final = 1 - 2.0**-20
"""Clipped updates stay this much below C, so that rounding to float32 cannot lift them above it."""


def bounded_weights(weights: Mapping[str, float], *, full_weight: float) -> dict[str, float]:
    """Return the weights of a site in [0, 1]: 1 from `full_weight` on."""
    return {group: min(1.0, weight / full_weight) for group, weight in weights.items() if weight > 0}


def weighted_update(tensors: Mapping[str, Float32], current: Mapping[str, Float32], weights: Mapping[str, float]) -> dict[str, Float32]:
    """Return weight times change of every tensor whose group has a weight."""
    counted = {name: weight for name in tensors if (weight := weights.get(group_of(name), 0.0)) > 0}
    with np.errstate(over="ignore"):
        return {name: (np.float32(weight) * (tensors[name] - current[name])).astype(np.float32) for name, weight in counted.items()}


def clip_update(update: Mapping[str, Float32], *, clip_norm: float) -> dict[str, Float32]:
    """Return an update shortened to an L2 norm of at most `clip_norm` over all its tensors together.

    Raises:
        ProtocolError: it has no finite length.
    """
    norm = math.sqrt(math.fsum(squared_length(value) for value in update.values()))
    if not math.isfinite(norm):
        raise ProtocolError(
            "an update has no length",
            got=norm,
            expected="a finite norm",
            remedy="look at the site's training: its update diverged",
            code=ReasonCode.REPLY_REFUSED,
        )
    limit = clip_norm * _MARGIN
    factor = limit / norm if norm > limit else 1.0
    return {name: (value * np.float64(factor)).astype(np.float32) for name, value in update.items()}


class PrivateSum:
    """The aggregate of a round under a PrivacyConfig (strategies.aggregation.Aggregate).

    Args:
        tensors: the current global model.
        config: clip and noise.
        released: groups that a member of the round could send; they get noise, and no other is touched.
        sites: denominator of a group that `config.holders` does not name.
        limit: what a site's own norms are compared with; others' do not count, or one site could have another one refused.
        noise: a new source for this release.
    """

    def __init__(
        self,
        tensors: Mapping[str, Float32],
        *,
        config: PrivacyConfig,
        released: Collection[str],
        sites: int,
        limit: NormLimit,
        noise: NoiseSource | None = None,
    ) -> None:
        self._current, self._config, self._sites, self._limit = tensors, config, sites, limit
        self._released = {group for name in tensors if _sent_as(group := group_of(name)) in released}
        self._noise = noise or NoiseSource()
        self._sums: dict[str, ExactSum] = {}
        self._weights: dict[str, dict[str, float]] = {}
        self._result: dict[str, Float32] | None = None

    def fold(self, site: str, tensors: Mapping[str, Float32], *, weights: Mapping[str, float]) -> None:
        """Clip a checked reply and add it up.

        Raises:
            ProtocolError: the site was folded in before, or moved a group farther than `limit` allows.
        """
        if site in self._weights:
            raise ProtocolError(
                "a reply cannot be folded in", where=site, got="another one", expected="one a site", code=ReasonCode.REPLY_REFUSED
            )
        own = {group: weight for group, weight in bounded_weights(weights, full_weight=self._config.full_weight).items() if weight > 0}
        own = {group: weight for group, weight in own.items() if group in self._released}
        if refused := self._limit.refusals({site: update_norms(tensors, self._current)}):
            raise refused[site]
        update = clip_update(weighted_update(tensors, self._current, own), clip_norm=self._config.clip_norm)
        self._weights[site] = own
        for name, value in update.items():
            if name not in self._sums:
                self._sums[name] = ExactSum(value.size)
            self._sums[name].add(value, weight=1.0)

    def settle(self) -> Verdict:
        """Judge nothing: what a site counts may not depend on the others. Lengths before the clip are kept nowhere."""
        return Verdict()

    def result(self) -> dict[str, Float32]:
        """Return the next model. The noise is drawn at the first call, once: book the release before."""
        if self._result is None:
            self._result = {
                name: self._release(name, value) if group_of(name) in self._released else value for name, value in self._current.items()
            }
        return self._result

    def shares(self) -> dict[str, dict[str, float]]:
        """Return each site's largest possible share in every group: its weight over the fixed denominator."""
        return {site: {group: weight / self._denominator(group) for group, weight in own.items()} for site, own in self._weights.items()}

    def close(self) -> None:
        """Nothing to let go of."""

    def _release(self, name: str, value: Float32) -> Float32:
        noisy = self._noise.gaussian(value.size, deviation=self._config.noise_multiplier * self._config.clip_norm)
        if name in self._sums:
            noisy += self._sums[name].total()
        following = value.reshape(-1) + noisy / self._denominator(group_of(name))
        return following.astype(np.float32).reshape(value.shape)

    def _denominator(self, group: str) -> int:
        return fixed_denominator(group, self._config, sites=self._sites)


def fixed_denominator(group: str, config: PrivacyConfig, *, sites: int) -> int:
    """Return what the sum of a group is divided by, whoever took part; `sites` is for groups that `config.holders` does not name."""
    return config.holders.get(_sent_as(group), sites)


def _sent_as(group: str) -> str:
    """Return the group that a row of the segmentation head travels in."""
    return f"head.{Task.SEGMENTATION}" if group in REGION_ROWS else group
