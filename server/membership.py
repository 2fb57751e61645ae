"""Who takes part: every connected node is asked what it holds, and is a member from then on until it leaves.

A node is described once per activation. One that misfits (another protocol or model, a policy that refuses this run) is left out until it
comes back; one that cannot answer yet (its trainer still reads data, the hospital paused it or has other hours) is asked again. A member
that says so later is no member until it describes itself again, so that a run waits for it instead of failing round after round. Nothing
is trained before a site's description fits.
"""

from collections.abc import Collection
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from gmmas_schema.errors import FederationError, ProtocolError, ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.messages import SiteDescription, TaskRequest
from server.courier import Courier, Letter, Node, Reply
from server.events import EventLog
from strategies.checks import check_description
from strategies.codec import read_description, size_bytes

_PATIENCE_S: Final = 120.0
"""Time to live of a DESCRIBE request."""
_SETTLE_S: Final = 10.0
"""A round waits this long for nodes that have just been asked."""
_RETRY_S: Final = 10.0
"""A node that could not answer is asked again after this pause."""
_MISFIT = frozenset(
    {
        ReasonCode.PROTOCOL,
        ReasonCode.PROTOCOL_VERSION,
        ReasonCode.MODEL_DEFINITION,
        ReasonCode.POLICY_TASK,
        ReasonCode.POLICY_COHORT,
        ReasonCode.POLICY_MODEL,
        ReasonCode.POLICY_PRIVACY,
    }
)
_NOT_NOW = MappingProxyType({ReasonCode.PAUSED: _RETRY_S, ReasonCode.POLICY_HOURS: 60.0, ReasonCode.POLICY_ROUNDS: 60.0})
"""Reasons that go over, and the pause before such a node is asked again."""


@dataclass(frozen=True)
class Member:
    """A site that takes part."""

    node: Node
    description: SiteDescription

    @property
    def site(self) -> str:
        """The site's name."""
        return self.description.site


@dataclass(frozen=True)
class _Refusal:
    code: ReasonCode
    at: float


