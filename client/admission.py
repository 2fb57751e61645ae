"""At the trainer's door: every request is judged by the site's policy, and what became of it is written down.

A Docket goes along with one call and gathers what its line in the audit log says; the Gate judges and writes.
"""

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version

from client.audit_line import AuditEntry, AuditKind, AuditOutcome, hash_parts, quotable
from client.audit_log import AuditLog
from client.cohort import SiteCohort
from client.folder import NodeFolder
from client.policy import Admission, Circumstances, Override, Overrides, admit
from client.trainer_service_pb2 import TaskAnswer, TaskCall
from gmmas_model.size import count_parameters
from gmmas_runtime.keys import load_node_key
from gmmas_schema.errors import PolicyError, ReasonCode
from gmmas_schema.messages import Action, TaskRequest
from gmmas_schema.site import SiteConfig

logger = logging.getLogger(__name__)

ALLOWED, OVERRIDDEN = "allowed", "overridden"


@dataclass
class Docket:
    """What is known of one call so far.

    Attributes:
        action: the method that was called.
        call: as it came.
        request: once it could be read.
        admission: once the policy has admitted it.
        refusal: of the policy.
        overrides: that it was admitted by.
    """

    action: Action
    call: TaskCall
    request: TaskRequest | None = None
    admission: Admission | None = None
    refusal: PolicyError | None = None
    overrides: tuple[Override, ...] = field(default=())

    def read(self, request: TaskRequest) -> None:
        """Note what the call asks."""
        self.request = request


class Gate:
    """Judges requests by the site's policy and keeps the record of them.

    Args:
        config: the site.

    Raises:
        TrustError: the node's key cannot be read, or the audit log was changed (code AUDIT_LOG).
    """

    def __init__(self, config: SiteConfig) -> None:
        self._config, self._folder = config, NodeFolder(config.node.state)
        self._log = AuditLog(self._folder.audit_log, load_node_key(config.node.private_key))
        software = {"software": version("gmmas-fed"), "policy": config.policy.model_dump_json(exclude_defaults=True)}
        self._log.append(AuditEntry(kind=AuditKind.STARTED, detail=software))

    def admit(self, request: TaskRequest, cohort: SiteCohort, docket: Docket) -> Admission:
        """Return the request as it may be run, and what its answer may tell.

        Raises:
            PolicyError: it is refused.
        """
        policy, now = self._config.policy, datetime.now(UTC)
        overrides = Overrides.read(self._folder.overrides).valid(now)
        circumstances = Circumstances(
            moment=now,
            rounds_today=self._log.count_answered(AuditKind.TRAIN, since=policy.midnight(now)) if policy.rounds_per_day else 0,
            parameters=count_parameters(request.model.network) if policy.largest_model.parameters else 0,
            patients={split: len({case.patient_id for case in cases}) for split, cases in cohort.cases.items()},
        )
        try:
            docket.admission = admit(request, policy, circumstances, overrides=overrides)
        except PolicyError as refusal:
            docket.refusal = refusal
            raise
        docket.overrides = tuple(overrides[code] for code in docket.admission.overridden)
        return docket.admission

    def note(self, docket: Docket, *, answer: TaskAnswer | None, code: ReasonCode) -> None:
        """Write down what became of a call.

        Args:
            docket: of the call.
            answer: that is to leave; None where a reason code does.
            code: that leaves instead.

        Raises:
            TrustError: code AUDIT_LOG, the line cannot be written: nothing may leave.
        """
        request, call = docket.request, docket.call
        entry = AuditEntry(
            kind=AuditKind(docket.action.value),
            run=quotable(request.run) if request is not None else "",
            round=request.round if request is not None else None,
            request=hash_parts(call.document.encode(), call.tensors),
            verdict=_verdict(docket),
            withheld=docket.admission.withheld if docket.admission is not None else (),
            outcome=_outcome(docket, answer),
            code=None if answer is not None else code,
            answer="" if answer is None else hash_parts(answer.document.encode(), answer.tensors),
            bytes_out=0 if answer is None else len(answer.document.encode()) + len(answer.tensors),
            # Of a failure its code alone: what an exception says may name a case.
            reason=docket.refusal.brief() if docket.refusal is not None else "; ".join(one.reason for one in docket.overrides)[:400],
            by=", ".join(dict.fromkeys(one.by for one in docket.overrides))[:64],
        )
        self._log.append(entry)
        if answer is not None and entry.withheld:
            logger.info("round %d: the policy withheld the %s", entry.round or 0, " and the ".join(entry.withheld))


def _verdict(docket: Docket) -> str:
    if docket.refusal is not None:
        return docket.refusal.code
    if docket.admission is None:
        return ""
    return OVERRIDDEN if docket.overrides else ALLOWED


def _outcome(docket: Docket, answer: TaskAnswer | None) -> AuditOutcome:
    if answer is not None:
        return AuditOutcome.ANSWERED
    return AuditOutcome.FAILED if docket.admission is not None else AuditOutcome.REFUSED
