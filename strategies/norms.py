"""How far a reply moved each group of tensors, and how far is too far.

    n_k,g = || theta_k,g - theta_g ||_2                         over all tensors of group g
    refused where n_k,g > max(c median_j n_j,g, s r_g),         r_g = sqrt(d_g) sum_s lr_s,   d_g values in the group,   s REACH_SLACK

An update that is scaled up to outweigh the others (Bagdasaryan et al., "How To Backdoor Federated Learning", AISTATS 2020; norm bounding:
Sun et al., "Can You Really Backdoor Federated Learning?", 2019) shows in its length and nowhere else. The median is that of the group's
holders in this round; with fewer than three of them that of the last rounds' accepted norms; without those, c r_g is the limit.

r_g is the way Adam can go in a round: no value moves much farther than the step size in a step. Nobody within s r_g is ever refused, so a
group of few values (a gate, a task's log-variance), whose norms are small by chance now and then, costs no honest site its round.

Anchors are sums over patients and no update: their size is that of the longest mean of a prototype's patients, whatever classes a site has
and how many patients. They have no reach.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.groups import group_of
from strategies.anchors import COUNTS, SUMS

Float32 = NDArray[np.float32]
Norms = Mapping[str, float]
"""By group."""

FEWEST_HOLDERS: Final = 3
"""Of two, each is as far from their median as the other."""
HISTORY_ROUNDS: Final = 5
REACH_SLACK: Final = 1.2
"""A value whose gradient grows moves a little farther than the step size; honest parts came to 1.03 of their reach (decision 9)."""
_BLOCK: Final = 1 << 16


def names_by_group(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of each group, rows of a head that is averaged in parts included, in the order they come in."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(group_of(name), []).append(name)
    return found


def squared_distance(value: Float32, reference: Float32) -> float:
    """Return the squared L2 norm of a tensor's update, in float64; the same bits whatever else runs."""
    flat, base = value.reshape(-1), reference.reshape(-1)
    parts = []
    for start in range(0, flat.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        difference = flat[part].astype(np.float64) - base[part]
        parts.append(float(np.sum(np.square(difference))))
    return math.fsum(parts)


def squared_length(value: Float32) -> float:
    """Return the squared L2 norm of a tensor, in float64."""
    return squared_distance(value, np.zeros_like(value))


def update_norms(tensors: Mapping[str, Float32], reference: Mapping[str, Float32]) -> dict[str, float]:
    """Return how far a reply moved each of its groups; for anchors the length of their longest mean.

    Args:
        tensors: finite tensors of a reply, whole groups.
        reference: the model that the site received.
    """
    norms: dict[str, float] = {}
    for group, names in names_by_group(tensors).items():
        if group == "anchors":
            means_KPC = tensors[SUMS].astype(np.float64) / np.maximum(tensors[COUNTS], 1)[..., None]
            norms[group] = float(np.linalg.norm(means_KPC, axis=-1).max(initial=0.0))
        else:
            norms[group] = math.sqrt(math.fsum(squared_distance(tensors[name], reference[name]) for name in names))
    return norms


def group_reach(reference: Mapping[str, Float32], *, way: float) -> dict[str, float]:
    """Return how far an honest round can move each group.

    Args:
        reference: the model.
        way: sum of the round's step sizes.
    """
    sizes = {group: sum(reference[name].size for name in names) for group, names in names_by_group(reference).items()}
    return {group: 0.0 if group == "anchors" else way * math.sqrt(size) for group, size in sizes.items()}


@dataclass(frozen=True)
class NormLimit:
    """What the norms of a round are compared with.

    Attributes:
        multiple: c; None refuses nothing.
        reach: r per group.
        history: accepted norms of earlier rounds by site, oldest first; the last HISTORY_ROUNDS count.
    """

    multiple: float | None
    reach: Norms = field(default_factory=dict)
    history: Sequence[Mapping[str, Norms]] = ()

    def typical(self, norms: Mapping[str, Norms]) -> dict[str, float]:
        """Return the norm that is usual in each group; a group about which nothing is known is left out.

        Args:
            norms: of this round by site.
        """
        groups = sorted({group for own in norms.values() for group in own})
        found: dict[str, float] = {}
        for group in groups:
            values = [own[group] for own in norms.values() if group in own]
            if len(values) < FEWEST_HOLDERS:
                values = [own[group] for past in self.history[-HISTORY_ROUNDS:] for own in past.values() if group in own]
            if values:
                found[group] = median(values)
        return found

    def refusals(self, norms: Mapping[str, Norms]) -> dict[str, ProtocolError]:
        """Return why replies are refused, by site; the worst group is named."""
        if self.multiple is None:
            return {}
        typical = self.typical(norms)
        refused: dict[str, ProtocolError] = {}
        for site, own in sorted(norms.items()):
            limits = {group: self._limit(group, typical.get(group)) for group in own}
            over = {group: norm / limits[group] for group, norm in own.items() if norm > limits[group]}
            if over:
                group = max(over, key=lambda name: (over[name], name))
                refused[site] = self._refusal(site, group, own[group], limits[group], typical.get(group))
        return refused

    def _limit(self, group: str, typical: float | None) -> float:
        assert self.multiple is not None
        reach = self.reach.get(group, 0.0)
        if typical is None:
            return self.multiple * reach if reach > 0 else math.inf
        return max(self.multiple * typical, REACH_SLACK * reach)

    def _refusal(self, site: str, group: str, norm: float, limit: float, typical: float | None) -> ProtocolError:
        usual = f"the median is {typical:.3g}" if typical is not None else "nothing to compare with yet"
        return ProtocolError(
            f"refused for the size of its update of {group}",
            where=f"site {site}",
            got=f"norm {norm:.3g}",
            expected=f"at most {limit:.3g} ({usual})",
            remedy="look at the site's training: its update diverged, or its software differs",
            code=ReasonCode.REPLY_REFUSED,
        )
