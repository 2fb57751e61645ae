"""Which way a reply went, against the way of the others: for finding updates that point backwards.

    u_k,g = (theta_k,g - theta_g) / n_k,g,     s_k,g = sum_{j != k} u_j,g
    c_k = sum_g n_k,g^2 <u_k,g, s_k,g> / |s_k,g|  /  sum_g n_k,g^2

a mean over the groups that a site shares with at least three others, weighted by how much of its update lies there. Each other holder
counts the same however long its update is. Comparing directions: Blanchard et al., NeurIPS 2017, begun by distances; by cosines: Cao et
al., "FLTrust", NDSS 2021; by cosines and over the rounds: Fung, Yoon and Beschastnikh, "FoolsGold", RAID 2020.

Once the model has learned the most, honest updates stand nearly across each other (cosines of -.1 to .2), and a single round tells noise.
So a site is refused by the mean of its last rounds. Sites with other sequences, labels or scanners go other ways honestly: the limit
belongs below 0. Where half of the sites would be refused there is no direction that anybody could be against, and nobody is.

With all sums S = sum_j u_j at hand, s_k = S - u_k: one pass over the spool, block by block.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.errors import ProtocolError, ReasonCode
from strategies.norms import Norms, names_by_group
from strategies.spool import Spool

Float32 = NDArray[np.float32]

FEWEST_HOLDERS: Final = 4
"""Among three, one that turns back leaves the other two with a mean direction of nothing."""
MEMORY_ROUNDS: Final = 8
"""Rounds whose cosines are averaged, this one among them."""


def group_cosines(
    spool: Spool, group: Collection[str], sites: Collection[str], *, reference: Mapping[str, Float32], norms: Mapping[str, float]
) -> dict[str, float]:
    """Return each site's cosine with the mean direction of the others in one group.

    Args:
        spool: the replies.
        group: names of the group's tensors.
        sites: holders with an update that is not zero, at least two.
        reference: the model that they received.
        norms: of their updates of this group.
    """
    order = sorted(sites)
    length_S = np.array([norms[site] for site in order])
    along_S, total = np.zeros(len(order)), 0.0
    for name in group:
        flat = reference[name].reshape(-1)
        for part, block_SN in spool.blocks(name, order):
            unit_SN = (block_SN.astype(np.float64) - flat[part]) / length_S[:, None]
            sum_N = unit_SN.sum(axis=0)
            along_S += (unit_SN * sum_N).sum(axis=1)
            total += float(np.sum(np.square(sum_N)))
    others_S = np.sqrt(np.maximum(total - 2 * along_S + 1, 0.0))
    return {site: float((along - 1) / others) if others > 0 else 0.0 for site, along, others in zip(order, along_S, others_S, strict=True)}


def site_cosines(spool: Spool, *, reference: Mapping[str, Float32], norms: Mapping[str, Norms]) -> dict[str, float]:
    """Return the cosine of each site that has enough company; the others cannot be judged and are left out.

    Args:
        spool: the replies.
        reference: the model that the sites received.
        norms: of the replies to be judged, by site and counted group.
    """
    above: dict[str, list[float]] = {}
    below: dict[str, list[float]] = {}
    for group, names in names_by_group(reference).items():
        holders = [site for site, own in norms.items() if own.get(group, 0.0) > 0]
        if len(holders) < FEWEST_HOLDERS or group == "anchors":
            continue
        own = {site: norms[site][group] for site in holders}
        for site, cosine in group_cosines(spool, names, holders, reference=reference, norms=own).items():
            above.setdefault(site, []).append(own[site] ** 2 * cosine)
            below.setdefault(site, []).append(own[site] ** 2)
    return {site: math.fsum(above[site]) / math.fsum(below[site]) for site in sorted(above)}


def mean_cosines(cosines: Mapping[str, float], *, earlier: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean cosine of each site that is judged in this round, over it and the rounds before.

    Args:
        cosines: of this round.
        earlier: of the rounds before, oldest first, of refused replies too; the last MEMORY_ROUNDS - 1 count, where a site was judged.
    """
    rounds = [*earlier[1 - MEMORY_ROUNDS :], cosines]
    return {site: fmean(each[site] for each in rounds if site in each) for site in cosines}


def refuse_opposed(means: Mapping[str, float], *, limit: float) -> dict[str, ProtocolError]:
    """Return why replies are refused, by site; none where it would be every other one.

    Args:
        means: of `mean_cosines`.
        limit: the least that passes.
    """
    opposed = {site: mean for site, mean in means.items() if mean < limit}
    if 2 * len(opposed) >= len(means):
        return {}
    return {
        site: ProtocolError(
            "refused for the direction of its update",
            where=f"site {site}",
            got=f"cosine {mean:.3f} with the mean of the others, in the mean of its last {MEMORY_ROUNDS} rounds or fewer",
            expected=f"at least {limit:g}",
            remedy="compare the site's labels and preprocessing with the others'",
            code=ReasonCode.REPLY_REFUSED,
        )
        for site, mean in opposed.items()
    }
