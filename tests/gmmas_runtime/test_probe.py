"""Servers that are not ours; ours is probed in tests/server/test_coordinator_processes.py."""

import base64
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gmmas_runtime.keys import issue_server_certificate, make_authority
from gmmas_runtime.probe import check_health, is_healthy, look_at_server, port_is_free, serves_http
from gmmas_schema.errors import FederationError, TrustError
from tests.gmmas_runtime.proxy import proxy


class Answer(http.server.BaseHTTPRequestHandler):
    """200 for /health if `healthy`, else 503."""

    healthy = True

    def do_GET(self) -> None:
        self.send_response(200 if self.healthy and self.path == "/health" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trust")
    make_authority(folder / "authority", name="test")
    issue_server_certificate(folder / "authority", folder / "server", hosts=[])
    return folder


@contextmanager
def serving(trust: Path | None, *, healthy: bool = True) -> Iterator[str]:
    """Serve on loopback, over TLS if there is a certificate; gives the address."""
    with http.server.HTTPServer(("127.0.0.1", 0), type("Handler", (Answer,), {"healthy": healthy})) as server:
        if trust is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(trust / "server" / "server.pem", trust / "server" / "server.key")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_healthy_server_of_our_authority(trust: Path) -> None:
    with serving(trust) as address:
        check_health(address, authority_certificate=trust / "authority" / "authority.pem")


def test_a_server_of_another_authority(trust: Path, tmp_path: Path) -> None:
    other = make_authority(tmp_path, name="other").certificate_path
    with serving(trust) as address, pytest.raises(TrustError, match="not trusted"):
        check_health(address, authority_certificate=other)


def test_a_server_that_answers_otherwise(trust: Path) -> None:
    with serving(trust, healthy=False) as address, pytest.raises(FederationError, match="HTTP status 503"):
        check_health(address, authority_certificate=trust / "authority" / "authority.pem")


def test_a_server_without_tls(trust: Path) -> None:
    with serving(None) as address, pytest.raises(FederationError, match="not a TLS server"):
        check_health(address, authority_certificate=trust / "authority" / "authority.pem")


def test_a_server_that_never_answers(trust: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(FederationError, match=r"no answer within 0\.2 s"):
            check_health(address, authority_certificate=trust / "authority" / "authority.pem", timeout_s=0.2)


@pytest.fixture
def _through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the proxies of this computer, and what it goes to directly."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_through")
def test_a_proxy_passes_the_connection_on_and_sees_the_address_alone(trust: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trust / "authority" / "authority.pem"
    with serving(trust) as address, proxy() as way:
        monkeypatch.setenv("HTTPS_PROXY", f"http://anna:a%20secret@{way.address}")
        check_health(address, authority_certificate=authority)
        assert look_at_server(address, authority_certificate=authority).certificate_days > 0
        assert set(way.asked) == {f"CONNECT {address}"}
        assert f"Proxy-Authorization: Basic {base64.b64encode(b'anna:a secret').decode()}" in way.headers
        way.asked.clear()
        monkeypatch.setenv("NO_PROXY", "example.org,127.0.0.1")
        check_health(address, authority_certificate=authority)
        assert way.asked == []


@pytest.mark.usefixtures("_through")
def test_a_proxy_that_refuses_is_told(trust: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(trust) as address, proxy(refuses=True) as way:
        monkeypatch.setenv("HTTPS_PROXY", way.address)
        with pytest.raises(FederationError, match="403 Forbidden"):
            check_health(address, authority_certificate=trust / "authority" / "authority.pem")


def test_nobody_there(trust: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not port_is_free(port)
    assert port_is_free(port)
    authority = trust / "authority" / "authority.pem"
    with pytest.raises(FederationError, match="Connection refused"):
        check_health(f"127.0.0.1:{port}", authority_certificate=authority)
    assert not is_healthy(f"127.0.0.1:{port}", authority_certificate=authority)


def test_a_plain_server_of_this_machine_is_told_from_none(trust: Path) -> None:
    with serving(None) as address:
        assert serves_http(f"http://{address}")
    assert not serves_http(f"http://{address}")
    with serving(None, healthy=False) as address:
        assert not serves_http(f"http://{address}")
    with serving(trust) as address:
        assert not serves_http(f"http://{address}")
