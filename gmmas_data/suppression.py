"""Counts that may leave a site: small ones withheld, and enough others with them that no withheld one can be computed.

A count below 11 is withheld (primary suppression). The counts hang together (rows and columns add up to margins), so what is withheld could
be subtracted from what is published. An attacker who knows all published counts and all sums knows of a withheld count x the interval

    [min x, max x]  subject to  total = sum of parts for every sum,  every count >= the least that anybody knows of it, mostly 0

which is a linear programme. A small count is safe if its interval reaches from that least to 10 or further: then it might be any small
count.
Counts are withheld, the smallest neighbour first, until all small ones are safe (complementary suppression; Willenborg and de Waal,
"Elements of Statistical Disclosure Control", 2001, chapter 4). In the end everything may be withheld; that is always safe.

Limits: an attacker who knows the rule by which neighbours are chosen may narrow an interval a little; two audits of a cohort that grew by
one patient differ by that patient, so a site sends an aggregate once per cohort.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.optimize import linprog

from gmmas_schema.audit import SMALLEST_COUNT

_UNBOUNDED = 3
"""Status of scipy's linprog."""


@dataclass(frozen=True)
class Sum:
    """total = sum of parts, by cell name."""

    total: str
    parts: tuple[str, ...]


def suppress(
    counts: Mapping[str, int], sums: Sequence[Sum], *, hidden: frozenset[str] = frozenset(), least: Mapping[str, int] = MappingProxyType({})
) -> dict[str, int | None]:
    """Return the counts that may be told; None for those withheld.

    Args:
        counts: every cell, margins among them.
        sums: how they hang together; everything that anybody knows about them.
        hidden: cells that are never told, but must be protected if they are small (those without a sequence, for example).
        least: what a cell's name alone says that it has at least, where that is more than 0.
    """
    withheld = {name for name, count in counts.items() if count < SMALLEST_COUNT} | set(hidden)
    small = sorted(name for name, count in counts.items() if count < SMALLEST_COUNT)
    settled: set[str] = set()
    while True:
        exposed = next((name for name in small if name not in settled and not _is_safe(name, counts, sums, withheld, least)), None)
        if exposed is None:
            if len(settled) == len(small):
                break
            settled.update(small)
            continue
        # More withheld counts only widen intervals, so what was safe stays safe.
        settled.update(small[: small.index(exposed)])
        neighbour = _next_to_withhold(exposed, counts, sums, withheld)
        if neighbour is None:  # everything is withheld: what is left to know, the sums alone say of any cohort
            break
        withheld.add(neighbour)
    return {name: None if name in withheld else count for name, count in counts.items() if name not in hidden}


def interval(
    name: str, counts: Mapping[str, int], sums: Sequence[Sum], withheld: set[str], least: Mapping[str, int] = MappingProxyType({})
) -> tuple[float, float]:
    """Return what an attacker knows of a withheld count: its least and its greatest possible value; arguments as of suppress."""
    unknown, touching = _component(name, sums, withheld)
    lowest = least.get(name, 0)
    if not touching:
        return float(lowest), np.inf
    place = {cell: number for number, cell in enumerate(sorted(unknown))}
    bounds = [(least.get(cell, 0), None) for cell in place]
    matrix, right = np.zeros((len(touching), len(place))), np.zeros(len(touching))
    for row, one in enumerate(touching):
        for cell, sign in ((one.total, 1.0), *((part, -1.0) for part in one.parts)):
            if cell in place:
                matrix[row, place[cell]] += sign
            else:
                right[row] -= sign * counts[cell]
    if len(touching) == 1 and one.total not in place:
        rest = -right[0]  # parts of one known sum
        return (lowest, rest - sum(low for low, _ in bounds) + lowest) if len(place) > 1 else (rest, rest)
    cost = np.zeros(len(place))
    cost[place[name]] = 1.0
    low, high = (linprog(sign * cost, A_eq=matrix, b_eq=right, bounds=bounds, method="highs") for sign in (1.0, -1.0))
    return float(low.fun), np.inf if high.status == _UNBOUNDED else float(-high.fun)


def _component(name: str, sums: Sequence[Sum], withheld: set[str]) -> tuple[set[str], list[Sum]]:
    """Return the withheld cells that hang together with one, and the sums that tie them."""
    members = [({one.total, *one.parts} & withheld, one) for one in sums]
    together = {name}
    while grown := {cell for cells, _ in members if cells & together for cell in cells} - together:
        together |= grown
    return together, [one for cells, one in members if cells & together]


def _is_safe(name: str, counts: Mapping[str, int], sums: Sequence[Sum], withheld: set[str], least: Mapping[str, int]) -> bool:
    low, high = interval(name, counts, sums, withheld, least)
    return low < least.get(name, 0) + 1e-6 and high > SMALLEST_COUNT - 1 - 1e-6


def _next_to_withhold(exposed: str, counts: Mapping[str, int], sums: Sequence[Sum], withheld: set[str]) -> str | None:
    """Return the smallest published count of the sums that pin down what hangs together with the exposed one; None without any.

    A sum with a single withheld cell tells that cell, so those come first.
    """
    _, tied = _component(exposed, sums, withheld)
    touching = [{one.total, *one.parts} for one in tied]
    pinning = [cells for cells in touching if len(cells & withheld) == 1]
    # A margin of many sums says more than a cell of few.
    uses = Counter(cell for one in sums for cell in (one.total, *one.parts))
    for reach in (pinning, touching, [set(counts)]):
        if near := set().union(*reach) - withheld:
            return min(near, key=lambda cell: (uses[cell], counts[cell], cell))
    return None
