"""A connection that breaks while it is being secured is tried again, as every other broken connection is.

flwr 1.41 takes any fault of TLS for a wrong certificate and gives up. But a coordinator that is killed or restarted behind a reverse proxy,
or a line that breaks in the handshake, looks the same from here: the peer is gone before it has said who it is (`UNEXPECTED_EOF`, or a
reset). That says nothing of certificates. A SuperNode that gives up is lost until somebody starts it again.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

import httpx

MAKER: Final = "make_simple_http_retry_invoker"
_TORN: Final = ("unexpected_eof", "eof occurred in violation of protocol", "connection reset by peer")


def bear_torn_connections(*modules: ModuleType) -> None:
    """Let what these modules of Flower's send be tried again after a torn connection, in this process."""
    for module in modules:
        setattr(module, MAKER, _patient(getattr(module, MAKER)))


def is_torn(error: Exception) -> bool:
    """Return whether a connection broke, whatever was being done on it."""
    return isinstance(error, httpx.TransportError) and any(sign in str(error).lower() for sign in _TORN)


def make_patient(invoker: Any) -> Any:
    """Let what one of Flower's RetryInvokers sends be tried again after a torn connection; returns it."""
    gives_up = invoker.should_giveup
    invoker.should_giveup = lambda error: not is_torn(error) and gives_up(error)
    return invoker


def _patient(make: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: make_patient(make())
