"""Which sums a site has helped to open: of one question, one set of sites.

Two sums over sets that differ by one site would uncover that site's update by subtraction, and a round that is tried again is trained to
the very same update. A site therefore remembers, per run, round and group, whose sum it has helped to open and for which question, and
withholds its shares for any other; the same sum may be opened again, for it says nothing new. With a threshold t of n, two sets of t sites
have 2 t - n sites in common: fewer false ones among them cannot bring both sums about.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from gmmas_schema.base import FrozenModel
from strategies.secure.keys import digest


class LedgerDocument(FrozenModel):
    """The ledger as it is kept: {run: {round: {group: digest of the question and the sites behind the sum}}}; about 2 kB a round."""

    opened: dict[str, dict[Annotated[int, Field(ge=1)], dict[str, str]]] = Field(default_factory=dict)


class OpenedSums:
    """The ledger of a site.

    Args:
        document: what was kept before.
    """

    def __init__(self, document: LedgerDocument | None = None) -> None:
        self._opened = {run: {n: dict(sums) for n, sums in rounds.items()} for run, rounds in (document or LedgerDocument()).opened.items()}

    def admit(self, run: str, number: int, *, question: str, sums: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
        """Note the sums that are about to be opened; returns the groups that must be withheld.

        Args:
            run: identifier of the run.
            number: of the round.
            question: digest of what was asked (Terms.question).
            sums: sites behind each group's sum.
        """
        known = self._opened.setdefault(run, {}).setdefault(number, {})
        asked = {group: digest("opened", question, *sites).hex() for group, sites in sums.items()}
        return frozenset(group for group, entry in asked.items() if known.setdefault(group, entry) != entry)

    def document(self) -> LedgerDocument:
        """Return the ledger as it is to be kept, before any share leaves the site."""
        return LedgerDocument(opened=self._opened)
