"""The resident executor of a hospital node: takes Flower tasks from the SuperNode and runs the locally installed client.app.

Flower's own executor starts one process per message, which unpacks and imports the app bundle the coordinator has sent. Here one
long-lived process acquires the task and calls our own ClientApp. The bundle that comes with a task is held in memory by the protocol,
is never written, unpacked or imported, and is dropped; the app's configuration in it is not read either.

    acquire -> pull message -> client.app -> push reply -> finish, with a heartbeat to the SuperNode meanwhile

This file uses internal API of flwr 1.41 (tests/client/test_executor.py checks the signatures). It differs from Flower's helpers in two
ways: a refused heartbeat or token ends the task, not the process, and a task whose reply could not be handed over is left to expire,
because the SuperNode answers the coordinator for an expired task but waits for ever on one that was finished without a reply.
"""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.retry import RetryInvoker, exponential
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from client.app import app as local_app
from client.app import refuse, site_socket
from client.trainer_channel import TrainerChannel
from gmmas_schema.errors import ConfigError, GmmasError, ReasonCode
from strategies.object_pulls import retry_soon

logger = logging.getLogger(__name__)

POLL_S: Final = 0.2
LONGEST_BACK_OFF_S: Final = 5.0
TASK_RETRY_S: Final = 30.0
HANDOVER_S: Final = 1.5
ACQUIRE: Final = "/flwr.proto.Runtime/AcquireTask"
_BUSY = frozenset({httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT})


@dataclass(frozen=True)
class SuperNodeAddress:
    """Where the SuperNode's runtime API listens on loopback, and what proves each side to the other."""

    address: str
    root_certificates: bytes
    secret: bytes

    @classmethod
    def read(cls, address: str, *, root_certificates: Path, secret: Path) -> "SuperNodeAddress":
        """Read the two files.

        Raises:
            ConfigError: one of them cannot be read.
        """
        try:
            return cls(address, root_certificates.read_bytes(), secret.read_bytes())
        except OSError as error:
            raise ConfigError(
                "the executor cannot read a file",
                where=error.filename,
                got=error.strerror or type(error).__name__,
                expected="the files that `gmmas site start` makes in the state folder",
                remedy="start the node with `gmmas site start`",
            ) from error

    @contextmanager
    def connect(self, *interceptors: ProtobufClientInterceptor, retry_s: float | None = None) -> Iterator[RuntimeHttpClient]:
        """Yield a client of the runtime API; `retry_s` is how long a call is tried again, None: not at all."""
        client = RuntimeHttpClient.from_server_address(
            server_address=self.address,
            insecure=False,
            root_certificates=self.root_certificates,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"), *interceptors],
            retry_invoker=None if retry_s is None else _retry_for(retry_s),
        )
        try:
            yield client
        finally:
            client.close()


