"""The node's Flower ClientApp: takes a message apart, asks the resident trainer, and puts the answer into the reply.

It runs in the resident executor (client.executor) or, with `executor: flower`, in a process of Flower's own. It holds no data and no
torch: the trainer behind the Unix socket does the work. A failure is answered with the value of a ReasonCode and nothing else, for
whatever text an exception carries would travel to the coordinator.

A process that lives on holds the models it received last, so that an evaluation need not bring them again; what an answer left out for
the sake of a few bits lies on disk and outlives the process (strategies.wire).
"""

import logging
import os
from functools import cache
from pathlib import Path
from typing import Final

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from client.trainer_channel import TrainerChannel
from gmmas_schema.errors import ConfigError, GmmasError, ProtocolError, ReasonCode
from gmmas_schema.messages import Action
from gmmas_workflows.site_state import SiteState
from strategies.codec import write_report
from strategies.wire import FEEDBACK, SiteWire

logger = logging.getLogger(__name__)

SOCKET_VARIABLE: Final = "GMMAS_SITE_SOCKET"
STATE_VARIABLE: Final = "GMMAS_SITE_STATE"

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


def answer(message: Message, action: Action) -> Message:
    """Return the reply to a message: the trainer's answer, or an error that holds a reason code."""
    try:
        return Message(_forward(message, action), reply_to=message)
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
def site_wire(folder: str) -> SiteWire:
    """Return this process's end of the wire, which keeps its state in a folder, or in memory where it is given none."""
    return SiteWire(SiteState(Path(folder) if folder else None, kind=FEEDBACK))


def _forward(message: Message, action: Action) -> RecordDict:
    if not message.has_content():
        raise ProtocolError("a message has no content", got=message.metadata.message_type, expected="a request")
    wire = site_wire(os.environ.get(STATE_VARIABLE, ""))
    request, tensors = wire.open(message.content)
    if request.action is not action:
        raise ProtocolError("a message's type and its request differ", got=request.action, expected=action)
    # The coordinator has no use for an answer after the message's time to live.
    timeout_s = float(message.metadata.ttl)
    with TrainerChannel(site_socket()) as trainer:
        if action is Action.DESCRIBE:
            return write_report(trainer.describe(request, timeout_s=timeout_s))
        if action is Action.EVALUATE:
            return write_report(trainer.evaluate(request, tensors, timeout_s=timeout_s))
        report, trained = trainer.train(request, tensors, timeout_s=timeout_s)
        return wire.answer(request, report, received=tensors, trained=trained)
