"""The node's Flower ClientApp: takes a message apart, asks the resident trainer, and puts the answer into the reply.

It runs in the resident executor (client.executor) or, with `executor: flower`, in a process of Flower's own. It holds no data and no
torch: the trainer behind the Unix socket does the work. A failure is answered with the value of a ReasonCode and nothing else, for
whatever text an exception carries would travel to the coordinator.

    document -> admitted by the trainer -> size of the tensors by their index -> tensors, hash, shelf -> the task at the trainer -> reply

A process that lives on holds the models it received last, so that an evaluation need not bring them again; what an answer left out for
the sake of a few bits lies on disk and outlives the process (strategies.wire).
"""

import logging
import os
import time
from functools import cache
from pathlib import Path
from typing import Final

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from client.audit_log import AuditLog
from client.folder import NodeFolder
from client.phase_record import record_phase
from client.secure import SecureSite
from client.trainer_channel import TrainerChannel
from gmmas_runtime.keys import load_node_key
from gmmas_runtime.sealed_files import PLAIN, Seal
from gmmas_schema.errors import ConfigError, FederationError, GmmasError, ProtocolError, ReasonCode
from gmmas_schema.messages import Action
from gmmas_workflows.site_state import SiteState
from strategies.codec import check_size, read_task, write_report
from strategies.wire import FEEDBACK, SiteWire

logger = logging.getLogger(__name__)

SOCKET_VARIABLE: Final = "GMMAS_SITE_SOCKET"
STATE_VARIABLE: Final = "GMMAS_SITE_STATE"
KEY_VARIABLE: Final = "GMMAS_SITE_KEY"
"""Path of the node's key; set for processes that live on, for only those can keep the secrets of a secure round."""
AUDIT_VARIABLE: Final = "GMMAS_SITE_AUDIT"
"""Folder of the audit log; set where the key is."""
SEAL_VARIABLE: Final = "GMMAS_SITE_SEAL"
"""Path of the key file under which the node's state lies encrypted; not set where it lies plain."""
PEERS_VARIABLE: Final = "GMMAS_SITE_PEERS"

app = ClientApp()


@app.query()
def describe(message: Message, _: Context) -> Message:
    """Answer what the site holds, in counts."""
    return answer(message, Action.DESCRIBE)


@app.train()
def train(message: Message, _: Context) -> Message:
    """Answer with one round of local training."""
    return answer(message, Action.TRAIN)


@app.evaluate()
def evaluate(message: Message, _: Context) -> Message:
    """Answer with the accuracy of the model that came."""
    return answer(message, Action.EVALUATE)


@app.query("secure")
def sum_securely(message: Message, _: Context) -> Message:
    """Answer one phase of a secure round (client.secure)."""
    return answer(message, None)


def answer(message: Message, action: Action | None) -> Message:
    """Return the reply to a message, None being a phase of a secure round: the answer, or an error that holds a reason code."""
    try:
        return Message(_forward(message, action) if action is not None else _answer_phase(message), reply_to=message)
    except GmmasError as error:
        logger.warning("answered with %s: %s", error.code, error)
        return refuse(message, error.code)
    except Exception:
        logger.exception("answered with %s", ReasonCode.TRAINER)
        return refuse(message, ReasonCode.TRAINER)


def refuse(message: Message, code: ReasonCode) -> Message:
    """Return the reply that says no more than a reason code."""
    return Message(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=code.value), reply_to=message)


def site_socket() -> Path:
    """Return the path of the trainer's socket, which the node's supervisor puts into the environment.

    Raises:
        ConfigError: it is not there.
    """
    path = os.environ.get(SOCKET_VARIABLE)
    if not path:
        raise ConfigError(
            "the trainer's socket is not known",
            where=f"environment variable {SOCKET_VARIABLE}",
            got="nothing",
            expected="the path of a Unix socket",
            remedy="start the node with `gmmas site start`, which sets it",
        )
    return Path(path)


@cache
def site_wire(folder: str, key_file: str = "") -> SiteWire:
    """Return this process's end of the wire, which keeps its state in a folder, or in memory where it is given none."""
    seal = Seal(Path(key_file)) if key_file else PLAIN
    return SiteWire(SiteState(Path(folder) if folder else None, kind=FEEDBACK, seal=seal))


@cache
def secure_site(key: str, folder: str, peers: str) -> SecureSite:
    """Return this process's part in secure rounds; without a key it takes none."""
    identity = load_node_key(Path(key)) if key else None
    return SecureSite(identity, folder=Path(folder) if folder else None, peers=Path(peers) if peers else None)


@cache
def audit_log(folder: str, key: str) -> AuditLog | None:
    """Return the node's audit log, None for a process without its key."""
    return AuditLog(Path(folder), load_node_key(Path(key))) if folder and key else None


def _secure_site() -> SecureSite:
    return secure_site(*(os.environ.get(name, "") for name in (KEY_VARIABLE, STATE_VARIABLE, PEERS_VARIABLE)))


def _answer_phase(message: Message) -> RecordDict:
    folder, key = (os.environ.get(name, "") for name in (AUDIT_VARIABLE, KEY_VARIABLE))

    def answer_unless_paused(content: RecordDict) -> RecordDict:
        # The trainer, which holds everything else, has no part in the phases: the update would leave from here.
        if folder and NodeFolder(Path(folder).parent).paused.exists():
            raise FederationError("the site is paused", remedy="`gmmas site resume`", code=ReasonCode.PAUSED)
        return _secure_site().answer(content)

    return record_phase(message.content, answer_unless_paused, audit_log(folder, key))


def _forward(message: Message, action: Action) -> RecordDict:
    if not message.has_content():
        raise ProtocolError("a message has no content", got=message.metadata.message_type, expected="a request")
    request = read_task(message.content)
    if request.action is not action:
        raise ProtocolError("a message's type and its request differ", got=request.action, expected=action)
    with TrainerChannel(site_socket()) as trainer:
        if action is Action.DESCRIBE:
            return write_report(trainer.describe(request, timeout_s=_time_left_s(message)))
        check_size(message.content, values=trainer.admit(request, timeout_s=_time_left_s(message)))
        wire = site_wire(os.environ.get(STATE_VARIABLE, ""), os.environ.get(SEAL_VARIABLE, ""))
        _, tensors = wire.open(message.content)
        if action is Action.EVALUATE:
            return write_report(trainer.evaluate(request, tensors, timeout_s=_time_left_s(message)))
        if request.secure is not None:
            _secure_site().check(request, tensors)
        report, trained = trainer.train(request, tensors, timeout_s=_time_left_s(message))
        if request.secure is not None:
            return write_report(_secure_site().begin(request, report, received=tensors, trained=trained))
        return wire.answer(request, report, received=tensors, trained=trained)


def _time_left_s(message: Message) -> float:
    """Return how long the coordinator has use for an answer: what is left of the message's time to live.

    By the coordinator's clock it was sent; where this machine's is behind, the task has at most the whole time to live.

    Raises:
        FederationError: nothing is left (code DEADLINE).
    """
    written, ttl_s = float(message.metadata.created_at), float(message.metadata.ttl)
    left_s = min(ttl_s, written + ttl_s - time.time())
    if left_s <= 0:
        raise FederationError("a request came after its time", got=f"{-left_s:.0f} s too late", code=ReasonCode.DEADLINE)
    return left_s