class Executor:
    """Takes one task after the other until it is stopped.

    Args:
        node: the SuperNode to serve.
        app: what answers a message.
        cancel_task: told when the running task is to end early.
    """

    def __init__(self, node: SuperNodeAddress, app: ClientApp, *, cancel_task: Callable[[], None]) -> None:
        self._node, self._app, self._cancel_task = node, app, cancel_task
        self._stop = threading.Event()

    def stop(self) -> None:
        """End run() after the present task, which is cancelled and answered first."""
        self._stop.set()

    def run(self) -> None:
        """Serve until stop(). An absent SuperNode is waited for: it comes back under its supervisor."""
        signer = SuperExecAuthHttpInterceptor(master_secret=self._node.secret, protected_methods=frozenset({ACQUIRE}))
        wait_s = POLL_S
        with self._node.connect(signer) as client:
            while not self._stop.is_set():
                try:
                    response = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP]))
                except (httpx.HTTPError, ValueError) as error:
                    log_at = logging.INFO if wait_s == POLL_S else logging.DEBUG
                    logger.log(log_at, "SuperNode not reached, trying again: %s", _describe(error))
                    wait_s = min(2 * wait_s, LONGEST_BACK_OFF_S)
                else:
                    wait_s = POLL_S
                    if response.HasField("task") and response.token:
                        self.run_task(response.token)
                        # A node that stops ends its SuperNode next, which looks for replies every half second.
                        time.sleep(HANDOVER_S if self._stop.is_set() else 0)
                        continue
                self._stop.wait(wait_s)

    def run_task(self, token: str) -> None:
        """Run one acquired task; a failure on the way to or from the SuperNode is logged and the task left to expire."""
        lost = threading.Event()
        with self._node.connect(RuntimeTokenHttpInterceptor(token), retry_s=TASK_RETRY_S) as client:
            heartbeat = HeartbeatSender(lambda: _beat(client, lost))
            heartbeat.start()
            try:
                start = time.monotonic()
                message, context, _run, _bundle = pull_task_input(client)
                del _run, _bundle  # what the coordinator shipped is not looked at
                pulled = time.monotonic()
                reply, code = self._answer(message, context, lost)
                answered = time.monotonic()
                if lost.is_set():
                    logger.warning("the SuperNode has given up the task; its reply is dropped")
                    return
                push_message(client, reply, context)
                status = SubStatus.COMPLETED if code is None else SubStatus.FAILED
                push_task_output(client=client, context=context, sub_status=status, details="" if code is None else code.value)
                logger.info(
                    "%s: pull %.2f s, work %.2f s, push %.2f s",
                    message.metadata.message_type,
                    pulled - start,
                    answered - pulled,
                    time.monotonic() - answered,
                )
            except Exception as error:
                logger.warning("a task was given up and will expire: %s", _describe(error))
            finally:
                heartbeat.stop()

    def _answer(self, message: Message, context: Context, lost: threading.Event) -> tuple[Message, ReasonCode | None]:
        """Return the app's reply; whatever it raises, only a reason code is left of it."""
        done = threading.Event()
        guard = threading.Thread(target=self._cancel_if_needed, args=(done, lost), name="guard", daemon=True)
        guard.start()
        try:
            reply: Message = self._app(message=message, context=context)
        except Exception:
            logger.exception("the app failed")
            return refuse(message, ReasonCode.PROTOCOL), ReasonCode.PROTOCOL
        finally:
            done.set()
            guard.join()
        return reply, ReasonCode(str(reply.error.reason)) if reply.has_error() else None

    def _cancel_if_needed(self, done: threading.Event, lost: threading.Event) -> None:
        """Cancel the trainer's task, again every second, once the node stops or the SuperNode has given the task up."""
        while not done.wait(POLL_S):
            if lost.is_set() or self._stop.is_set():
                self._cancel_task()
                done.wait(1.0)


def cancel_at_trainer() -> None:
    """End the trainer's running task; a trainer that is gone has none."""
    with suppress(GmmasError), TrainerChannel(site_socket()) as trainer:
        trainer.cancel()


def _beat(client: RuntimeHttpClient, lost: threading.Event) -> bool:
    """Send one heartbeat; a SuperNode that does not know the task any more sets `lost`."""
    try:
        alive = client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success
    except httpx.HTTPStatusError as error:
        alive = error.response.status_code in _BUSY
    except (httpx.HTTPError, RuntimeError, ValueError):
        return False
    if not alive:
        lost.set()
    return True


def _retry_for(time_s: float) -> RetryInvoker:
    """Return Flower's retry without its habit of ending the process: connection faults and a busy SuperNode are tried again."""
    return RetryInvoker(
        wait_gen_factory=lambda: exponential(base_delay=0.2, max_delay=2),
        recoverable_exceptions=(httpx.TransportError, httpx.HTTPStatusError),
        max_tries=None,
        max_time=time_s,
        should_giveup=lambda error: isinstance(error, httpx.HTTPStatusError) and error.response.status_code not in _BUSY,
    )


def _describe(error: Exception) -> str:
    status = f" {error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else ""
    return f"{type(error).__name__}{status}: {error}".splitlines()[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the executor until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m client.executor", description="Resident executor of a gmmas-fed site.")
    parser.add_argument("--runtime-api-address", required=True, help="host:port of the SuperNode's runtime API")
    parser.add_argument("--root-certificates", type=Path, required=True, help="PEM of the authority that signed its certificate")
    parser.add_argument("--superexec-auth-secret-file", type=Path, required=True, help="secret shared with the SuperNode")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would write a line for every question
    try:
        site_socket()
        node = SuperNodeAddress.read(
            options.runtime_api_address, root_certificates=options.root_certificates, secret=options.superexec_auth_secret_file
        )
    except GmmasError as error:
        logger.error("the executor cannot start: %s", error)
        return os.EX_CONFIG
    retry_soon()
    executor = Executor(node, local_app, cancel_task=cancel_at_trainer)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: executor.stop())
    logger.info("serving the SuperNode at %s with the installed client.app", node.address)
    executor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
