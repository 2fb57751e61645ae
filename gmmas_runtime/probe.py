"""Does a TLS server answer, and is it the one we trust? Used for readiness, for `status` and by a hospital's preflight.

HTTPS_PROXY and NO_PROXY are followed as Flower's client follows them, by a tunnel (CONNECT, RFC 9110, section 9.3.6): the proxy sees the
address and nothing else.
"""

import base64
import http.client
import socket
import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from gmmas_runtime.keys import load_certificate
from gmmas_schema.errors import FederationError, TrustError

HTTP_OK = 200
PROXY_PORT: Final = 80


def check_health(address: str, *, authority_certificate: Path, timeout_s: float = 5.0) -> None:
    """Ask `https://<address>/health` over a connection verified against one authority.

    Args:
        address: host:port.
        authority_certificate: the only authority trusted.
        timeout_s: for the connection and for the answer, each.

    Raises:
        TrustError: the authority's file is wrong, or the server's certificate was not issued by it or not for this host.
        FederationError: nobody answers there, or not with 200 OK.
    """
    load_certificate(authority_certificate)
    connection, host = _open(address, authority_certificate, timeout_s=timeout_s), address.rpartition(":")[0]
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except ssl.SSLCertVerificationError as error:
        raise TrustError(
            "the server's certificate is not trusted",
            where=address,
            got=error.verify_message,
            expected=f"a certificate for {host} issued by {authority_certificate}",
            remedy="check the address and that the authority's file is the coordinator's own authority.pem; "
            "the coordinator adds a host name with `gmmas server renew --host NAME`; a proxy that opens TLS cannot be used",
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _silent(address, error, timeout_s=timeout_s) from error
    finally:
        connection.close()
    if status != HTTP_OK:
        raise FederationError(
            "the server answers, but not as a coordinator does",
            where=f"https://{address}/health",
            got=f"HTTP status {status}",
            expected=f"HTTP status {HTTP_OK}",
            remedy="check the address and port, and the rules of a reverse proxy on the way",
        )


@dataclass(frozen=True)
class ServerLook:
    """What one connection tells of a server.

    Attributes:
        clock_ahead_s: this machine's clock less the server's, to about a second; None if the server names no time.
        certificate_days: days until the server's certificate expires.
    """

    clock_ahead_s: float | None
    certificate_days: float


def look_at_server(address: str, *, authority_certificate: Path, timeout_s: float = 5.0) -> ServerLook:
    """Return the server's clock and certificate, as far as a verified connection shows them.

    Raises:
        TrustError: as check_health.
        FederationError: as check_health.
    """
    check_health(address, authority_certificate=authority_certificate, timeout_s=timeout_s)
    connection = _open(address, authority_certificate, timeout_s=timeout_s)
    try:
        connection.connect()
        certificate = connection.sock.getpeercert() or {}
        connection.request("GET", "/health")
        told = connection.getresponse().headers.get("Date")
        now = time.time()
    except (OSError, http.client.HTTPException) as error:
        raise _silent(address, error, timeout_s=timeout_s) from error
    finally:
        connection.close()
    try:
        server = None if told is None else parsedate_to_datetime(told).timestamp()
    except ValueError:
        server = None
    expires = ssl.cert_time_to_seconds(str(certificate["notAfter"])) if "notAfter" in certificate else now
    return ServerLook(None if server is None else now - server, (expires - now) / 86400)


def is_healthy(address: str, *, authority_certificate: Path, timeout_s: float = 1.0) -> bool:
    """Return whether check_health() passes."""
    try:
        check_health(address, authority_certificate=authority_certificate, timeout_s=timeout_s)
    except (TrustError, FederationError):
        return False
    return True


def serves_http(address: str, *, timeout_s: float = 1.0) -> bool:
    """Return whether `http://host:port` answers /health with 200 OK; for servers of this machine."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=timeout_s)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == HTTP_OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def port_is_free(port: int, *, host: str = "127.0.0.1") -> bool:
    """Return whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _open(address: str, authority_certificate: Path, *, timeout_s: float) -> http.client.HTTPSConnection:
    """Return a connection that is to be made to a server, directly or through the proxy of the environment."""
    context = ssl.create_default_context(cafile=str(authority_certificate))
    host, _, port = address.rpartition(":")
    proxies = getproxies()
    proxy = proxies.get("https") or proxies.get("all")
    if not proxy or proxy_bypass(host):
        return http.client.HTTPSConnection(host, int(port), timeout=timeout_s, context=context)
    way = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    connection = http.client.HTTPSConnection(way.hostname or "", way.port or PROXY_PORT, timeout=timeout_s, context=context)
    account = f"{unquote(way.username)}:{unquote(way.password or '')}" if way.username else ""
    headers = {"Proxy-Authorization": f"Basic {base64.b64encode(account.encode()).decode()}"} if account else {}
    connection.set_tunnel(host, int(port), headers)
    return connection


def _silent(address: str, error: Exception, *, timeout_s: float) -> FederationError:
    return FederationError(
        "the server does not answer",
        where=address,
        got=_reason(error, timeout_s=timeout_s),
        expected="an answer over TLS",
        remedy="check that it runs (`gmmas server up` at the coordinator), the address, and firewalls on the way",
    )


def _reason(error: Exception, *, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(error, ssl.SSLError):
        return f"not a TLS server ({error.reason})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}".rstrip(": ")
