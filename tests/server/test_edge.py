"""What a stranger can do at the public port, with the coordinator's real processes: nothing, with nginx in front and without."""

import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from flwr.superlink.main import create_app

from gmmas_runtime.keys import make_node_key
from gmmas_runtime.probe import check_health, is_healthy
from gmmas_runtime.processes import ProcessSpec, Supervisor
from gmmas_schema.errors import TrustError
from server.control_key import CONTROL_HEADER
from server.deployment import coordinator_processes, enrol, init_coordinator, list_nodes, online_nodes
from server.folder import CoordinatorFolder
from server.operators import OperatorStore, Way, system_user
from tests.server.ports import free_port
from tests.server.test_coordinator_processes import supernode

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")]

EXAMPLE: Final = Path(__file__).parents[2] / "site_configs" / "nginx.conf"
NGINX: Final = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
REMOTE: Final = {"X-Forwarded-For": "203.0.113.7"}
CLOSED: Final = (401, 403)

needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: apt-get install nginx-light)")


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoordinatorFolder]:
    opened = init_coordinator(tmp_path_factory.mktemp("edge") / "coordinator", port=free_port())
    with Supervisor(coordinator_processes(opened.path), state_file=opened.state_file):
        yield opened


@pytest.fixture(scope="module")
def edge(coordinator: CoordinatorFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run nginx with the example's own lines; only names, ports and paths are replaced."""
    assert NGINX is not None
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    text = EXAMPLE.read_text()
    for old, new in (
        ("127.0.0.1:9092", coordinator.config.local_address),
        ("listen 9443", f"listen 127.0.0.1:{port}"),
        ("fed.example.org", "localhost"),
        ("/srv/gmmas", str(coordinator.path)),
        ("/var/log/nginx", str(folder)),
    ):
        assert old in text
        text = text.replace(old, new)
    places = "".join(f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    head = f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
    (folder / "nginx.conf").write_text(f"{head}http {{\n{places}{text}}}\n")
    checked = subprocess.run([NGINX, "-t", "-c", folder / "nginx.conf", "-p", folder], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    address, authority = f"127.0.0.1:{port}", coordinator.authority_certificate
    argv = (NGINX, "-c", str(folder / "nginx.conf"), "-p", str(folder))
    ready = lambda: is_healthy(address, authority_certificate=authority)  # noqa: E731
    with Supervisor([ProcessSpec("nginx", argv, {}, folder, folder / "nginx.log", ready=ready)]):
        yield address


def connect(coordinator: CoordinatorFolder, address: str, **headers: str) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(coordinator.authority_certificate))
    return httpx.Client(base_url=f"https://{address}", verify=context, headers=headers, trust_env=False)


def routes() -> list[tuple[str, str]]:
    """Return every route that flwr's SuperLink has, with its method; the parts of a path are filled in."""
    found = []
    for context in iter_route_contexts(create_app().routes):
        for method in sorted(set(getattr(context, "methods", None) or {"GET"}) - {"HEAD"}):
            found.append((method, context.path.replace("{", "").replace("}", "")))
    assert ("POST", "/v1/control/start-run") in found
    assert ("POST", "/v1/runtime/acquire-task") in found
    return found


def probe(client: httpx.Client, method: str, path: str) -> int:
    """Ask with the request that every message of Flower can be read from, the empty one."""
    return client.request(method, path, content=b"", headers={"Content-Type": "application/protobuf"}).status_code


def test_a_stranger_without_the_edge(coordinator: CoordinatorFolder) -> None:
    """From another machine, as uvicorn sees one that a proxy speaks for; everything that administers is closed before Flower sees it."""
    with connect(coordinator, coordinator.config.local_address, **REMOTE) as client:
        got = {path: probe(client, method, path) for method, path in routes()}
    assert {path: status for path, status in got.items() if status not in CLOSED} == {"/health": 200}
    assert {status for path, status in got.items() if not path.startswith("/v1/fleet/") and path != "/health"} == {403}


def test_another_user_of_the_same_machine(coordinator: CoordinatorFolder) -> None:
    """On loopback, with the authority's certificate, which is public, but without the coordinator's folder."""
    with connect(coordinator, coordinator.config.local_address, **{CONTROL_HEADER: "0" * 64}) as client:
        got = {path: probe(client, method, path) for method, path in routes()}
    assert {path: status for path, status in got.items() if status not in CLOSED} == {"/health": 200}


@needs_nginx
def test_a_stranger_at_the_edge(coordinator: CoordinatorFolder, edge: str) -> None:
    with connect(coordinator, edge, **{"X-Forwarded-For": "127.0.0.1", CONTROL_HEADER: "0" * 64}) as client:
        got = {path: probe(client, method, path) for method, path in routes()}
        assert {path: status for path, status in got.items() if status not in CLOSED} == {"/health": 200}
        for path in (
            "/v1/fleet/../control/list-nodes",
            "/v1/fleet/%2e%2e/control/list-nodes",
            "/v1/fleet/..%2fcontrol/list-nodes",
            "//health/",
        ):
            assert client.post(httpx.URL(f"https://{edge}").copy_with(raw_path=path.encode())).status_code in (*CLOSED, 404), path


@needs_nginx
def test_not_even_the_key_administers_through_the_edge(coordinator: CoordinatorFolder, edge: str) -> None:
    """Who has stolen the key still has to be on the machine."""
    from server.control_key import control_key

    key = {CONTROL_HEADER: control_key(coordinator.secret.read_bytes())}
    with connect(coordinator, edge, **key) as client:
        assert probe(client, "POST", "/v1/control/list-nodes") == 403
    with connect(coordinator, coordinator.config.local_address, **key, **REMOTE) as client:
        assert probe(client, "POST", "/v1/control/list-nodes") == 403


@needs_nginx
def test_a_hospital_comes_online_through_the_edge(coordinator: CoordinatorFolder, edge: str, tmp_path: Path) -> None:
    check_health(edge, authority_certificate=coordinator.authority_certificate)
    enrol(coordinator.path, make_node_key(tmp_path / "north"), name="north")
    spec = supernode(coordinator, tmp_path / "north", tmp_path / "home", name="north")
    argv = tuple(edge if part == coordinator.config.local_address else part for part in spec.argv)
    with Supervisor([ProcessSpec(spec.name, argv, spec.environment, spec.folder, spec.log_file, ready=spec.ready)]):
        assert online_nodes(coordinator.path) == ("north",)
    assert [node.name for node in list_nodes(coordinator.path)] == ["north"]
    (call,) = OperatorStore(coordinator.operators).calls()
    assert (call.operator, call.way, call.action, call.outcome) == (system_user(), Way.FILE_RIGHTS, "enrol north", "done")
    with pytest.raises(TrustError):
        enrol(coordinator.path, tmp_path / "north.pub", name="north")  # is refused before Flower is asked, and questions are no calls
    assert len(OperatorStore(coordinator.operators).calls()) == 1
