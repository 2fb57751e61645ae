import inspect
import socket
import ssl
import threading

import httpx
import pytest
from flwr.superlink.grid import http_grid
from flwr.supernode import fleet_http_connection

from strategies.torn_connections import MAKER, bear_torn_connections, is_torn


def torn_handshake() -> Exception:
    """Return what httpx raises where the peer takes the connection and goes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def go() -> None:
            connection, _ = server.accept()
            connection.recv(1)
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()

        peer = threading.Thread(target=go)
        peer.start()
        with pytest.raises(httpx.TransportError) as caught:
            httpx.get(f"https://127.0.0.1:{server.getsockname()[1]}", verify=False)
        peer.join(10)
    return caught.value


def test_a_torn_handshake_is_tried_again_and_a_wrong_certificate_is_not(monkeypatch):
    error = torn_handshake()
    assert is_torn(error)
    before = getattr(fleet_http_connection, MAKER)
    monkeypatch.setattr(fleet_http_connection, MAKER, before)
    bear_torn_connections(fleet_http_connection)
    patient = getattr(fleet_http_connection, MAKER)().should_giveup
    assert patient(error) is False
    wrong = httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    assert before().should_giveup(wrong) is True
    assert patient(wrong) is True
    assert patient(httpx.ConnectError("[Errno 111] Connection refused")) is False


def test_the_way_of_a_run_to_its_superlink_is_one_of_these():
    assert "self._retry_invoker = make_simple_http_retry_invoker()" in inspect.getsource(http_grid.HttpGrid.__init__)


def test_other_faults_are_not_torn_connections():
    assert not is_torn(ssl.SSLEOFError("EOF occurred in violation of protocol"))
    assert not is_torn(httpx.ReadTimeout("the read operation timed out"))
