"""The coordinator's side of a secure round: what takes the sites' advertisements, and leads those sites through the phases to the sum.

It stands where a running mean of replies would (strategies.aggregation.Aggregate). The training request is phase 0: a report brings keys
in place of tensors. `settle` does phases 1 to 4, one message each way, and judges: a site that did not come through to its masked update is
not in the sum. Below the threshold no reply counts, and the round is tried again like one without a quorum, with the sites it began with
once masked updates have left (server.secure_company). Each phase is an event, so that whoever runs the federation sees who dropped out,
where and why.

With `privacy` the sum comes with the noise of all its sites (strategies.secure.noisy_sum). Its release is booked before anybody is asked
to open it.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from numpy.typing import NDArray

from gmmas_schema.errors import FederationError, ProtocolError, ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.federation import FederationConfig
from gmmas_schema.messages import SiteReport, TaskRequest
from gmmas_schema.secure import SECURE_MESSAGE, PhaseRequest, SecureTask
from gmmas_schema.strategy import PseudoTerms
from server.courier import Courier, Reply
from server.events import EventLog
from server.membership import Member
from server.records import Outcome
from server.secure_company import Companies, opened_elsewhere
from server.secure_keys import enrolled_key, openssh
from server.secure_terms import make_task
from strategies.aggregation import Verdict
from strategies.codec import size_bytes
from strategies.privacy import fixed_denominator
from strategies.secure.coordinator import CoordinatorHalf, SecureResult
from strategies.secure.documents import Advertisement, Terms, read
from strategies.secure.vectors import add_update
from strategies.secure_letters import read_phase_reply, write_phase
from strategies.weighting import as_averaged

logger = logging.getLogger(__name__)

Float32 = NDArray[np.float32]

_SHARE, _MASK, _AGREE, _UNMASK = 1, 2, 3, 4
_PHASES: Final = {_SHARE: "sharing keys", _MASK: "masking", _AGREE: "agreeing", _UNMASK: "unmasking"}


class SecureReplies:
    """The replies of one attempt at a round, summed unseen.

    Args:
        tensors: the current global model.
        config: of the run, with `secure`.
        courier: the way to the nodes.
        events: is told how each phase went.
        members: the sites that are there.
        companies: know which of them the round is for.
        number: of the round.
        attempt: 1-based.
        book: is called before the sites are asked to open the sum.

    Raises:
        FederationError: too few or too many sites for this attempt (code QUORUM).
        ConfigError: the settings do not fit even the sites that the run asks for.
    """

    def __init__(
        self,
        tensors: Mapping[str, Float32],
        *,
        config: FederationConfig,
        courier: Courier,
        events: EventLog,
        members: Iterable[Member],
        companies: Companies,
        number: int,
        attempt: int,
        book: Callable[[], None],
    ) -> None:
        assert config.secure is not None, "the run aggregates securely"
        self._whole, self._tensors = tensors, as_averaged(tensors, config.strategy)
        self._config, self._deadline_s = config, config.secure.phase_deadline_s
        self._courier, self._events, self._attempt, self._book = courier, events, attempt, book
        present = {member.site: member for member in members}
        self._companies, self._company = companies, companies.choose(present.values(), number, tensors=tensors)
        self._members = {site: present[site] for site in self._company.invited if site in present}
        self._reopened = False
        self._half: CoordinatorHalf | None = None
        self._terms: Terms | None = None
        self._result = SecureResult({}, {})
        self._refused: dict[str, ProtocolError] = {}
        self._advertised: list[str] = []
        self._traffic: dict[str, tuple[int, int]] = {}

    @property
    def members(self) -> tuple[Member, ...]:
        """The sites that are asked."""
        return tuple(self._members.values())

    @property
    def is_spent(self) -> bool:
        """Whether the sites keep the round closed for an earlier attempt of this run, whose sum is lost: the run goes on without it."""
        return self._reopened and self._result.is_withheld

    def task(self, request: TaskRequest, *, pseudo: PseudoTerms) -> SecureTask:
        """Begin the attempt; returns what is to go with the training request."""
        task, self._terms = make_task(self._config, request, self._whole, pseudo=pseudo, company=self._company, attempt=self._attempt)
        self._half = CoordinatorHalf(self._terms, self._identities())
        return task

    def admit(self, report: SiteReport, *, weights: Mapping[str, float]) -> None:
        """Take the report of a site that keeps its update until it is masked.

        Args:
            report: checked.
            weights: what the site counts by its own figures; it may advertise these groups.

        Raises:
            ProtocolError: no advertisement, one that cannot be trusted, or of other groups.
        """
        raw = report.secure.encode()
        held = set(read(raw, Advertisement, sites=len(self._company.invited), where=f"keys of {report.site}").seeds)
        allowed = {group for group, weight in weights.items() if weight > 0}
        if not held <= allowed:
            raise ProtocolError(
                "a site advertises other groups than its counts allow",
                where=f"site {report.site}",
                got=", ".join(sorted(held - allowed)),
                expected=", ".join(sorted(allowed)) or "none",
                remedy="run the same release of gmmas-fed on both sides",
                code=ReasonCode.REPLY_REFUSED,
            )
        self._in_progress.add_advertisement(report.site, raw)
        self._advertised.append(report.site)

    def fold(self, site: str, tensors: Mapping[str, Float32], *, weights: Mapping[str, float]) -> None:
        """Refuse tensors: in a secure round none travel.

        Raises:
            ProtocolError: always.
        """
        raise ProtocolError(
            "a secure round takes no tensors", where=site, got=f"{len(tensors)} tensors, {len(weights)} weights", expected="keys"
        )

    def settle(self) -> Verdict:
        """Do phases 1 to 4; sites that are not in the sum are refused, groups that stay as they were are named.

        Raises:
            FederationError: the sites have opened this round for another run of this name, or another copy of it (code TRUST).
        """
        try:
            self._result = self._lead()
        except FederationError as error:
            logger.warning("no secure sum: %s", error)
            failed = ProtocolError(
                error.what, where=error.where, got=error.got, expected=error.expected, remedy=error.remedy, code=error.code
            )
            self._refused = dict.fromkeys(self._advertised, failed) | self._refused
        if self._result.is_withheld and not self._reopened:
            raise opened_elsewhere(self._company.round, self._result.refused)
        kept = {group: f"unchanged: {reason}" for group, reason in self._result.refused.items()}
        return Verdict(refused=self._refused, combined=kept, traffic=self._traffic)

    def result(self) -> dict[str, Float32]:
        """Return the joint model: the current one plus the mean of the clipped updates, or their noisy sum over a fixed number."""
        moved = dict(self._tensors)
        for group, found in self._result.groups.items():
            moved |= add_update(self._tensors, group, found.mean_E * np.float32(len(found.sites) / self._divisor(group, found.sites)))
        return moved

    def shares(self) -> dict[str, dict[str, float]]:
        """Return equal shares of every opened group for its sites: the true ones are what nobody is to know."""
        shares: dict[str, dict[str, float]] = {}
        for group, found in self._result.groups.items():
            for site in found.sites:
                shares.setdefault(site, {})[group] = 1 / self._divisor(group, found.sites)
        return shares

    def close(self) -> None:
        """Let go of the running sums."""
        self._half = None

    @property
    def _in_progress(self) -> CoordinatorHalf:
        assert self._half is not None, "task() begins an attempt"
        return self._half

    def _divisor(self, group: str, sites: tuple[str, ...]) -> int:
        """Return the number of sites that a sum is divided by; a private one by none that follows from who answered."""
        private, fixed = self._config.privacy, self._config.quorum.sites
        return len(sites) if private is None else fixed_denominator(group, private, sites=fixed)

    def _lead(self) -> SecureResult:
        """Lead the sites through the phases and return the sums."""
        half = self._in_progress
        roster = half.roster()
        alive = self._exchange(_SHARE, dict.fromkeys(self._advertised, roster), half.add_shares)
        inboxes = half.inboxes()
        self._companies.note_masking(self._company)
        alive = self._exchange(_MASK, {site: inboxes[site] for site in alive}, half.add_masked)
        survivors = half.survivors()
        self._require_quorum(alive)
        # Whose masked update is in the sum counts, whether or not it answers from now on.
        dropped = dict(self._refused)
        alive = self._exchange(_AGREE, dict.fromkeys(alive, survivors), half.add_agreement)
        request = half.unmask_request()
        self._book()
        self._reopened = self._company.asked
        self._companies.note_opening(self._company.round)
        self._exchange(_UNMASK, dict.fromkeys(alive, request), half.add_unmasking)
        self._refused = dropped
        result = half.result()
        self._tell_opened(result)
        return result

    def _require_quorum(self, survivors: tuple[str, ...]) -> None:
        """Leave a sum closed that would not count: the sites open no other one of this round, and with noise it would be paid for."""
        if len(survivors) < self._config.quorum.replies:
            raise FederationError(
                "too few sites are left for the round",
                where=_PHASES[_MASK],
                got=f"{len(survivors)} ({', '.join(survivors)})",
                expected=f"at least {self._config.quorum.replies} (quorum.replies)",
                remedy="the round is tried again; bring the missing sites back, or lower quorum.replies",
                code=ReasonCode.QUORUM,
            )

    def _exchange(self, phase: int, payloads: Mapping[str, bytes], take: Callable[[str, bytes], None]) -> tuple[str, ...]:
        """Send each site its bytes of a phase, take the answers one by one, and return whose were good."""
        assert self._terms is not None, "task() begins an attempt"
        identities = {site: openssh(member) for site, member in self._members.items() if site in payloads} if phase == _SHARE else {}
        attempt = self._terms.context().hex()
        question = PhaseRequest(run=self._terms.run, round=self._terms.round, attempt=attempt, phase=phase, identities=identities)
        letters = {
            site: self._courier.post(
                self._members[site].node, write_phase(question, payload), kind=SECURE_MESSAGE, round=question.round, ttl_s=self._deadline_s
            )
            for site, payload in payloads.items()
        }
        by_node = {letter.node.identifier: site for site, letter in letters.items()}
        good, lost, costs = [], dict[str, ReasonCode](), dict[str, dict[str, object]]()
        for reply in self._courier.gather(letters, timeout_s=self._deadline_s):
            site = by_node[reply.letter.node.identifier]
            costs[site] = self._cost(site, reply)
            try:
                take(site, self._read(site, question, reply))
                good.append(site)
            except ProtocolError as error:
                self._refused[site], lost[site] = error, error.code
                costs[site] |= {"code": error.code, "outcome": _outcome(reply)}
            del reply
        self._tell_phase(_PHASES[phase], sorted(good), lost, costs)
        return tuple(sorted(good))

    def _cost(self, site: str, reply: Reply) -> dict[str, object]:
        """Book what a message and its answer cost, and return it for the ledger."""
        sent, received = reply.letter.bytes_down, size_bytes(reply.content) if reply.content is not None else 0
        down, up = self._traffic.get(site, (0, 0))
        self._traffic[site] = (down + sent, up + received)
        waited_s = self._courier.timing.clock() - reply.letter.sent_at
        return {"outcome": Outcome.ACCEPTED, "bytes_down": sent, "bytes_up": received, "round_trip_s": waited_s}

    def _tell_phase(
        self, phase: str, answered: list[str], lost: Mapping[str, ReasonCode], costs: Mapping[str, Mapping[str, object]]
    ) -> None:
        """Note how a phase ended: who answered, who did not and why, how many have to, and what each message cost."""
        assert self._terms is not None
        needed, asked = self._terms.threshold, len(answered) + len(lost)
        message = f"{phase}: {len(answered)} of {asked} answered, {needed} needed"
        if lost:
            message += "; dropped out: " + ", ".join(f"{site} ({code})" for site, code in sorted(lost.items()))
        code = ReasonCode.QUORUM if len(answered) < needed else None
        detail = {"attempt": self._attempt, "phase": phase, "answered": answered, "dropped": dict(lost), "needed": needed, "sites": costs}
        self._events.emit(EventKind.SUM_PHASE, round=self._terms.round, code=code, message=message, detail=detail)

    def _tell_opened(self, result: SecureResult) -> None:
        """Note which parts were opened over which sites, and why others stay closed."""
        assert self._terms is not None
        message = f"{len(result.groups)} parts opened"
        for reason in sorted(set(result.refused.values())):
            message += f"; closed, {reason}: " + ", ".join(group for group, why in result.refused.items() if why == reason)
        detail = {"opened": {group: list(found.sites) for group, found in result.groups.items()}, "closed": result.refused}
        self._events.emit(EventKind.SUM_OPENED, round=self._terms.round, message=message, detail={"attempt": self._attempt} | detail)

    def _read(self, site: str, question: PhaseRequest, reply: Reply) -> bytes:
        """Return the bytes of a site's answer."""
        phase = _PHASES[question.phase]
        if reply.content is None:
            raise ProtocolError(
                "a site dropped out of the secure sum",
                where=f"site {site}, {phase}",
                got="no answer, or a reason code in its place",
                expected=f"an answer within {self._deadline_s:g} s",
                remedy="look at the site's log",
                code=reply.code or ReasonCode.DEADLINE,
            )
        answer, payload = read_phase_reply(reply.content)
        if (answer.site, answer.run, answer.round, answer.phase) != (site, question.run, question.round, question.phase):
            raise ProtocolError(
                "an answer belongs to another question",
                where=f"site {site}, {phase}",
                got=f"{answer.site}, run {answer.run}, round {answer.round}, phase {answer.phase}"[:200],
                expected=f"{site}, run {question.run}, round {question.round}, phase {question.phase}",
                remedy="run the same release of gmmas-fed on both sides",
            )
        return payload

    def _identities(self) -> dict[str, ec.EllipticCurvePublicKey]:
        """Return the enrolled keys of the members; a site without one is unknown, and so is refused."""
        return {site: key for site, member in self._members.items() if (key := enrolled_key(member)) is not None}


def _outcome(reply: Reply) -> Outcome:
    if reply.content is not None:
        return Outcome.REFUSED
    return Outcome.MISSING if reply.code is ReasonCode.DEADLINE else Outcome.FAILED
