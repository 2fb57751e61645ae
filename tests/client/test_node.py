import os
import stat
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory

from client.app import SOCKET_VARIABLE
from client.folder import NodeFolder
from client.node import EXECUTOR, SUPERNODE, TRAINER, make_specs
from gmmas_runtime.keys import AUTHORITY_CERTIFICATE, SERVER_CERTIFICATE, check_server_certificate
from gmmas_runtime.processes import ProcessSpec, Supervisor
from gmmas_schema.errors import DataError, GmmasError, ReasonCode
from gmmas_schema.site import SiteConfig
from tests.client.loopback import free_port, serve_app
from tests.client.sites import write_site


def specs_of(folder: Path, **options: object) -> dict[str, ProcessSpec]:
    path = write_site(folder, cases=1, **options)
    return {spec.name: spec for spec in make_specs(SiteConfig.from_yaml(path), config_path=path)}


def option(spec: ProcessSpec, name: str) -> str:
    return spec.argv[list(spec.argv).index(name) + 1]


def test_processes_start_in_order(tmp_path: Path) -> None:
    assert list(specs_of(tmp_path)) == [TRAINER, SUPERNODE, EXECUTOR]


def test_the_supernode_is_isolated_authenticated_and_silent(tmp_path: Path) -> None:
    spec = specs_of(tmp_path)[SUPERNODE]
    state = tmp_path / "state"
    assert option(spec, "--isolation") == "process"
    assert option(spec, "--host") == "127.0.0.1"
    assert Path(option(spec, "--root-certificates")) == tmp_path / "authority" / "authority.pem"
    assert Path(option(spec, "--auth-supernode-private-key")) == tmp_path / "keys" / "north"
    assert "--insecure" not in spec.argv
    assert "--allow-runtime-dependency-installation" not in spec.argv
    assert spec.environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert spec.environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert Path(spec.environment["FLWR_HOME"]) == state / "flower"
    secret = Path(option(spec, "--superexec-auth-secret-file"))
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert len(secret.read_bytes()) >= 32
    # Refused as still online, it must try for longer than the 60 s this takes.
    waits, wait_s = 0.0, spec.back_off_s[0]
    while waits < 60 and wait_s <= spec.back_off_s[1]:
        waits, wait_s = waits + wait_s, wait_s * 2
    assert 60 <= waits < spec.ready_timeout_s


def test_the_resident_executor_runs_the_installed_client_only(tmp_path: Path) -> None:
    specs = specs_of(tmp_path)
    spec = specs[EXECUTOR]
    assert tuple(spec.argv[:4]) == (sys.executable, "-P", "-m", "client.executor")
    assert option(spec, "--runtime-api-address") == f"127.0.0.1:{option(specs[SUPERNODE], '--port')}"
    assert option(spec, "--superexec-auth-secret-file") == option(specs[SUPERNODE], "--superexec-auth-secret-file")
    assert spec.environment[SOCKET_VARIABLE] == str(tmp_path / "state" / "trainer.sock")


def test_flowers_executor_is_a_fallback_that_finds_the_trainer(tmp_path: Path) -> None:
    spec = specs_of(tmp_path, executor="flower")[EXECUTOR]
    assert Path(spec.argv[0]).name == "flower-superexec"
    assert "--allow-runtime-dependency-installation" not in spec.argv
    assert spec.environment[SOCKET_VARIABLE] == str(tmp_path / "state" / "trainer.sock")
    assert spec.environment["PATH"].startswith(str(Path(sys.executable).parent))


def test_trust_on_loopback_is_made_once_and_renewed_when_damaged(tmp_path: Path) -> None:
    specs_of(tmp_path)
    loopback = tmp_path / "state" / "loopback"
    first = {path.name: path.read_bytes() for path in loopback.iterdir()}
    specs_of(tmp_path)
    assert {path.name: path.read_bytes() for path in loopback.iterdir()} == first
    (loopback / SERVER_CERTIFICATE).write_text("damaged")
    specs_of(tmp_path)
    check_server_certificate(loopback, authority_certificate=loopback / AUTHORITY_CERTIFICATE)


def test_the_supernode_counts_as_ready_once_the_coordinator_has_named_it(tmp_path: Path) -> None:
    port = free_port()
    spec = specs_of(tmp_path, runtime_port=port)[SUPERNODE]
    assert spec.ready is not None
    spec.log_file.write_text("Starting Flower SuperNode\nSuperNode ID: 7\n")
    assert not spec.ready(), "this is the identity of a process that is gone"
    factory = NodeStateFactory(ObjectStoreFactory())
    with serve_app(create_app(factory), port=port, certificates=tmp_path / "state" / "loopback"):
        with spec.log_file.open("a") as log:
            log.write("Starting Flower SuperNode\n")
        assert not spec.ready()
        with spec.log_file.open("a") as log:
            log.write("x" * 100_000 + "\nSuperNode ID: 7\n")
        assert spec.ready()


def test_a_fault_of_the_trainer_is_final_and_a_crash_is_not(tmp_path: Path) -> None:
    spec = specs_of(tmp_path)[TRAINER]
    assert spec.permanent_exit is not None
    NodeFolder(tmp_path / "state").write_fault(DataError("no cohort", code=ReasonCode.DATA_EMPTY))
    fault = spec.permanent_exit(os.EX_CONFIG, "")
    assert isinstance(fault, GmmasError)
    assert fault.code is ReasonCode.DATA_EMPTY
    assert spec.permanent_exit(-9, "") is None
    assert spec.permanent_exit(1, "") is None


@pytest.mark.integration
@pytest.mark.slow  # make test-faults kills trainers too
def test_a_killed_trainer_is_brought_back_and_sigterm_ends_it(tmp_path: Path) -> None:
    spec = replace(specs_of(tmp_path)[TRAINER], back_off_s=(0.1, 1.0))
    events, ready_again = [], threading.Event()

    def note(event) -> None:
        events.append(event)
        if sum(e.kind == "ready" for e in events) == 2:
            ready_again.set()

    with Supervisor([spec], note) as supervisor:
        first = supervisor.status()[0].pid
        assert first is not None
        os.kill(first, 9)
        assert ready_again.wait(60)
        assert supervisor.status()[0].restarts == 1
        socket = tmp_path / "state" / "trainer.sock"
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    # Stopped by SIGTERM, it has tidied up; a socket would be left behind by SIGKILL.
    assert not socket.exists()
    assert "Traceback" not in spec.log_file.read_text()
