"""The coordinator's real processes on loopback: what hospitals, operators and strangers get from them."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from client.preflight import explain_supernode_exit
from gmmas_runtime.flower import flower_environment, flower_program
from gmmas_runtime.keys import make_authority, make_node_key
from gmmas_runtime.probe import check_health, is_healthy
from gmmas_runtime.process_state import live_state
from gmmas_runtime.processes import ProcessSpec, Supervisor
from gmmas_schema.errors import FederationError, TrustError
from gmmas_schema.events import Event, EventKind
from gmmas_schema.federation import FederationConfig, QuorumConfig
from gmmas_schema.model import GridConfig, ModelDefinition, NetworkConfig
from gmmas_schema.site import SiteConfig
from server import enrolment
from server.deployment import (
    coordinator_processes,
    enrol,
    init_coordinator,
    list_nodes,
    online_nodes,
    prepare_run,
    revoke,
    run_state,
    stop_run,
    submit_run,
)
from server.enrolment import Connection
from server.folder import CoordinatorFolder
from server.following import follow_run
from tests.gmmas_runtime.waiting import wait_until
from tests.server.ports import free_port

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")]

SMALL = ModelDefinition(
    network=NetworkConfig(channels=(4, 8), blocks=(1, 1), transformer_layers=0), grid=GridConfig(spacing_mm=8.0, shape=(24, 24, 24))
)


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoordinatorFolder]:
    opened = init_coordinator(tmp_path_factory.mktemp("deployment") / "coordinator", port=free_port())
    with Supervisor(coordinator_processes(opened.path), state_file=opened.state_file):
        yield opened


def run_config(**quorum: object) -> FederationConfig:
    return FederationConfig(name="test", rounds=1, model=SMALL, quorum=QuorumConfig(**quorum))  # type: ignore[arg-type]


def supernode(coordinator: CoordinatorFolder, key: Path, folder: Path, *, name: str) -> ProcessSpec:
    """Return a hospital's SuperNode, ready when the coordinator counts it as online."""
    folder.mkdir(exist_ok=True)
    config = site_config(coordinator, key)
    argv = (
        flower_program("flower-supernode"),
        *("--superlink", config.coordinator.address, "--root-certificates", str(config.coordinator.root_certificate)),
        *("--auth-supernode-private-key", str(key), "--host", "127.0.0.1", "--port", str(config.node.runtime_port)),
        *("--isolation", "process"),
    )
    return ProcessSpec(
        "supernode",
        argv,
        flower_environment(folder),
        folder,
        folder / "supernode.log",
        ready=lambda: name in online_nodes(coordinator.path),
        permanent_exit=lambda code, tail: explain_supernode_exit(code, tail, config),
    )


def site_config(coordinator: CoordinatorFolder, key: Path) -> SiteConfig:
    reach = {"address": coordinator.config.local_address, "root_certificate": coordinator.authority_certificate}
    node = {"private_key": key, "state": key.parent / "state", "runtime_port": free_port()}
    return SiteConfig.parse({"site": key.name, "data": {"root": key.parent}, "coordinator": reach, "node": node}, where="test")


def test_health_answers_to_our_authority_only(coordinator: CoordinatorFolder, tmp_path: Path) -> None:
    address = coordinator.config.local_address
    check_health(address, authority_certificate=coordinator.authority_certificate)
    check_health(address.replace("127.0.0.1", "localhost"), authority_certificate=coordinator.authority_certificate)
    other = make_authority(tmp_path / "other", name="other")
    with pytest.raises(TrustError, match="not trusted") as caught:
        check_health(address, authority_certificate=other.certificate_path)
    assert str(other.certificate_path) in caught.value.expected
    assert not is_healthy(address, authority_certificate=other.certificate_path)


def test_a_second_start_is_refused(coordinator: CoordinatorFolder) -> None:
    with pytest.raises(FederationError, match="port is taken"):
        coordinator_processes(coordinator.path)


def test_enrolment_from_first_sight_to_revocation(coordinator: CoordinatorFolder, tmp_path: Path) -> None:
    key = make_node_key(tmp_path / "north")
    made = enrol(coordinator.path, key, name="north")
    assert (made.name, made.connection, made.changed) == ("north", Connection.REGISTERED, None)
    assert made in list_nodes(coordinator.path)

    with pytest.raises(TrustError, match="enrolled before") as caught:
        enrol(coordinator.path, key, name="north")
    assert caught.value.remedy == "nothing is to be done"
    with pytest.raises(TrustError, match="the key of site 'north'"):
        enrol(coordinator.path, key, name="south")
    with pytest.raises(TrustError, match="another key") as caught:
        enrol(coordinator.path, make_node_key(tmp_path / "second"), name="north")
    assert "--replace" in caught.value.remedy

    assert revoke(coordinator.path, name="north").connection is Connection.UNREGISTERED
    with pytest.raises(TrustError, match="revoked before") as caught:
        enrol(coordinator.path, key, name="north")
    assert "gmmas site new-key" in caught.value.remedy
    with pytest.raises(TrustError, match="'north', revoked before"):
        revoke(coordinator.path, name="north")
    with pytest.raises(TrustError, match="'nowhere', never enrolled"):
        revoke(coordinator.path, name="nowhere")
    assert enrol(coordinator.path, tmp_path / "second.pub", name="north").node != made.node