class Roster:
    """The members of a federated run.

    Args:
        courier: the way to the nodes.
        request: the DESCRIBE request.
        events: is told who joins, who leaves and who is refused.
    """

    def __init__(self, courier: Courier, *, request: TaskRequest, events: EventLog) -> None:
        self._courier, self._request, self._events = courier, request, events
        self._members: dict[Node, Member] = {}
        self._asked: dict[Node, Letter] = {}
        self._refused: dict[Node, _Refusal] = {}

    @property
    def members(self) -> tuple[Member, ...]:
        """The members, by name."""
        return tuple(sorted(self._members.values(), key=lambda member: member.site))

    def wait_for(self, count: int, *, timeout_s: float, among: Collection[str] | None = None) -> tuple[Member, ...]:
        """Return the members once there are `count` and those just asked have answered or had time to.

        Args:
            count: of members.
            timeout_s: longest wait.
            among: count these sites alone; None for all.

        Raises:
            FederationError: fewer by the deadline, or in a simulation once all have answered (code QUORUM).
        """
        timing = self._courier.timing
        start, told = timing.clock(), -1
        end = start + timeout_s
        while True:
            self.refresh()
            now = timing.clock()
            settling = any(now - letter.sent_at < _SETTLE_S for letter in self._asked.values())
            joined = sum(among is None or member.site in among for member in self._members.values())
            if joined >= count and not settling:
                return self.members
            nobody_to_come = not timing.deadlines and not self._asked
            if now >= end or nobody_to_come:
                if joined >= count:
                    return self.members
                raise self._too_few(count, timeout_s)
            if joined < count and joined != told:
                told = joined
                self._events.emit(EventKind.WAITING_FOR_SITES, detail={"joined": told, "needed": count})
            timing.pause(since=start, until=end)

    def refresh(self) -> None:
        """Forget nodes that left, ask those that are new, and take the answers that have come; never waits."""
        now = self._courier.timing.clock()
        online = self._courier.online_nodes()
        connected = set(online)
        for node in [node for node in self._members if node not in connected]:
            self._events.emit(EventKind.SITE_LEFT, site=self._members[node].site, detail={"node": str(node.identifier)})
        for known in (self._members, self._asked, self._refused):
            for node in [node for node in known if node not in connected]:
                del known[node]
        for node in online:
            if self._may_ask(node, now):
                self._asked[node] = self._courier.send(node, self._request, ttl_s=_PATIENCE_S)
        for node, letter in list(self._asked.items()):
            reply = self._courier.pull(letter)
            if reply is not None:
                del self._asked[node]
                self._decide(node, reply)
            elif now - letter.sent_at > _PATIENCE_S:
                del self._asked[node]
                self._refuse(node, ReasonCode.DEADLINE, "no answer to the first question")

    def hear(self, site: str, code: ReasonCode) -> None:
        """Take note of a reason code with which a member answered; one that does not take part now is no member until it does again."""
        node = next((node for node, member in self._members.items() if member.site == site), None)
        if node is not None and code in _NOT_NOW:
            del self._members[node]
            self._refuse(node, code, "the site does not take part now", site=site)

    def _may_ask(self, node: Node, now: float) -> bool:
        if node in self._members or node in self._asked:
            return False
        refusal = self._refused.get(node)
        return refusal is None or (refusal.code not in _MISFIT and now - refusal.at >= _NOT_NOW.get(refusal.code, _RETRY_S))

    def _decide(self, node: Node, reply: Reply) -> None:
        """Admit a node or refuse it, by its answer."""
        if reply.content is None:
            self._refuse(node, reply.code or ReasonCode.INTERNAL, "the site answered with a reason code")
            return
        try:
            description = read_description(reply.content)
            check_description(description, model_digest=self._request.model.digest())
            self._check_name(node, description)
        except ProtocolError as error:
            self._refuse(node, error.code, error.explain())
            return
        self._refused.pop(node, None)
        self._members[node] = Member(node, description)
        cost = {"bytes_down": reply.letter.bytes_down, "bytes_up": size_bytes(reply.content)}
        detail = description.model_dump(mode="json", exclude={"protocol", "site"}) | {"node": str(node.identifier)} | cost
        self._events.emit(EventKind.SITE_JOINED, site=description.site, detail=detail)

    def _check_name(self, node: Node, description: SiteDescription) -> None:
        """Refuse a site that speaks under a name it was not enrolled under, or that another connected node has."""
        if node.name and node.name != description.site:
            raise ProtocolError(
                "a site gives another name than the one it was enrolled under",
                got=f"{description.site!s:.60}",
                expected=node.name,
                remedy="set `site` in site.yaml to the enrolled name, or enrol the node anew",
            )
        if any(member.site == description.site for member in self._members.values()):
            raise ProtocolError(
                "another connected node has this site's name",
                got=f"{description.site!s:.60}",
                expected="one node a site",
                remedy="give each site its own name in site.yaml",
            )

    def _refuse(self, node: Node, code: ReasonCode, message: str, *, site: str | None = None) -> None:
        """Leave a node out; the same reason is told once."""
        known = self._refused.get(node)
        self._refused[node] = _Refusal(code, self._courier.timing.clock())
        if known is None or known.code is not code:
            detail = {"node": str(node.identifier)}
            self._events.emit(EventKind.SITE_REFUSED, site=site or node.name or None, code=code, message=message, detail=detail)

    def _too_few(self, count: int, timeout_s: float) -> FederationError:
        refused = ", ".join(refusal.code for refusal in self._refused.values())
        names = ", ".join(member.site for member in self.members)
        return FederationError(
            "too few sites joined in time",
            where=f"within {timeout_s:g} s",
            got=f"{len(self._members)} ({names or 'none'}); refused: {refused or 'none'}; not answered: {len(self._asked)}",
            expected=f"at least {count}",
            remedy="start the missing sites and resume the run; `gmmas status` says who is connected",
            code=ReasonCode.QUORUM,
        )
