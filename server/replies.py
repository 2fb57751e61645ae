"""One request to all members, and what becomes of each reply: checked, counted, dropped, recorded.

A fault in one reply is that site's: it is refused with its reason, and the others count. That holds for a fault of ours too, where what
one site sent brings it about in reading: a run that stopped there would stop again at each resume.
"""

import logging
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from types import MappingProxyType

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.messages import Action, Notice, SiteReport, TaskRequest
from gmmas_schema.vocabulary import Modality
from server.courier import Courier, Letter, Reply
from server.events import EventLog
from server.membership import Member
from server.records import Outcome, SiteRecord
from strategies.checks import check_reply
from strategies.codec import Parcel, size_bytes
from strategies.foreign_documents import UPDATE, shorten
from strategies.wire import Holdings, OutgoingModel

logger = logging.getLogger(__name__)

Float32 = NDArray[np.float32]
Count = Callable[[SiteReport, Mapping[str, Float32]], None]
"""Takes a checked reply into account; may refuse it with a ProtocolError. Must not keep the tensors."""

_TOLD_LINES, _LOGGED_LINES, _LONGEST_LINE = 5, 60, 300
"""Of an error that explains itself: what, where, got, expected and remedy; and of one that nobody has thought of."""

_KINDS = {
    Outcome.ACCEPTED: EventKind.REPLY_ACCEPTED,
    Outcome.REFUSED: EventKind.REPLY_REFUSED,
    Outcome.FAILED: EventKind.REPLY_REFUSED,
    Outcome.MISSING: EventKind.REPLY_MISSING,
}


