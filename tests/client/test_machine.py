import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import client.machine
from client.folder import NodeFolder
from client.machine import CheckState, check_machine
from gmmas_runtime.probe import ServerLook, look_at_server
from gmmas_runtime.process_state import SupervisorLock
from gmmas_schema.errors import TrustError
from gmmas_schema.site import SiteConfig
from tests.client.loopback import free_port
from tests.client.sites import read_site
from tests.client.test_preflight import coordinator


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    return read_site(tmp_path, cases=1, address=f"127.0.0.1:{free_port()}", runtime_port=free_port())


def states(site: SiteConfig, **options: bool) -> dict[str, CheckState]:
    return {check.name: check.state for check in check_machine(site, **options)}


def test_a_machine_in_order(site: SiteConfig) -> None:
    with coordinator(site):
        found = states(site)
        look = look_at_server(site.coordinator.address, authority_certificate=site.coordinator.root_certificate)
    assert CheckState.BAD not in found.values()
    assert {"files", "port", "disk", "memory", "GPU", "versions", "coordinator", "clock", "certificate", "enrolment"} <= set(found)
    assert look.clock_ahead_s is not None
    assert abs(look.clock_ahead_s) < 3
    assert look.certificate_days > 30


def test_the_port_of_a_running_node_is_its_own(site: SiteConfig) -> None:
    folder = NodeFolder(site.node.state)
    folder.make()
    with socket.create_server(("127.0.0.1", site.node.runtime_port)):
        assert states(site, offline=True)["port"] is CheckState.BAD
        lock = SupervisorLock.take(folder.state_file)
        try:
            assert states(site, offline=True)["port"] is CheckState.GOOD
        finally:
            lock.release()


def test_a_wrong_authority_is_no_look(site: SiteConfig, tmp_path: Path) -> None:
    from gmmas_runtime.keys import make_authority

    other = make_authority(tmp_path / "other", name="other")
    with coordinator(site), pytest.raises(TrustError, match="not trusted"):
        look_at_server(site.coordinator.address, authority_certificate=other.certificate_path)


def gib(number: float) -> int:
    return int(number * 2**30)


def usage(number: float) -> Callable[..., Any]:
    return lambda *_: SimpleNamespace(free=gib(number))


FAULTS: dict[str, tuple[str, Callable[[pytest.MonkeyPatch, SiteConfig], object], CheckState]] = {
    "full disk": ("disk", lambda patch, _: patch.setattr(shutil, "disk_usage", usage(1)), CheckState.BAD),
    "small disk": ("disk", lambda patch, _: patch.setattr(shutil, "disk_usage", usage(10)), CheckState.WARNING),
    "little memory": (
        "memory",
        lambda patch, _: patch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=gib(1))),
        CheckState.BAD,
    ),
    "open key": ("key rights", lambda _, site: site.node.private_key.chmod(0o644), CheckState.BAD),
    "no key": ("files", lambda _, site: site.node.private_key.unlink(), CheckState.BAD),
    "no data": ("files", lambda _, site: shutil.rmtree(site.data.root), CheckState.BAD),
    "too many threads": ("processor", lambda patch, _: patch.setattr(client.machine.os, "cpu_count", lambda: 0), CheckState.GOOD),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_bad_check_with_a_remedy(site: SiteConfig, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    name, damage, state = FAULTS[fault]
    damage(monkeypatch, site)
    (check,) = [check for check in check_machine(site, offline=True) if check.name == name]
    assert check.state is state
    assert check.remedy or state is CheckState.GOOD


@pytest.mark.parametrize(
    ("ahead", "days", "clock", "certificate"),
    [
        (0.0, 300, CheckState.GOOD, CheckState.GOOD),
        (7.0, 300, CheckState.BAD, CheckState.GOOD),
        (-400.0, 10, CheckState.BAD, CheckState.WARNING),
        (-100.0, 10, CheckState.GOOD, CheckState.WARNING),
        (None, 300, CheckState.WARNING, CheckState.GOOD),
    ],
)
def test_clock_and_certificate(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch, ahead: float | None, days: float, clock: CheckState, certificate: CheckState
) -> None:
    monkeypatch.setattr(client.machine, "look_at_server", lambda *_, **__: ServerLook(ahead, days))
    found = states(site)
    assert (found["clock"], found["certificate"]) == (clock, certificate)
