"""What is refused before Flower is asked; the rest is in test_coordinator_processes.py."""

import time
from pathlib import Path

import pytest

from gmmas_runtime.keys import make_node_key
from gmmas_schema.coordinator import EnrolledSite, SiteRegister
from gmmas_schema.errors import ConfigError, FederationError, TrustError
from server.deployment import enrol, init_coordinator, revoke
from server.enrolment import key_digest
from server.folder import CoordinatorFolder
from tests.server.ports import free_port


@pytest.fixture
def coordinator(tmp_path: Path) -> CoordinatorFolder:
    return init_coordinator(tmp_path / "coordinator", port=free_port())


def remember(coordinator: CoordinatorFolder, public_key: Path, name: str, *, revoked: float | None = None) -> None:
    site = EnrolledSite(name=name, node="17", key_sha256=key_digest(public_key), enrolled=time.time(), revoked=revoked)
    coordinator.write_register(SiteRegister(sites=(*coordinator.read_register().sites, site)))


def test_a_key_is_enrolled_once(coordinator: CoordinatorFolder, tmp_path: Path) -> None:
    key = make_node_key(tmp_path / "north")
    remember(coordinator, key, "north")
    with pytest.raises(TrustError, match="enrolled before") as caught:
        enrol(coordinator.path, key, name="north")
    assert caught.value.remedy == "nothing is to be done"
    with pytest.raises(TrustError, match="the key of site 'north'"):
        enrol(coordinator.path, key, name="south")


def test_a_name_has_one_key(coordinator: CoordinatorFolder, tmp_path: Path) -> None:
    remember(coordinator, make_node_key(tmp_path / "old"), "north")
    with pytest.raises(TrustError, match="another key") as caught:
        enrol(coordinator.path, make_node_key(tmp_path / "new"), name="north")
    assert "gmmas server revoke north" in caught.value.remedy


def test_a_revoked_key_cannot_come_back(coordinator: CoordinatorFolder, tmp_path: Path) -> None:
    key = make_node_key(tmp_path / "north")
    remember(coordinator, key, "north", revoked=time.time())
    with pytest.raises(TrustError, match="revoked before") as caught:
        enrol(coordinator.path, key, name="north")
    assert "new pair" in caught.value.remedy
    with pytest.raises(TrustError, match="'north', revoked before"):
        revoke(coordinator.path, name="north")


def test_only_enrolled_sites_are_revoked(coordinator: CoordinatorFolder, tmp_path: Path) -> None:
    remember(coordinator, make_node_key(tmp_path / "south"), "south")
    with pytest.raises(TrustError, match="never enrolled") as caught:
        revoke(coordinator.path, name="north")
    assert caught.value.expected == "one of: south"


@pytest.mark.parametrize("name", ["", "North", "-north", "n" * 32, "no rth", "../x"])
def test_names_are_those_of_site_yaml(coordinator: CoordinatorFolder, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="not a site name"):
        enrol(coordinator.path, make_node_key(tmp_path / "key"), name=name)


def test_the_private_half_is_refused(coordinator: CoordinatorFolder, tmp_path: Path) -> None:
    make_node_key(tmp_path / "north")
    with pytest.raises(TrustError, match="must never leave"):
        enrol(coordinator.path, tmp_path / "north", name="north")


def test_a_coordinator_that_does_not_run_is_told_as_that(coordinator: CoordinatorFolder, tmp_path: Path) -> None:
    with pytest.raises(FederationError, match="does not answer") as caught:
        enrol(coordinator.path, make_node_key(tmp_path / "north"), name="north")
    assert "gmmas server up" in caught.value.remedy
    assert coordinator.read_register().sites == ()


def test_a_damaged_register_is_not_overwritten(coordinator: CoordinatorFolder, tmp_path: Path) -> None:
    coordinator.register_file.write_text("{")
    with pytest.raises(TrustError, match="cannot be read"):
        enrol(coordinator.path, make_node_key(tmp_path / "north"), name="north")
    assert coordinator.register_file.read_text() == "{"