def test_two_operators_at_the_same_moment_enrol_a_key_once(
    coordinator: CoordinatorFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one has listed the nodes before the first one's key was there; Flower's own refusal is explained."""
    key = make_node_key(tmp_path / "west")
    real, early = enrolment.list_nodes, list_nodes(coordinator.path)
    enrol(coordinator.path, key, name="west")
    answers = iter([early])
    monkeypatch.setattr(enrolment, "list_nodes", lambda folder: next(answers, None) or real(folder))
    with pytest.raises(TrustError, match="enrolled before"):
        enrol(coordinator.path, key, name="west")


def test_unenrolled_key_is_turned_away_with_the_reason(coordinator: CoordinatorFolder, tmp_path: Path) -> None:
    make_node_key(tmp_path / "stranger")
    spec = supernode(coordinator, tmp_path / "stranger", tmp_path / "home", name="stranger")
    with pytest.raises(TrustError, match="enrol"):
        Supervisor([spec]).start()


def test_enrolled_node_comes_online_and_a_revoked_one_is_cut_off(coordinator: CoordinatorFolder, tmp_path: Path) -> None:
    enrol(coordinator.path, make_node_key(tmp_path / "east"), name="east")
    with Supervisor([supernode(coordinator, tmp_path / "east", tmp_path / "home", name="east")]):
        assert online_nodes(coordinator.path) == ("east",)
        revoke(coordinator.path, name="east")
        assert online_nodes(coordinator.path) == ()


@pytest.mark.slow
def test_a_run_without_sites_ends_with_its_reason(coordinator: CoordinatorFolder, tmp_path: Path) -> None:
    prepare_run(tmp_path / "run", run_config(join_deadline_s=1.0))
    flower_run = submit_run(coordinator.path, tmp_path / "run")
    seen: list[Event] = []
    end = follow_run(tmp_path / "run", on_event=seen.append)
    assert end.kind is EventKind.RUN_FAILED
    assert "too few sites joined in time" in end.message
    assert EventKind.RUN_STARTED in [event.kind for event in seen]
    wait_until(lambda: run_state(coordinator.path, flower_run).ended, timeout_s=60, what="Flower's end of the run")
    assert run_state(coordinator.path, flower_run).status == "finished:failed"


@pytest.mark.slow  # make test-faults kills the run at every stage
def test_a_killed_run_is_noticed_and_can_be_resumed_and_stopped(coordinator: CoordinatorFolder, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    prepare_run(run_dir, run_config(join_deadline_s=300.0))
    first = submit_run(coordinator.path, run_dir)

    def kill_when_waiting(event: Event) -> None:
        if event.kind is EventKind.WAITING_FOR_SITES:
            os.kill(serverapp_pid(coordinator), signal.SIGKILL)

    with pytest.raises(FederationError, match="the run's process is gone") as caught:
        follow_run(run_dir, on_event=kill_when_waiting)
    assert "--resume" in caught.value.remedy

    prepare_run(run_dir, run_config(join_deadline_s=300.0), resume=True)
    second = submit_run(coordinator.path, run_dir)
    assert second != first
    assert run_state(coordinator.path, first).ended
    stop_run(coordinator.path, second)
    wait_until(lambda: run_state(coordinator.path, second).status == "finished:stopped", timeout_s=30, what="the stop")


def serverapp_pid(coordinator: CoordinatorFolder) -> int:
    """Return the pid of the one flwr-serverapp below the executor."""
    state = live_state(coordinator.state_file)
    assert state is not None
    (executor,) = [process for process in state.processes if process.name == "superexec"]
    below = psutil.Process(executor.pid).children(recursive=True)
    (found,) = [child for child in below if child.status() != psutil.STATUS_ZOMBIE and "serverapp" in " ".join(child.cmdline())]
    return int(found.pid)


def test_a_killed_superlink_comes_back_with_its_memory(coordinator: CoordinatorFolder, tmp_path: Path) -> None:
    site = enrol(coordinator.path, make_node_key(tmp_path / "phoenix"), name="phoenix")
    state = live_state(coordinator.state_file)
    assert state is not None
    pid = state.processes[0].pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), what="its death")
    address, authority = coordinator.config.local_address, coordinator.authority_certificate
    wait_until(lambda: is_healthy(address, authority_certificate=authority), timeout_s=60, what="its return")
    assert site.node in [node.node for node in list_nodes(coordinator.path)]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
