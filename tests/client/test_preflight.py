import inspect
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import flwr.supernode.node_auth_http_interceptor
import pytest
from cryptography.hazmat.primitives import serialization
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.supercore.date import now
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.superlink.main import create_app
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from client.preflight import check_coordinator, check_files, check_port, explain_supernode_exit
from gmmas_runtime.keys import issue_server_certificate, load_node_key, make_authority
from gmmas_schema.errors import ConfigError, DataError, FederationError, GmmasError, TrustError
from gmmas_schema.site import SiteConfig
from tests.client.loopback import free_port, serve_app
from tests.client.sites import read_site
from tests.gmmas_runtime.proxy import proxy

REFUSED = "Exit Code: 305\nFailed to initialize the connection to the SuperLink.\n[code: 2004] Failed to activate SuperNode.\n"


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    return read_site(tmp_path, cases=1, address=f"127.0.0.1:{free_port()}", runtime_port=free_port())


@contextmanager
def coordinator(site: SiteConfig, *, enrolled: bool = True) -> Iterator[None]:
    """Serve a real SuperLink for the site, which knows its key or does not."""
    app = create_app()
    if enrolled:
        key = load_node_key(site.node.private_key).public_key()
        raw = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        app.state.linkstate_factory.state().create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, raw, 0)
    authority = site.coordinator.root_certificate.parent
    issue_server_certificate(authority, authority.parent / "server", hosts=["127.0.0.1"], replace=True)
    with serve_app(app, port=int(site.coordinator.address.partition(":")[2]), certificates=authority.parent / "server"):
        yield


def test_an_enrolled_site_passes_and_is_not_activated(site: SiteConfig) -> None:
    check_files(site)
    with coordinator(site):
        check_coordinator(site)
        check_coordinator(site)


def test_a_proxy_is_used_for_every_question(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with coordinator(site), proxy() as way:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{way.address}")
        check_coordinator(site)
    assert len(way.asked) == 2, "the health check, and Flower's client"
    assert set(way.asked) == {f"CONNECT {site.coordinator.address}"}


def test_an_unknown_key_is_explained(site: SiteConfig) -> None:
    with coordinator(site, enrolled=False), pytest.raises(TrustError, match="does not know this site's key") as caught:
        check_coordinator(site)
    assert "north.enrolment.json" in caught.value.remedy


def test_a_wrong_authority_is_explained(site: SiteConfig, tmp_path: Path) -> None:
    other = make_authority(tmp_path / "other", name="other")
    config = site.model_copy(update={"coordinator": site.coordinator.model_copy(update={"root_certificate": other.certificate_path})})
    with coordinator(site), pytest.raises(TrustError, match="certificate is not trusted"):
        check_coordinator(config, wait_s=60)


def test_clocks_that_differ_are_explained(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flwr.supernode.node_auth_http_interceptor, "now", lambda: now() - timedelta(minutes=10))
    with coordinator(site), pytest.raises(TrustError, match="signature") as caught:
        check_coordinator(site)
    assert "clock" in caught.value.remedy


def test_an_absent_coordinator_is_explained(site: SiteConfig) -> None:
    with pytest.raises(FederationError, match="does not answer") as caught:
        check_coordinator(site)
    assert site.coordinator.address in caught.value.where


def test_something_else_on_the_port_is_explained(site: SiteConfig) -> None:
    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"220 mail.example ready\r\n")

    with socket.create_server(("127.0.0.1", int(site.coordinator.address.partition(":")[2]))) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        with pytest.raises(FederationError, match="does not answer") as caught:
            check_coordinator(site)
        thread.join(5)
    assert "not a TLS server" in caught.value.got


def test_missing_files_are_named(site: SiteConfig) -> None:
    site.node.private_key.rename(site.node.private_key.with_name("moved"))
    with pytest.raises(TrustError, match="north"):
        check_files(site)
    site.node.private_key.with_name("moved").rename(site.node.private_key)
    labels = site.data.labels
    assert labels is not None
    labels.unlink()
    with pytest.raises(DataError, match="table of labels"):
        check_files(site)
    root = site.data.root
    root.rename(root.with_name("moved"))
    with pytest.raises(DataError, match="cohort's folder"):
        check_files(site)
    site.coordinator.root_certificate.unlink()
    with pytest.raises(TrustError, match=r"authority\.pem"):
        check_files(site)


def test_a_taken_port_is_named(site: SiteConfig) -> None:
    check_port(site)
    with socket.create_server(("127.0.0.1", site.node.runtime_port)), pytest.raises(ConfigError, match="runtime_port"):
        check_port(site)


def test_a_supernode_that_was_refused_as_still_online_comes_back(site: SiteConfig) -> None:
    with coordinator(site):
        assert explain_supernode_exit(1, REFUSED, site) is None


def test_a_supernode_whose_key_was_revoked_does_not(site: SiteConfig) -> None:
    with coordinator(site, enrolled=False):
        error = explain_supernode_exit(1, REFUSED, site)
    assert isinstance(error, TrustError)


@pytest.mark.parametrize(
    ("exit_code", "tail"), [(0, "SuperNode terminated gracefully."), (-9, "Received successfully"), (1, "Traceback"), (1, REFUSED)]
)
def test_a_supernode_whose_coordinator_is_away_comes_back(site: SiteConfig, exit_code: int, tail: str) -> None:
    assert explain_supernode_exit(exit_code, tail, site) is None


def test_a_supernode_without_its_port_does_not_come_back(site: SiteConfig) -> None:
    with socket.create_server(("127.0.0.1", site.node.runtime_port)):
        error: GmmasError | None = explain_supernode_exit(1, "RuntimeError: SuperNode Runtime HTTP API failed to start.", site)
    assert isinstance(error, ConfigError)


def test_flower_still_has_what_the_preflight_uses() -> None:
    assert list(inspect.signature(NodeAuthHttpInterceptor).parameters) == ["private_key", "public_key"]
    assert list(inspect.signature(FleetHttpClient.ActivateNode).parameters) == ["self", "request"]
    assert list(inspect.signature(FleetHttpClient.from_server_address).parameters)[:4] == [
        "server_address",
        "insecure",
        "root_certificates",
        "interceptors",
    ]
    assert ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL != ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED
    assert FlowerError.from_json("not json") is None
