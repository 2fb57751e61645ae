"""Flower's Control API, spoken over loopback: what Flower's own command line does, without starting it for every question.

Every request carries the key of the administration, which Flower's own command line does not have.

A call of `flwr` costs 1.5 s of processor time; a request costs milliseconds. The client is internal to flwr 1.41, so it is used here
only, and tests/server/test_coordinator_processes.py holds it to its contract with a real SuperLink.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufClientInterceptor, ProtobufRequestContext

from gmmas_runtime.probe import check_health
from gmmas_schema.errors import FederationError
from server.control_key import CONTROL_HEADER, control_key
from server.folder import CoordinatorFolder
from server.operators import OperatorStore, Way, system_user


class RefusalError(FederationError):
    """Flower answered with an error of its own; `reason` is its code where it has one."""

    def __init__(self, what: str, *, where: object, got: str, expected: str, remedy: str, reason: ApiErrorCode | None) -> None:
        super().__init__(what, where=where, got=got, expected=expected, remedy=remedy)
        self.reason = reason


@contextmanager
def open_control(folder: CoordinatorFolder, *, purpose: str, record: str = "") -> Iterator[ControlHttpClient]:
    """Give a client of this coordinator's Control API.

    Args:
        folder: the coordinator's.
        purpose: completes the sentence "Flower refused to ...".
        record: what is done, for the record of calls (server.operators); empty for a question, which changes nothing.

    Raises:
        FederationError: the SuperLink does not answer.
        TrustError: its certificate is not this folder's.
        RefusalError: Flower refused.
    """
    check_health(folder.config.local_address, authority_certificate=folder.authority_certificate)
    roots = folder.authority_certificate.read_bytes()
    interceptors: list[ProtobufClientInterceptor] = [
        RuntimeVersionHttpInterceptor(component_name="flwr CLI"),
        _Key(control_key(folder.secret.read_bytes())),
    ]
    client = ControlHttpClient.from_server_address(folder.config.local_address, False, roots, interceptors=interceptors)
    outcome = "failed"
    try:
        yield client
        outcome = "done"
    except httpx.HTTPStatusError as error:
        raise _refusal(error, folder, purpose) from error
    except httpx.HTTPError as error:
        raise FederationError(
            "the coordinator's answer was lost",
            where=folder.config.local_address,
            got=type(error).__name__,
            expected="an answer",
            remedy=f"see {folder.logs / 'superlink.log'}, and try again",
        ) from error
    finally:
        client.close()
        if record:
            OperatorStore(folder.operators).note(
                record, outcome, operator=system_user(), role=None, way=Way.FILE_RIGHTS, client="this machine"
            )


class _Key:
    """Adds the key to every request, in the manner of flwr's interceptors."""

    def __init__(self, key: str) -> None:
        self._key = key

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers[CONTROL_HEADER] = self._key
        return call_next(context)


def _refusal(error: httpx.HTTPStatusError, folder: CoordinatorFolder, purpose: str) -> RefusalError:
    told = FlowerError.from_json(error.response.text)
    known = told is not None and told.code in {code.value for code in ApiErrorCode}
    return RefusalError(
        f"Flower refused to {purpose}",
        where=folder.path,
        got=told.message if told is not None else f"HTTP status {error.response.status_code}",
        expected="success",
        remedy=f"see {folder.logs / 'superlink.log'}",
        reason=ApiErrorCode(told.code) if told is not None and known else None,
    )
