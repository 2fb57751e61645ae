"""What a site remembers of a round: in which company its update has left under masks, and which sums it has helped to open.

Two sums over sets that differ by one site would uncover that site's update by subtraction, and a round that is tried again is trained to
the very same update. So a site
- lets its masked update go in one company a round: the list N of n invited sites, and the threshold t of them (Terms.company). An attempt
  at the same round with another list or another threshold gets no second masked update;
- opens one sum of a group a round: for one question and over one set of sites. It withholds its shares for any other; the same sum may be
  opened again, for it says nothing new.

Claim. Let c of the n invited sites help the coordinator, c < 2 t - n. Then the sums of a group that are opened in a round are, two by two,
over sets without an honest site in common, or the same sum; and each is over at least `minimum_holders` sites. So their differences say no
more than they do.

Proof. (1) One attempt, and an honest site v. An honest site gives shares of v's secrets under one view (roster, who masked, who survived)
that t sites have signed. The honest ones of these, t - c at least, have opened a box that v sealed for its one roster, and sign once. Two
such views would need 2 (t - c) of the n - c honest sites, that is c >= 2 t - n. So there is one: if it calls v dropped, v's mask key may
come out and its seeds do not; if it calls v a survivor, its seeds and not its key, and by their own signatures all survivors masked among
the same sites. Then every mask between v and an honest holder is left in the sum, unless the other's key came out because it dropped, or
its vector, with its own mask taken off, is in the sum: what is learned is the sum over all holders that survived. (2) Two attempts in which
a group was opened over S and over S', with an honest site v in both. Its update has left in both, so by its own memory both had the same N
and t. Each opening took shares of t sites of N, t - c of them honest; two such sets among n - c sites have one in common. That site opened
both, so by its memory the question is one and S = S'. (3) Nothing else ties attempts: masks, seeds and shares are drawn anew.

Without the first rule (2) has other numbers for each attempt, t and t' among all n'' sites of both, and holds for c < t + t' - n'' only:
after three of four, two of three leave 3 + 2 - 4 = 1, and a single helper uncovers whoever is gone. Hence its price: once masked updates
have left, a round is finished by t of the sites that it began with, or not at all. A threshold for fewer sites, and sites that came since,
wait for the next round.

Where sums carry noise, every opening is a release that the privacy budget pays for, so of a private round one attempt is opened and no
other, not even over the same sites. What a site's own update can have been released in are then the rounds for which it has left, whether
or not this site was asked to open them: those are counted against the budget.
"""

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field

from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import ProtocolError, ReasonCode
from strategies.secure.keys import digest

WHOLE_ROUND: Final = ""
"""In place of a group: the question of a private round."""

Round = Annotated[int, Field(ge=1)]


class LedgerDocument(FrozenModel):
    """The ledger as it is kept, about 2 kB a round.

    Attributes:
        masked: {run: {round: digest of the invited sites and the threshold under which this site's update has left}}.
        opened: {run: {round: {group: digest of the question and the sites behind the sum}}}.
        released: rounds of each run for which this site's update has left with noise on it, under masks.
        promised: digest of the clip, the noise and the budget that each such run began with.
    """

    masked: dict[str, dict[Round, str]] = Field(default_factory=dict)
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
        self._masked = {run: dict(rounds) for run, rounds in document.masked.items()}
        self._opened = {run: {n: dict(sums) for n, sums in rounds.items()} for run, rounds in document.opened.items()}
        self._released = {run: set(rounds) for run, rounds in document.released.items()}
        self._promised = dict(document.promised)

    def check_company(self, run: str, number: int, *, company: str) -> None:
        """Refuse an attempt at a round in which this site's update has left in another company.

        Args:
            run: identifier of the run.
            number: of the round.
            company: digest of the invited sites and the threshold (Terms.company).

        Raises:
            ProtocolError: it has (code TRUST).
        """
        if self._masked.get(run, {}).get(number, company) != company:
            raise ProtocolError(
                "this site's update of the round has left for other sites, or under another threshold",
                where=f"run {run:.60}, round {number}",
                got="another list of invited sites, or another threshold, than in the attempt before",
                expected="the same in every attempt of a round: two sums over other sites would tell a single update",
                remedy="the coordinator tries the round again with the sites it began with; others take part from the next round on",
                code=ReasonCode.TRUST,
            )

    def leave(self, run: str, number: int, *, company: str) -> None:
        """Note in which company a masked update is about to leave, after check_company()."""
        self._masked.setdefault(run, {})[number] = company

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
        """Return the ledger as it is to be kept, before any share, or any masked update, leaves the site."""
        released = {run: tuple(sorted(rounds)) for run, rounds in self._released.items()}
        return LedgerDocument(masked=self._masked, opened=self._opened, released=released, promised=self._promised)
