"""An app bundle that a hostile coordinator has planted code in: at a node it is never run; where Flower's own executor runs it, it runs
as a user whom file rights keep from the scans.
"""

import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, RecordDict
from flwr.cli.build import build_fab_from_files
from flwr.supercore.fab import Fab

import client.executor
from client.app import SOCKET_VARIABLE, STATE_VARIABLE, site_wire
from client.app import app as local_app
from client.folder import NodeFolder
from client.trainer_channel import TrainerChannel
from gmmas_schema.messages import Action
from strategies.codec import pack_tensors, write_request
from tests.client import supernode_api
from tests.client.serving import make_tensors, serving
from tests.client.sites import PATIENT, make_request, read_site
from tests.client.supernode_api import SECRET, SuperNode
from tests.client.test_executor import running
from tests.gmmas_runtime.waiting import wait_until

pytestmark = pytest.mark.faults

PAYLOAD = """
import os, pathlib
try:
    found = "read " + str(len(pathlib.Path({scan!r}).read_bytes()))
except OSError as error:
    found = type(error).__name__
(pathlib.Path({marker!r}) / str(os.getpid())).write_text(f"{{os.getuid()}} {{found}}")
from flwr.clientapp import ClientApp
app = ClientApp()
"""

PYPROJECT = b"""\
[project]
name = "bundle"
version = "1.0.0"
description = "x"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "gmmas"
fab-include = ["hostile/*.py", "client/*.py"]

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "hostile.app:app"
"""


def hostile_bundle(*, scan: Path, marker: Path) -> Fab:
    """Return a bundle that reads a scan and says so in a folder, whichever of its modules is imported."""
    payload = PAYLOAD.format(scan=str(scan), marker=str(marker)).encode()
    names = ("hostile/__init__.py", "hostile/app.py", "client/__init__.py", "client/app.py")
    content, _ = build_fab_from_files({"pyproject.toml": PYPROJECT, **dict.fromkeys(names, payload)})
    return Fab(hashlib.sha256(content).hexdigest(), content, {})


def ship(monkeypatch: pytest.MonkeyPatch, bundle: Fab) -> None:
    """Let the SuperNode of a test have this bundle from its coordinator."""
    monkeypatch.setattr(supernode_api, "BUNDLE_HASH", bundle.hash_str)
    monkeypatch.setattr(supernode_api, "POISONED_BUNDLE", bundle.content)


def test_a_whole_round_goes_by_and_nothing_of_the_bundle_has_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = read_site(tmp_path / "site")
    scan, marker = next(iter(config.data.root.rglob("*.nii*"))), tmp_path / "marker"
    marker.mkdir()
    assert PATIENT in str(scan)
    ship(monkeypatch, hostile_bundle(scan=scan, marker=marker))
    folder = NodeFolder(config.node.state)
    for name, value in {"FLWR_HOME": tmp_path / "flower", SOCKET_VARIABLE: folder.socket, STATE_VARIABLE: folder.training}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(client.executor, "POLL_S", 0.02)
    site_wire.cache_clear()
    node, tensors = SuperNode(tmp_path), pack_tensors(make_tensors())
    round_ = [
        ("query", write_request(make_request(Action.DESCRIBE))),
        ("train", write_request(make_request(), tensors)),
        ("evaluate", write_request(make_request(Action.EVALUATE), tensors)),
    ]
    with serving(config), node.serve(), running(node, local_app):
        for kind, content in round_:
            node.put(content, message_type=kind)
            assert not node.wait_for_reply().has_error()
            node.wait_for_end_of_task()
        with TrainerChannel(folder.socket) as trainer:
            assert trainer.status().tasks_done == 2
    assert list(marker.iterdir()) == []
    assert not (tmp_path / "flower").exists(), "nor was it unpacked"
    loaded = {str(getattr(module, "__file__", "")) for module in list(sys.modules.values())}
    assert not any("hostile" in Path(name).parts for name in loaded)


@contextmanager
def open_folder() -> Iterator[Path]:
    """Yield a folder that other users may enter; pytest's own are closed to them."""
    folder = Path(tempfile.mkdtemp(prefix="gmmas-hostile-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def as_user(command: list[str], user: int, *, mount_point: Path) -> list[str]:
    """Return a command that runs as a user without any right of root's.

    Where the interpreter lies in a home that is closed to others, a namespace of its own shows it in an open one.
    """
    rights = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all", "--ambient-caps=-all"]
    ways = list(Path(sys.executable).resolve().parents)
    closed = next((place for place in reversed(ways) if not place.stat().st_mode & 0o001), None)
    if user == 0 or closed is None:
        return [*rights, *command]
    mount_point.mkdir(exist_ok=True)
    shown = ways[ways.index(closed) - 1]
    steps = 'mount --bind "$1" "$2" && mount -t tmpfs -o mode=755 none "$0" && mkdir "$1" && mount --bind "$2" "$1" && shift 2 && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", steps, str(closed), str(shown), str(mount_point), *rights, *command]


@contextmanager
def flowers_executor(node: SuperNode, *, home: Path, user: int) -> Iterator[None]:
    """Run flower-superexec as a user, with the files that it needs in a home of its own."""
    home.mkdir(mode=0o700)
    (home / "secret").write_bytes(SECRET)
    (home / "authority.pem").write_bytes(node.address.root_certificates)
    for path in (home, *home.iterdir()):
        os.chown(path, user, user)
    programs = Path(sys.executable).parent
    environment = {
        "PATH": f"{programs}{os.pathsep}{os.defpath}",
        "HOME": str(home),
        "FLWR_HOME": str(home / "flower"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
    }
    command = [
        *(str(programs / "flower-superexec"), "--runtime-api-address", node.address.address),
        *("--root-certificates", str(home / "authority.pem"), "--superexec-auth-secret-file", str(home / "secret")),
    ]
    process = subprocess.Popen(
        as_user(command, user, mount_point=home.parent / "bound"), env=environment, cwd=home.parent, start_new_session=True
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("account", [pytest.param("own", marks=pytest.mark.slow), "second"])
def test_flowers_own_executor_runs_it_and_file_rights_decide_what_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, account: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may start a process of another user")
    user = 0 if account == "own" else pwd.getpwnam("nobody").pw_uid
    with open_folder() as folder:
        scan, marker = folder / "cohort" / "scan.nii.gz", folder / "marker"
        scan.parent.mkdir(mode=0o700)
        scan.write_bytes(b"x" * 100)
        marker.mkdir()
        marker.chmod(0o1777)
        if user:
            probe = as_user([sys.executable, "-c", "import flwr"], user, mount_point=folder / "bound")
            if subprocess.run(probe, cwd=folder, check=False, capture_output=True).returncode:
                pytest.skip("a second user cannot reach this interpreter")
        monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
        ship(monkeypatch, hostile_bundle(scan=scan, marker=marker))
        node = SuperNode(tmp_path)
        with node.serve(), flowers_executor(node, home=folder / "home", user=user):
            node.put(RecordDict({"task": ConfigRecord({"document": "hello"})}), message_type="train")
            wait_until(lambda: any(path.read_text() for path in marker.iterdir()), timeout_s=120, what="the planted code")
            told = {path.read_text() for path in marker.iterdir()}
        assert told == {f"{user} {'PermissionError' if user else 'read 100'}"}