class Enquiry:
    """Asks members one request and settles their replies.

    Args:
        courier: the way to the nodes.
        events: is told the outcome of each reply.
        request: what is asked.
        tensors: the global model; each site receives the groups it holds.
        timeout_s: deadline, also the messages' time to live.
        holdings: which models the nodes hold, over all enquiries of a run; without it every node is sent the model.
        notices: why a site's last reply was refused, by site.
        counted: the last round of which a site's reply counted, by site; those that ask for training are told.
    """

    def __init__(
        self,
        courier: Courier,
        *,
        events: EventLog,
        request: TaskRequest,
        tensors: Mapping[str, Float32],
        timeout_s: float,
        holdings: Holdings | None = None,
        notices: Mapping[str, Notice] = MappingProxyType({}),
        counted: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._courier, self._events, self._request = courier, events, request
        self._tensors, self._timeout_s = tensors, timeout_s
        self._holdings, self._notices, self._counted = holdings or Holdings(), notices, counted
        self._model = OutgoingModel(tensors, config=request.wire)
        self._asked: dict[str, Member] = {}
        self._named: set[str] = set()

    def ask(self, members: Iterable[Member], *, count: Count) -> tuple[SiteRecord, ...]:
        """Send the request, count every good reply once and return one record per member, by name."""
        self._asked = {member.site: member for member in members}
        letters = self._send()
        by_node = {member.node.identifier: member for member in self._asked.values()}
        records = []
        for reply in self._courier.gather(letters, timeout_s=self._timeout_s, again=self._send_what_was_missing):
            records.append(self._settle(by_node[reply.letter.node.identifier], reply, count))
            del reply
        return tuple(sorted(records, key=lambda record: record.site))

    def _send(self) -> dict[str, Letter]:
        """Push one message a site; sites with the same sequences one after the other, so that they share one parcel."""
        letters = {}
        for modalities, group in groupby(sorted(self._asked.items(), key=_modalities), key=_modalities):
            digest, parcel = self._model.digest(modalities), None
            for site, member in group:
                if self._is_held(member, digest):
                    letters[site] = self._courier.send(member.node, self._request_to(site), digest=digest, ttl_s=self._timeout_s)
                    self._named.add(site)
                    continue
                parcel = parcel or self._model.pack(modalities)
                letters[site] = self._courier.send(member.node, self._request_to(site), parcel, ttl_s=self._timeout_s)
        return letters

    def _request_to(self, site: str) -> TaskRequest:
        """Return the request as one site gets it."""
        counted = self._counted.get(site, 0) if self._request.action is Action.TRAIN else None
        return self._request.model_copy(update={"notice": self._notices.get(site), "counted": counted})

    def _is_held(self, member: Member, digest: str) -> bool:
        return self._request.wire.reuse and self._holdings.has(member.node.identifier, member.node.activation, digest)

    def _send_what_was_missing(self, site: str, reply: Reply) -> Letter | None:
        """Send the model to a site that was asked about it by its hash and does not hold it; its time goes on."""
        first, node = reply.letter, reply.letter.node
        # Once only: a site that has been sent the model and asks for it is a site with a fault.
        if reply.code is not ReasonCode.MODEL_NEEDED or site not in self._named:
            return None
        self._named.remove(site)
        self._holdings.miss(node.identifier, node.activation)
        left_s = max(1.0, self._timeout_s - (self._courier.timing.clock() - first.sent_at))
        parcel: Parcel = self._model.pack(self._asked[site].description.modalities)
        letter = self._courier.send(node, self._request_to(site), parcel, ttl_s=left_s)
        return replace(letter, sent_at=first.sent_at, bytes_down=first.bytes_down + letter.bytes_down)

    def _settle(self, member: Member, reply: Reply, count: Count) -> SiteRecord:
        """Check and count one reply, and return its record."""
        record = SiteRecord(
            site=member.site, node=str(member.node.identifier), outcome=Outcome.FAILED, code=reply.code, bytes_down=reply.letter.bytes_down
        )
        message = ""
        if reply.content is None:
            record = record.model_copy(update={"outcome": Outcome.MISSING if reply.code is ReasonCode.DEADLINE else Outcome.FAILED})
        else:
            record = record.model_copy(update={"bytes_up": size_bytes(reply.content)})
            self._holdings.note(member.node.identifier, member.node.activation, self._model.digest(member.description.modalities))
            try:
                report, tensors = self._read(member, reply.content)
                # Outside of what _read catches: a sum that was added to half-way must end the round, not become a model.
                count(report, tensors)
                record = _accept(record, report)
            except ProtocolError as error:
                message = _as_told(error)
                record = record.model_copy(update={"outcome": Outcome.REFUSED, "code": error.code, "reason": error.brief()})
        record = record.model_copy(update={"round_trip_s": self._courier.timing.clock() - reply.letter.sent_at})
        self._tell(record, message)
        return record

    def _read(self, member: Member, content: RecordDict) -> tuple[SiteReport, dict[str, Float32]]:
        """Return a reply that has passed the checks.

        Raises:
            ProtocolError: it does not pass them, or reading it fails in a way that nobody has thought of.
        """
        try:
            report, tensors = self._model.read(content)
            check_reply(report, tensors, request=self._request, description=member.description, reference=self._tensors)
        except ProtocolError:
            raise
        except Exception as error:
            logger.error("reading the reply of %s fails:\n%s", member.site, _as_logged(error))
            raise ProtocolError(
                "a reply cannot be read",
                where=f"site {member.site}",
                got=type(error).__name__,
                expected="an answer to what was asked",
                remedy=f"{UPDATE}; the coordinator's log has the whole of it",
                code=ReasonCode.REPLY_REFUSED,
            ) from error
        return report, tensors

    def _tell(self, record: SiteRecord, message: str) -> None:
        detail = record.model_dump(
            mode="json", include={"bytes_down", "bytes_up", "round_trip_s", "seconds", "cpu_seconds", "losses", "peak_memory_mib"}
        )
        detail |= {"action": self._request.action.value, "split": self._request.evaluate, "outcome": record.outcome}
        self._events.emit(
            _KINDS[record.outcome], round=self._request.round, site=record.site, code=record.code, message=message, detail=detail
        )


def _modalities(entry: tuple[str, Member]) -> tuple[Modality, ...]:
    return entry[1].description.modalities


def _accept(record: SiteRecord, report: SiteReport) -> SiteRecord:
    """Return the record of a counted reply with what the site reported."""
    counts = ("modalities", "cases", "labelled", "pseudo_labels", "steps", "seconds", "cpu_seconds", "peak_memory_mib")
    fields = (*counts, "losses", "evaluation", "personalised", "subsets", "calibration")
    return record.model_copy(update={"outcome": Outcome.ACCEPTED} | {name: getattr(report, name) for name in fields})


def _as_told(error: ProtocolError) -> str:
    """Return an error's lines as they may stand in an event: some of its words are a site's own."""
    return "\n".join(shorten(line, _LONGEST_LINE) for line in error.explain().split("\n")[:_TOLD_LINES])


def _as_logged(error: Exception) -> str:
    """Return where an error comes from, in lines as they may stand in a log."""
    lines = "".join(traceback.format_exception(error, chain=False)).splitlines()
    return "\n".join(shorten(line, _LONGEST_LINE) for line in lines[:_LOGGED_LINES])
