"""Which hospitals' updates differ from the others': how long, which way, how often shortened or refused.

    rho_k = median over groups g of  n_k,g / median_j n_j,g          groups with at least three holders,
                                                                             without anchors and log-variances

n_k,g is the length of hospital k's update of group g (strategies.norms), so that hospitals which hold different parts of the network can be
compared. A hospital is flagged by the median of its last rounds, as one round may be chance. Between honest phantom hospitals of unlike
data, rho of single rounds stayed within 0.74 and 1.55 (32 rounds of `gmmas demo`).

A flag is a question to the hospital, no verdict: other scanners and other labels make other updates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final

from server.records import Outcome, RoundRecord, SiteRecord
from strategies.norms import FEWEST_HOLDERS

LOOKED_AT: Final = 5
"""Rounds that are shown."""
SETTLED: Final = 3
"""Rounds whose median decides on a flag; before there are so many, lengths raise none."""
NO_UPDATES: Final = ("anchors", "uncertainty")
"""Groups that are sums over patients, or of one value, whose length is chance."""
LONG: Final = 2.0
SHORT: Final = 0.5


@dataclass(frozen=True)
class Drift:
    """One hospital against the others.

    Attributes:
        lengths: rho in the last rounds, oldest first; None where it could not be told.
        length: median of the last SETTLED of them.
        cosine: with the mean direction of the others, the mean of these rounds.
        shortened: in how many of these rounds its update was shortened.
        refused: in how many its reply was refused.
        flags: what is to be looked at, in words.
    """

    site: str
    lengths: tuple[float | None, ...]
    length: float | None
    cosine: float | None
    shortened: int
    refused: int
    flags: tuple[str, ...]


def drift_of(records: Sequence[RoundRecord], *, cosine_limit: float | None = None) -> tuple[Drift, ...]:
    """Return every hospital of the last rounds, by name.

    Args:
        records: finished rounds, oldest first.
        cosine_limit: `robustness.cosine_limit`; without one a cosine below 0 is flagged.
    """
    shown = records[-LOOKED_AT:]
    ratios = [length_ratios(record) for record in shown]
    names = sorted({site.site for record in shown for site in record.sites})
    return tuple(_drift(name, shown, ratios, 0.0 if cosine_limit is None else max(cosine_limit, 0.0)) for name in names)


def length_ratios(record: RoundRecord) -> dict[str, float]:
    """Return rho of each hospital in one round; those that cannot be compared are left out."""
    groups: dict[str, dict[str, float]] = {}
    for site in record.sites:
        for group, norm in site.norms.items():
            groups.setdefault(group, {})[site.site] = norm
    found: dict[str, list[float]] = {}
    for group, holders in groups.items():
        middle = median(holders.values())
        if len(holders) < FEWEST_HOLDERS or middle <= 0 or group.startswith(NO_UPDATES):
            continue
        for site_name, norm in holders.items():
            found.setdefault(site_name, []).append(norm / middle)
    return {name: median(own) for name, own in found.items()}


def _drift(name: str, records: Sequence[RoundRecord], ratios: Sequence[dict[str, float]], least_cosine: float) -> Drift:
    lengths = tuple(own.get(name) for own in ratios)
    known = [each for each in lengths if each is not None][-SETTLED:]
    length = median(known) if known else None
    mine = [site for record in records for site in record.sites if site.site == name]
    cosines = [site.cosine for site in mine if site.cosine is not None]
    cosine = fmean(cosines) if cosines else None
    shortened = sum(any(factor < 1 for factor in site.clipped.values()) for site in mine)
    refused = sum(site.outcome is Outcome.REFUSED for site in mine)
    settled = length if len(known) == SETTLED else None
    flags = tuple(_flags(mine, settled, cosine, shortened, refused, least_cosine))
    return Drift(name, lengths, length, cosine, shortened, refused, flags)


def _flags(
    mine: Sequence[SiteRecord], length: float | None, cosine: float | None, shortened: int, refused: int, least_cosine: float
) -> list[str]:
    flags = []
    if length is not None and length >= LONG:
        flags.append(f"its updates are {length:.1f} times as long as the others'")
    if length is not None and length <= SHORT:
        flags.append(f"its updates are {length:.2f} times as long as the others'")
    if cosine is not None and cosine < least_cosine:
        flags.append(f"its updates point away from the others' (mean cosine {cosine:.2f})")
    if shortened * 2 > len(mine) >= SETTLED:
        flags.append(f"its update was shortened in {shortened} of {len(mine)} rounds")
    if refused:
        flags.append(f"its reply was refused in {refused} of {len(mine)} rounds")
    return flags
