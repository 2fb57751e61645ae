"""The caller's side of the resident trainer: typed calls over its Unix socket, without torch.

A failure comes back as a GmmasError that knows its reason code and nothing more, because only the code leaves the trainer.

The generated modules beside this file are made, in the repository's root, by
    .venv/bin/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. client/trainer_service.proto
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

# Set before grpc is imported: its C core would write to the terminal of a command otherwise.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from safetensors import SafetensorError
from safetensors.numpy import load, save

from client.trainer_service_pb2 import CancelCall, PauseCall, Progress, ResumeCall, StatusCall, TaskAnswer, TaskCall
from client.trainer_service_pb2_grpc import TrainerStub
from gmmas_schema.errors import FederationError, ProtocolError, ReasonCode
from gmmas_schema.messages import Action, SiteDescription, SiteReport, TaskRequest

SERVICE: Final = "gmmas.site.v1.Trainer"
LARGEST_MESSAGE_BYTES: Final = 2**31 - 1
"""What protobuf can carry: a model of 500 million float32 values."""
OPTIONS: Final = (
    ("grpc.max_send_message_length", LARGEST_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
)
SHORT_CALL_S: Final = 10.0

Tensors = dict[str, np.ndarray]
AnswerT = TypeVar("AnswerT")

_CODE_OF_STATUS = {
    grpc.StatusCode.UNAVAILABLE: ReasonCode.TRAINER_UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ReasonCode.DEADLINE,
    grpc.StatusCode.CANCELLED: ReasonCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ReasonCode.OUT_OF_MEMORY,
}


def pack_tensors(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Return named tensors as safetensors bytes; nothing for none."""
    # Not ascontiguousarray, which gives a scalar an axis.
    return save({name: np.asarray(value, order="C") for name, value in tensors.items()}) if tensors else b""


def unpack_tensors(packed: bytes) -> Tensors:
    """Return the tensors of safetensors bytes.

    Raises:
        ProtocolError: the bytes are not safetensors.
    """
    try:
        return dict(load(packed)) if packed else {}
    except (SafetensorError, ValueError, KeyError) as error:
        raise ProtocolError("tensors cannot be read", got=type(error).__name__, expected="safetensors") from error


class TrainerChannel:
    """A connection to the trainer behind one socket; use it as a context manager.

    Every call raises a FederationError with the trainer's reason code, or TRAINER_UNREACHABLE, DEADLINE or CANCELLED.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=OPTIONS)
        self._trainer = TrainerStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a running call ends with CANCELLED."""
        self._channel.close()

    def describe(self, request: TaskRequest, *, timeout_s: float) -> SiteDescription:
        """Return what the site's cohort holds."""
        answer = self._task(self._trainer.Describe, request, {}, timeout_s)
        return SiteDescription.model_validate_json(answer.document)

    def admit(self, request: TaskRequest, *, timeout_s: float) -> int:
        """Have a request to train or evaluate judged by its document alone; returns the most values that its tensors can have."""
        method = self._trainer.Train if request.action is Action.TRAIN else self._trainer.Evaluate
        return int(self._task(method, request, {}, timeout_s, ahead=True).values)

    def train(self, request: TaskRequest, tensors: Mapping[str, np.ndarray], *, timeout_s: float) -> tuple[SiteReport, Tensors]:
        """Run one round of local training; returns its report and the new values of the groups the site sends."""
        answer = self._task(self._trainer.Train, request, tensors, timeout_s)
        return SiteReport.model_validate_json(answer.document), unpack_tensors(answer.tensors)

    def evaluate(self, request: TaskRequest, tensors: Mapping[str, np.ndarray], *, timeout_s: float) -> SiteReport:
        """Evaluate the tensors on the split the request names."""
        answer = self._task(self._trainer.Evaluate, request, tensors, timeout_s)
        return SiteReport.model_validate_json(answer.document)

    def cancel(self) -> Progress:
        """End the running task at its next step."""
        progress: Progress = self._call(self._trainer.Cancel, CancelCall())
        return progress

    def pause(self, *, abandon: bool = False) -> Progress:
        """Refuse new tasks and hold the running one at its next step; `abandon` ends it instead."""
        progress: Progress = self._call(self._trainer.Pause, PauseCall(abandon=abandon))
        return progress

    def resume(self) -> Progress:
        """Accept tasks again and let the held one go on."""
        progress: Progress = self._call(self._trainer.Resume, ResumeCall())
        return progress

    def status(self) -> Progress:
        """Return what the trainer is doing now."""
        return next(self._stream(StatusCall(), timeout_s=SHORT_CALL_S))

    def follow(self, *, interval_s: float = 0.5) -> Iterator[Progress]:
        """Yield the trainer's state now and after every change, until the trainer ends or the caller stops."""
        yield from self._stream(StatusCall(follow=True, interval_s=interval_s), timeout_s=None)

    def is_ready(self) -> bool:
        """Ask the standard health service whether the trainer serves tasks."""
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        try:
            answer = health_pb2_grpc.HealthStub(self._channel).Check(request, timeout=SHORT_CALL_S)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def _task(
        self,
        method: Callable[..., TaskAnswer],
        request: TaskRequest,
        tensors: Mapping[str, np.ndarray],
        timeout_s: float,
        *,
        ahead: bool = False,
    ) -> TaskAnswer:
        call = TaskCall(document=request.model_dump_json(), tensors=pack_tensors(tensors), ahead=ahead)
        # A trainer that the supervisor is bringing back is worth a short wait; a dead one is not worth the round.
        return self._call(method, call, timeout_s=timeout_s, wait_for_ready=self._socket.exists())

    def _call(self, method: Callable[..., AnswerT], call: object, *, timeout_s: float = SHORT_CALL_S, **options: bool) -> AnswerT:
        try:
            return method(call, timeout=timeout_s, **options)
        except grpc.RpcError as error:
            raise _explain(error, self._socket) from None

    def _stream(self, call: StatusCall, *, timeout_s: float | None) -> Iterator[Progress]:
        try:
            yield from self._trainer.Status(call, timeout=timeout_s)
        except grpc.RpcError as error:
            raise _explain(error, self._socket) from None


def _explain(error: grpc.RpcError, socket: Path) -> FederationError:
    """Return the error for a failed call: the trainer's own reason code, else one that follows from gRPC's status."""
    details = error.details() or ""
    code = ReasonCode(details) if details in set(ReasonCode) else _CODE_OF_STATUS.get(error.code(), ReasonCode.TRAINER)
    if code is not ReasonCode.TRAINER_UNREACHABLE:
        return FederationError("the trainer refused or failed", where=socket, remedy="its log says why: logs/trainer.log", code=code)
    return FederationError(
        "the trainer does not answer",
        where=socket,
        got="no running trainer" if not socket.exists() else "a socket nobody answers on",
        expected="a running node",
        remedy="start it with `gmmas site start`; if it was running, logs/trainer.log says why it ended",
        code=code,
    )
