"""One round with defences: replies are spooled to the disk, judged together, and combined.

    1. norms        too long for the group: refused                          strategies.norms
    2. directions   for rounds against the others, if asked for: refused      strategies.cosine
    3. lengths      clipped, if asked for: theta + f (theta_k - theta)        f = min(1, limit / n_k,g)
    4. combining    weighted mean | median | trimmed mean among holders       strategies.order_statistics

A mean is added up while replies come, and what is refused in the end is subtracted again, which is exact (strategies.aggregation): the
usual round, with nobody refused, reads nothing back. Memory is that of a block over all sites; the disk holds one reply a site.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.groups import group_of
from gmmas_schema.robustness import FixedClip, MeanRule, RobustnessConfig
from strategies.aggregation import ExactSum, RunningMean, Verdict, check_magnitude
from strategies.cosine import mean_cosines, refuse_opposed, site_cosines
from strategies.norms import NormLimit, update_norms
from strategies.order_statistics import Combining, choose_combining, median, trimmed_mean
from strategies.spool import Spool

Float32 = NDArray[np.float32]


class RobustAggregate:
    """The aggregate of a round under a RobustnessConfig (strategies.aggregation.Aggregate).

    Args:
        tensors: the current global model.
        config: the defences.
        spool: an empty one for this round; removed by `close`.
        limit: what norms are compared with.
        directions: cosines of the sites in the rounds before, oldest first.
    """

    def __init__(
        self,
        tensors: Mapping[str, Float32],
        *,
        config: RobustnessConfig,
        spool: Spool,
        limit: NormLimit,
        directions: Sequence[Mapping[str, float]] = (),
    ) -> None:
        self._current, self._config, self._spool, self._limit, self._directions = tensors, config, spool, limit, directions
        self._mean = RunningMean(tensors) if isinstance(config.combine, MeanRule) else None
        self._weights: dict[str, dict[str, float]] = {}
        self._norms: dict[str, dict[str, float]] = {}
        self._factors: dict[str, dict[str, float]] = {}
        self._combining: dict[str, Combining] = {}

    def fold(self, site: str, tensors: Mapping[str, Float32], *, weights: Mapping[str, float]) -> None:
        """Spool a checked reply, and add it to the mean.

        Raises:
            ProtocolError: the site was folded in before, or its values are too large to be added exactly.
            FederationError: the disk is full.
        """
        counted = {name: value for name, value in tensors.items() if weights.get(group_of(name), 0.0) > 0}
        if self._mean is not None:
            self._mean.fold(site, tensors, weights=weights)
        else:
            self._check(site, counted, weights)
        self._spool.write(site, counted)
        self._weights[site] = {group_of(name): weights[group_of(name)] for name in counted}
        self._norms[site] = update_norms(counted, self._current)

    def settle(self) -> Verdict:
        """Refuse and clip by what all replies together show."""
        refused = self._limit.refusals(self._norms)
        self._drop(refused)
        cosines: dict[str, float] = {}
        if self._config.cosine_limit is not None:
            cosines = site_cosines(self._spool, reference=self._current, norms=self._norms)
            opposed = refuse_opposed(mean_cosines(cosines, earlier=self._directions), limit=self._config.cosine_limit)
            self._drop(opposed)
            refused |= opposed
        self._factors = self._shorten()
        self._refold()
        holders = {group: self._holders(group) for own in self._weights.values() for group in own}
        # Sums and counts of anchors add up to something; their medians do not.
        self._combining = {
            group: choose_combining(MeanRule() if group == "anchors" else self._config.combine, holders=len(sites))
            for group, sites in sorted(holders.items())
        }
        combined = {group: combining.reason for group, combining in self._combining.items() if combining.reason}
        return Verdict(refused=refused, norms=dict(self._norms), cosines=cosines, clipped=self._factors, combined=combined)

    def result(self) -> dict[str, Float32]:
        """Return the joint model; `settle` comes first."""
        if self._mean is not None:
            return self._mean.result()
        return {name: self._combine(name, value) if group_of(name) in self._combining else value for name, value in self._current.items()}

    def shares(self) -> dict[str, dict[str, float]]:
        """Return each site's share of the votes in every group: of the weights, or of the heads where a median is taken."""
        totals: dict[str, float] = {}
        votes: dict[str, dict[str, float]] = {}
        for site, own in sorted(self._weights.items()):
            votes[site] = {group: 1.0 if self._counts_heads(group) else weight for group, weight in own.items()}
            for group, vote in votes[site].items():
                totals[group] = totals.get(group, 0.0) + vote
        return {site: {group: vote / totals[group] for group, vote in own.items()} for site, own in votes.items()}

    def close(self) -> None:
        """Delete the spool."""
        self._spool.remove()

    def _check(self, site: str, counted: Mapping[str, Float32], weights: Mapping[str, float]) -> None:
        if site in self._weights:
            raise ProtocolError(
                "a reply cannot be folded in", where=site, got="another one", expected="one a site", code=ReasonCode.REPLY_REFUSED
            )
        for name, value in counted.items():
            check_magnitude(site, name, value, weights[group_of(name)])

    def _drop(self, refused: Mapping[str, ProtocolError]) -> None:
        """Take refused replies out of everything."""
        for site in refused:
            if self._mean is not None:
                self._mean.withdraw(site, self._read(site))
            del self._weights[site], self._norms[site]

    def _shorten(self) -> dict[str, dict[str, float]]:
        """Return the factor by which each update that is too long is shortened."""
        clip = self._config.clip
        if clip is None:
            return {}
        typical = self._limit.typical(self._norms)
        factors: dict[str, dict[str, float]] = {}
        for site, own in self._norms.items():
            if isinstance(clip, FixedClip):
                limits = dict.fromkeys(own, clip.norm)
            else:
                limits = {group: clip.multiple * typical[group] for group in own if group in typical}
            # Anchors are no update: they have no length to cut.
            over = {group: limit / own[group] for group, limit in limits.items() if own[group] > limit and group != "anchors"}
            if over:
                factors[site] = over
        return factors

    def _refold(self) -> None:
        """Put clipped replies into the mean in the place of what came."""
        if self._mean is None:
            return
        for site in self._factors:
            came = self._read(site)
            self._mean.withdraw(site, came)
            clipped = {name: self._clip(site, name, value) for name, value in came.items()}
            self._mean.fold(site, clipped, weights=self._weights[site])

    def _clip(self, site: str, name: str, value: Float32, part: slice = slice(None)) -> Float32:
        """Return (part of) a flat tensor of a site, shortened where its group is."""
        factor = self._factors.get(site, {}).get(group_of(name))
        if factor is None:
            return value
        base = self._current[name].reshape(-1)[part].astype(np.float64)
        shortened: Float32 = (base + factor * (value - base)).astype(np.float32)
        return shortened

    def _combine(self, name: str, value: Float32) -> Float32:
        """Return one tensor of the joint model, from the spool."""
        group = group_of(name)
        combining, sites = self._combining[group], self._holders(group)
        if combining.kind == "mean":
            total = ExactSum(value.size)
            for site in sites:
                total.add(self._clip(site, name, self._spool.read(site, name)), weight=self._weights[site][group])
            return total.divide(float(np.sum([self._weights[site][group] for site in sites]))).reshape(value.shape)
        weights_S = np.array([self._weights[site][group] for site in sites])
        joint = np.empty(value.size, np.float32)
        for part, block_SN in self._spool.blocks(name, sites):
            for row, site in zip(block_SN, sites, strict=True):
                row[:] = self._clip(site, name, row, part)
            joint[part] = median(block_SN) if combining.kind == "median" else trimmed_mean(block_SN, weights_S, drop=combining.drop)
        return joint.reshape(value.shape)

    def _counts_heads(self, group: str) -> bool:
        return group in self._combining and self._combining[group].kind == "median"

    def _holders(self, group: str) -> tuple[str, ...]:
        return tuple(sorted(site for site, own in self._weights.items() if group in own))

    def _read(self, site: str) -> dict[str, Float32]:
        """Return what a site sent and counts, one-dimensional."""
        names = [name for name in self._current if group_of(name) in self._weights[site]]
        return {name: self._spool.read(site, name) for name in names}
