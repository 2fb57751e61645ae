"""Which sums a site has helped to open: of one question, one set of sites.

Two sums over sets that differ by one site would uncover that site's update by subtraction, and a round that is tried again is trained to
the very same update. A site therefore remembers, per run, round and group, whose sum it has helped to open and for which question, and
withholds its shares for any other; the same sum may be opened again, for it says nothing new. With a threshold t of n, two sets of t sites
have 2 t - n sites in common: fewer false ones among them cannot bring both sums about.

Where sums carry noise, every opening is a release that the privacy budget pays for, so of a private round one attempt is opened and no
other, not even over the same sites. What a site's own update can have been released in are then the rounds for which it has left, whether
or not this site was asked to open them: those are counted against the budget.
"""

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field

from gmmas_schema.base import FrozenModel
from strategies.secure.keys import digest

WHOLE_ROUND: Final = ""
"""In place of a group: the question of a private round."""

Round = Annotated[int, Field(ge=1)]


class LedgerDocument(FrozenModel):
    """The ledger as it is kept, about 2 kB a round.

    Attributes:
        opened: {run: {round: {group: digest of the question and the sites behind the sum}}}.
        released: rounds of each run for which this site's update has left with noise on it, under masks.
        promised: digest of the clip, the noise and the budget that each such run began with.
    """

    opened: dict[str, dict[Round, dict[str, str]]] = Field(default_factory=dict)
    released: dict[str, tuple[Round, ...]] = Field(default_factory=dict)
    promised: dict[str, str] = Field(default_factory=dict)


class OpenedSums:
    """The ledger of a site.

    Args:
        document: what was kept before.
    """

    def __init__(self, document: LedgerDocument | None = None) -> None:
        document = document or LedgerDocument()
        self._opened = {run: {n: dict(sums) for n, sums in rounds.items()} for run, rounds in document.opened.items()}
        self._released = {run: set(rounds) for run, rounds in document.released.items()}
        self._promised = dict(document.promised)

    def admit(self, run: str, number: int, *, question: str, sums: Mapping[str, tuple[str, ...]], once: bool = False) -> frozenset[str]:
        """Note the sums that are about to be opened; returns the groups that must be withheld.

        Args:
            run: identifier of the run.
            number: of the round.
            question: digest of what was asked (Terms.question).
            sums: sites behind each group's sum.
            once: one question a round is answered at all, whatever the groups: the clip of a private round is over those of one attempt.
        """
        known = self._opened.setdefault(run, {}).setdefault(number, {})
        if once and known.setdefault(WHOLE_ROUND, question) != question:
            return frozenset(sums)
        asked = {group: digest("opened", question, *sites).hex() for group, sites in sums.items()}
        return frozenset(group for group, entry in asked.items() if known.setdefault(group, entry) != entry)

    def release(self, run: str, number: int, *, promise: str) -> None:
        """Note that a private update is about to leave. The others open one sum of it in this round, so it is one release however often.

        Args:
            run: identifier of the run.
            number: of the round.
            promise: digest of the run's clip, noise and budget.
        """
        self._released.setdefault(run, set()).add(number)
        self._promised.setdefault(run, promise)

    def promise(self, run: str) -> str | None:
        """Return the digest of the clip, the noise and the budget that a run began with; None where nothing has left in it."""
        return self._promised.get(run)

    def releases(self, run: str, *, with_round: int) -> int:
        """Return the private rounds of a run that this site's updates have left in, and this one."""
        return len(self._released.get(run, set()) | {with_round})

    def document(self) -> LedgerDocument:
        """Return the ledger as it is to be kept, before any share, or any noisy update, leaves the site."""
        released = {run: tuple(sorted(rounds)) for run, rounds in self._released.items()}
        return LedgerDocument(opened=self._opened, released=released, promised=self._promised)
