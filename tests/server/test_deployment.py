import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from gmmas_runtime.keys import issue_server_certificate, load_certificate, make_authority
from gmmas_schema.errors import ConfigError, FederationError, GmmasError, TrustError
from server.deployment import coordinator_processes, init_coordinator, renew_certificate
from server.folder import CoordinatorFolder
from tests.server.ports import free_port


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return init_coordinator(tmp_path / "coordinator", hosts=["coordinator.example"], port=free_port()).path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_init_makes_a_private_folder_with_everything(folder: Path) -> None:
    assert set(tree(folder)) == {
        "authority/authority.key",
        "authority/authority.pem",
        "coordinator.yaml",
        "server/server.key",
        "server/server.pem",
        "superexec.secret",
    }
    for path in (folder, folder / "authority", folder / "server", folder / "logs", folder / "flower"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    for path in (folder / "superexec.secret", folder / "authority" / "authority.key", folder / "server" / "server.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert len((folder / "superexec.secret").read_bytes()) == 32


def test_init_twice_is_refused_and_changes_nothing(folder: Path) -> None:
    before = tree(folder)
    with pytest.raises(ConfigError, match="never overwritten"):
        init_coordinator(folder, port=9999)
    assert tree(folder) == before
    assert not list(folder.parent.glob(".*"))


def test_init_leaves_other_peoples_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep me")
    with pytest.raises(ConfigError, match="files of something else"):
        init_coordinator(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"port": 80}, "port"),
        ({"port": 70000}, "port"),
        ({"hosts": ["https://coordinator.example"]}, "hosts"),
        ({"hosts": ["coordinator.example:9092"]}, "hosts"),
        ({"name": "Big Name"}, "name"),
        ({"listen": "everywhere"}, "listen"),
        ({"dashboard_port": 80}, "dashboard.port"),
        ({"port": 9300, "dashboard_port": 9300}, "dashboard.port 9300 is the port of the coordinator itself"),
    ],
)
def test_wrong_settings_are_named_and_nothing_is_written(tmp_path: Path, settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        init_coordinator(tmp_path / "coordinator", **settings)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled_and_stays_the_same_folder(tmp_path: Path, folder: Path) -> None:
    """As an administrator makes it for a user who may not write beside it."""
    given = tmp_path / "given"
    given.mkdir(mode=0o755)
    (given / ".bash_history").write_text("whoami\n")
    (given / ".unfinished" / "authority").mkdir(parents=True)  # a kill left it
    before = given.stat().st_ino
    assert init_coordinator(given).config.listen == "loopback"
    assert (given.stat().st_ino, stat.S_IMODE(given.stat().st_mode)) == (before, 0o700)
    assert set(tree(given)) == {*tree(folder), ".bash_history"}
    assert {path.name for path in tmp_path.iterdir()} == {"given", folder.name}
    assert not (given / ".unfinished").exists()
    with pytest.raises(ConfigError, match="never overwritten"):
        init_coordinator(given)


def test_by_default_nothing_listens_beyond_loopback_and_nothing_calls_home(folder: Path) -> None:
    superlink, superexec = coordinator_processes(folder)
    argv = list(superlink.argv)
    assert argv[argv.index("--host") + 1] == "127.0.0.1"
    for spec in (superlink, superexec):
        assert "0.0.0.0" not in " ".join(spec.argv)
        assert spec.environment["FLWR_TELEMETRY_ENABLED"] == "0"
        assert spec.environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
        assert Path(spec.environment["FLWR_HOME"]).is_relative_to(folder)
    assert {"--enable-supernode-auth", "--disable-runtime-dependency-installation", "--superexec-auth-secret-file"} <= set(argv)
    assert argv[argv.index("--isolation") + 1] == "process"


def test_the_network_is_served_only_when_the_configuration_says_so(tmp_path: Path) -> None:
    made = init_coordinator(tmp_path / "coordinator", port=free_port(), listen="network")
    argv = list(coordinator_processes(made.path)[0].argv)
    assert argv[argv.index("--host") + 1] == "0.0.0.0"


def test_a_moved_folder_still_works(folder: Path) -> None:
    moved = folder.rename(folder.with_name("elsewhere"))
    assert str(folder) not in " ".join(argument for spec in coordinator_processes(moved) for argument in spec.argv)


def damage_secret(folder: Path) -> None:
    (folder / "superexec.secret").unlink()


def open_key(folder: Path) -> None:
    (folder / "server" / "server.key").chmod(0o640)


def lose_authority(folder: Path) -> None:
    (folder / "authority" / "authority.pem").unlink()


def swap_certificate(folder: Path) -> None:
    make_authority(folder / "other", name="other")
    issue_server_certificate(folder / "other", folder / "server", hosts=[], replace=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_secret, r"superexec\.secret"),
        (open_key, "chmod 600"),
        (lose_authority, r"authority\.pem"),
        (swap_certificate, "another authority"),
    ],
)
def test_a_damaged_folder_is_not_started(folder: Path, damage: "type", message: str) -> None:
    damage(folder)
    with pytest.raises(TrustError, match=message):
        coordinator_processes(folder)


