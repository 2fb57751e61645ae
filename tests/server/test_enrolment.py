"""What is refused before Flower is asked; the rest is in test_coordinator_processes.py."""

from pathlib import Path

import pytest

from gmmas_runtime.keys import make_node_key
from gmmas_schema.errors import ConfigError, FederationError, TrustError
from server.deployment import enrol, init_coordinator
from server.folder import CoordinatorFolder
from tests.server.ports import free_port


@pytest.fixture
def coordinator(tmp_path: Path) -> CoordinatorFolder:
    return init_coordinator(tmp_path / "coordinator", port=free_port())


@pytest.mark.parametrize("name", ["", "North", "-north", "n" * 32, "no rth", "../x"])
def test_names_are_those_of_site_yaml(coordinator: CoordinatorFolder, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="not the site's name"):
        enrol(coordinator.path, make_node_key(tmp_path / "key"), name=name)


def test_the_private_half_is_refused(coordinator: CoordinatorFolder, tmp_path: Path) -> None:
    make_node_key(tmp_path / "north")
    with pytest.raises(TrustError, match="must never leave"):
        enrol(coordinator.path, tmp_path / "north", name="north")


def test_a_coordinator_that_does_not_run_is_told_as_that(coordinator: CoordinatorFolder, tmp_path: Path) -> None:
    with pytest.raises(FederationError, match="does not answer") as caught:
        enrol(coordinator.path, make_node_key(tmp_path / "north"), name="north")
    assert "gmmas server up" in caught.value.remedy
