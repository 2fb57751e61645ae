"""One request to all members, and what becomes of each reply: checked, counted, dropped, recorded.

A fault in one reply is that site's: it is refused with its reason, and the others count.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.messages import SiteReport, TaskRequest
from gmmas_schema.vocabulary import Modality
from server.courier import Courier, Letter, Reply
from server.events import EventLog
from server.membership import Member
from server.records import Outcome, SiteRecord
from strategies.checks import check_reply
from strategies.codec import pack_tensors, read_report, size_bytes
from strategies.exchange import tensors_down

Float32 = NDArray[np.float32]
Count = Callable[[SiteReport, Mapping[str, Float32]], None]
"""Takes a checked reply into account; may refuse it with a ProtocolError. Must not keep the tensors."""

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
    """

    def __init__(
        self, courier: Courier, *, events: EventLog, request: TaskRequest, tensors: Mapping[str, Float32], timeout_s: float
    ) -> None:
        self._courier, self._events, self._request = courier, events, request
        self._tensors, self._timeout_s = tensors, timeout_s

    def ask(self, members: Iterable[Member], *, count: Count) -> tuple[SiteRecord, ...]:
        """Send the request, count every good reply once and return one record per member, by name."""
        asked = {member.site: member for member in members}
        letters = self._send(asked)
        records = []
        for reply in self._courier.gather(letters, timeout_s=self._timeout_s):
            member = next(member for site, member in asked.items() if letters[site] is reply.letter)
            records.append(self._settle(member, reply, count))
            del reply
        return tuple(sorted(records, key=lambda record: record.site))

    def _send(self, members: Mapping[str, Member]) -> dict[str, Letter]:
        """Push one message a site; sites with the same sequences one after the other, so that they share one parcel."""
        letters = {}
        for modalities, group in groupby(sorted(members.items(), key=_modalities), key=_modalities):
            parcel = pack_tensors(tensors_down(self._tensors, modalities=modalities))
            for site, member in group:
                letters[site] = self._courier.send(member.node, self._request, parcel, ttl_s=self._timeout_s)
        return letters

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
            try:
                report, tensors = read_report(reply.content)
                check_reply(report, tensors, request=self._request, description=member.description, reference=self._tensors)
                count(report, tensors)
                record = _accept(record, report)
            except ProtocolError as error:
                message = error.explain()
                record = record.model_copy(update={"outcome": Outcome.REFUSED, "code": error.code})
        record = record.model_copy(update={"round_trip_s": self._courier.timing.clock() - reply.letter.sent_at})
        self._tell(record, message)
        return record

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
    fields = (*counts, "losses", "evaluation", "calibration")
    return record.model_copy(update={"outcome": Outcome.ACCEPTED} | {name: getattr(report, name) for name in fields})