def test_unknown_key_in_the_configuration_is_named(folder: Path) -> None:
    file = folder / "coordinator.yaml"
    file.write_text(file.read_text() + "certificate: none\n")
    with pytest.raises(ConfigError, match="unknown key 'certificate'"):
        CoordinatorFolder.open(folder)


def test_no_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder") as caught:
        CoordinatorFolder.open(tmp_path / "absent")
    assert "gmmas server init" in caught.value.remedy


@pytest.fixture
def taken(folder: Path) -> Iterator[int]:
    port = int(yaml.safe_load((folder / "coordinator.yaml").read_text())["port"])
    with socket.create_server(("127.0.0.1", port)):
        yield port


def test_taken_port_is_named(folder: Path, taken: int) -> None:
    with pytest.raises(FederationError, match=f"127.0.0.1:{taken}"):
        coordinator_processes(folder)


def test_taken_port_that_shows_at_the_start_is_not_tried_again(folder: Path) -> None:
    explain = coordinator_processes(folder)[0].permanent_exit
    assert explain is not None
    told = explain(1, "ERROR: [Errno 98] error while attempting to bind on address ('127.0.0.1', 9092): address already in use")
    assert isinstance(told, GmmasError)
    assert explain(1, "some other fault") is None


def test_renewal_adds_hosts_under_the_same_authority(folder: Path) -> None:
    authority, before = (folder / "authority" / "authority.pem").read_bytes(), load_certificate(folder / "server" / "server.pem")
    renewed = renew_certificate(folder, hosts=["10.0.0.7"])
    after = load_certificate(folder / "server" / "server.pem")
    assert after.serial_number != before.serial_number
    assert (folder / "authority" / "authority.pem").read_bytes() == authority
    assert renewed.config.hosts == ("coordinator.example", "10.0.0.7")
    coordinator_processes(folder)


def test_the_dashboard_is_a_process_of_its_own_where_it_is_asked_for(folder: Path, tmp_path: Path) -> None:
    assert [spec.name for spec in coordinator_processes(folder)] == ["superlink", "superexec"]
    made = init_coordinator(tmp_path / "with", port=free_port(), dashboard_port=free_port(), listen="network")
    assert made.config.dashboard is not None
    *_, spec = coordinator_processes(made.path)
    assert (spec.name, spec.log_file) == ("dashboard", made.logs / "dashboard.log")
    assert spec.environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert renew_certificate(made.path, hosts=["new.example"]).config.dashboard == made.config.dashboard
    with socket.socket() as other:
        other.bind(("127.0.0.1", made.config.dashboard.port))
        other.listen()
        with pytest.raises(FederationError, match="the dashboard's port is taken") as caught:
            coordinator_processes(made.path)
    assert "dashboard.port" in caught.value.remedy
