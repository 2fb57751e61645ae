"""Machines to follow the documentation on: each with users, files, services and a network of its own, and nothing left of it afterwards.

A machine is this computer's system under an overlay that takes what is written (Linux kernel, filesystems/overlayfs), in namespaces of its
own, with systemd as first process. So `adduser`, `systemctl` and paths like /srv stand for that machine alone. What is written lies in
memory. A pair of virtual cards is the only way from one machine to another; none leads to this computer or out of it.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.gmmas_runtime.waiting import wait_until

PROGRAMS: Final = tuple(
    map(Path, ("/usr/bin/unshare", "/usr/bin/nsenter", "/usr/sbin/ip", "/usr/sbin/adduser", "/usr/bin/python3.11", "/lib/systemd/systemd"))
)
BOOT: Final = Path(__file__).with_name("boot.sh")
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STORE: Final = "/mnt"
"""Where the memory disk lies, in a mount namespace that only the machines see."""
RELEASE: Final = "/root/gmmas-fed"
STORE_GIB: Final = 12
_NAMESPACES: Final = ("--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--root", "--wd")
_HIERARCHIES: Final = tuple(Path("/sys/fs/cgroup") / name for name in ("systemd", "unified", "."))


@dataclass(frozen=True)
class Machine:
    """One machine that has started; `pid` is that of its first process, as this computer counts, `upper` holds the files it has written."""

    name: str
    pid: int
    upper: Path

    @property
    def root(self) -> Path:
        """Its files, seen from here."""
        return Path(f"/proc/{self.pid}/root")

    def run(self, commands: str, *, user: str = "root", expected: int = 0, timeout_s: float = 900.0) -> str:
        """Run commands as somebody who has logged in, root in the folder of the release; returns what they print.

        Raises:
            AssertionError: their exit code is not `expected`; says what they printed.
        """
        script = f"set -euo pipefail\n{commands}"
        shell = f"cd {RELEASE}\n{script}" if user == "root" else script
        inside = ["bash", "-c", shell] if user == "root" else ["su", "-", user, "--shell", "/bin/bash", "--command", shell]
        command = ["nsenter", "--target", str(self.pid), *_NAMESPACES, "env", "-i", f"PATH={PATH}", "HOME=/root", *inside]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout_s, check=False
        )
        assert done.returncode == expected, f"{self.name}, {user}: exit code {done.returncode}\n{commands}\n{done.stdout}"
        return done.stdout

    def runs(self, commands: str, *, user: str = "root") -> bool:
        """Return whether commands end with exit code 0."""
        with contextlib.suppress(AssertionError):
            self.run(commands, user=user)
            return True
        return False

    def files_of(self, uid: int) -> list[str]:
        """Return what a user owns of the files that were written on this machine, but for disks in memory (/srv, /tmp, /run, /dev)."""
        found = []
        for folder, names, files in os.walk(self.upper):
            for path in (Path(folder) / name for name in (*names, *files)):
                if path.lstat().st_uid == uid:
                    found.append(f"/{path.relative_to(self.upper)}")
        return found

    def put(self, source: Path, target: str, *, owner: str = "root") -> None:
        """Copy a file or a folder to this machine, as if somebody had sent it."""
        place = self.root / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place)
        else:
            shutil.copyfile(source, place)
        self.run(f"chown --recursive {owner}: {target}")


class Machines:
    """Starts machines that share one installation of the software and the wires between them.

    Args:
        stack: ends them.
        release: the folder of the release, from this computer.
    """

    def __init__(self, stack: ExitStack, release: Path) -> None:
        self._stack, self._release, self._packages = stack, release, ""
        mount = f"mount -t tmpfs -o mode=755,size={STORE_GIB}g tmpfs {STORE} && echo ready && exec sleep infinity"
        self._holder = _keep(stack, ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount])
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"

    def install(self, commands: str) -> str:
        """Run the commands that install the software, with this computer's network; every machine that starts later has what they made."""
        place = f"{STORE}/software"
        steps = f"""
            mkdir -p {place}/upper {place}/work {place}/root
            mount -t overlay overlay -o lowerdir=/,upperdir={place}/upper,workdir={place}/work {place}/root
            mount -t tmpfs tmpfs {place}/root/tmp
            for folder in proc sys dev; do mount --rbind /$folder {place}/root/$folder; done
            mkdir -p {place}/root/{RELEASE}
            cp --recursive --no-preserve=ownership {self._release}/. {place}/root/{RELEASE}
            exec chroot {place}/root bash -euc 'cd {RELEASE} && exec bash -euo pipefail -c "$0"' "$1"
        """
        indexes = [
            f"{name}={value}" for name, value in os.environ.items() if name.upper().startswith("PIP_") or name.lower().endswith("_proxy")
        ]
        command = ["nsenter", "--target", str(self._holder.pid), "--mount", "unshare", "--mount", "--propagation", "private"]
        done = subprocess.run(
            [*command, "env", "-i", f"PATH={PATH}", "HOME=/root", *indexes, "sh", "-euc", steps, "install", commands],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}"
        return done.stdout

    def share(self, packages: Path) -> None:
        """Show a folder of this computer to every machine that starts later, as /opt/gmmas-packages."""
        self._packages = str(packages)

    def start(self, name: str, *, first_uid: int) -> Machine:
        """Start a machine whose next system user gets `first_uid`, since no two hospitals have the same accounts."""
        group = f"gmmas-newcomer-{name}-{os.getpid()}"
        groups = [path / group for path in _HIERARCHIES if (path / "cgroup.procs").exists()]
        for folder in groups:
            folder.mkdir()
            self._stack.callback(_remove_group, folder)
        enter = " && ".join(["true", *(f"echo $$ > {folder}/cgroup.procs" for folder in groups)])
        layers = f"{STORE}/software/upper:/"
        folders = " ".join(f"{STORE}/{name}/{part}" for part in ("upper", "work", "root"))
        apart = "unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child=KILL --propagation private"
        command = f"{enter} && mkdir -p {folders} && exec {apart} sh {BOOT} {name} {STORE} {layers} {self._packages}"
        process = _keep(self._stack, ["nsenter", "--target", str(self._holder.pid), "--mount", "sh", "-c", command])
        wait_until(lambda: _first_process(process) is not None, timeout_s=30, what=f"machine {name}")
        first = _first_process(process)
        assert first is not None
        machine = Machine(name, first, Path(f"/proc/{self._holder.pid}/root{STORE}/{name}/upper"))
        wait_until(lambda: machine.runs("systemctl is-active basic.target"), timeout_s=60, what=f"systemd on {name}")
        machine.run(f"printf '\\nFIRST_SYSTEM_UID={first_uid}\\n' >> /etc/adduser.conf")
        return machine


def connect(first: Machine, second: Machine, *, network: int) -> tuple[str, str]:
    """Connect two machines by a wire of their own; returns their addresses on it."""
    addresses = (f"10.77.{network}.1", f"10.77.{network}.2")
    ends = (f"to-{second.name}", f"to-{first.name}")
    _run("ip", "link", "add", ends[0], "netns", str(first.pid), "type", "veth", "peer", "name", ends[1], "netns", str(second.pid))
    for machine, card, address in zip((first, second), ends, addresses, strict=True):
        inside = ("nsenter", "--target", str(machine.pid), "--net", "ip")
        _run(*inside, "address", "add", f"{address}/30", "dev", card)
        _run(*inside, "link", "set", card, "up")
    return addresses


@contextmanager
def machines(release: Path) -> Iterator[Machines]:
    """Yield the place where machines start; skips where this computer does not allow them."""
    if os.geteuid() != 0:
        pytest.skip("only root may make machines of namespaces")
    if missing := [str(path) for path in PROGRAMS if not path.exists()]:
        pytest.skip(f"no {', '.join(missing)} here")
    with tempfile.TemporaryDirectory() as folder:
        probe = f"mount -t tmpfs tmpfs {folder} && mkdir {folder}/u {folder}/w {folder}/r"
        probe += f" && mount -t overlay overlay -o lowerdir=/,upperdir={folder}/u,workdir={folder}/w {folder}/r"
        apart = ["unshare", "--mount", "--pid", "--net", "--cgroup", "--fork", "--propagation", "private", "sh", "-c", probe]
        found = subprocess.run(apart, capture_output=True, text=True, check=False)
        if found.returncode:
            pytest.skip(f"namespaces with an overlay cannot be made here: {found.stderr.strip()}")
    with ExitStack() as stack:
        yield Machines(stack, release)


def environment_of_this_checkout(repository: Path) -> str:
    """Return commands that stand for the installation: Debian's Python with the packages of the environment that runs now."""
    programs = Path(sys.executable).parent
    return f"""
        python3.11 -m venv --without-pip /opt/gmmas-0.1.0
        mkdir -p /opt/gmmas-checkout /opt/gmmas-packages
        cp --recursive --no-preserve=ownership {repository}/{{gmmas_*,strategies,server,client}} /opt/gmmas-checkout
        echo 'import site, sys; sys.path.insert(0, "/opt/gmmas-checkout"); site.addsitedir("/opt/gmmas-packages")' \\
            > /opt/gmmas-0.1.0/lib/python3.11/site-packages/checkout.pth
        for program in {programs}/gmmas {programs}/fl*; do
            sed '1s|.*|#!/opt/gmmas-0.1.0/bin/python|' "$program" > "/opt/gmmas-0.1.0/bin/${{program##*/}}"
            chmod 755 "/opt/gmmas-0.1.0/bin/${{program##*/}}"
        done
        ln -sfn gmmas-0.1.0 /opt/gmmas
        ln -sfn /opt/gmmas/bin/gmmas /usr/local/bin/gmmas
    """


def _keep(stack: ExitStack, command: list[str]) -> subprocess.Popen[bytes]:
    """Start a process that is killed in the end, and with it all that lives in its namespaces."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)

    def end() -> None:
        process.kill()
        process.communicate()

    stack.callback(end)
    return process


def _first_process(process: subprocess.Popen[bytes]) -> int | None:
    """Return the process that has become systemd."""
    assert process.poll() is None, f"a machine did not start: {process.communicate()[0].decode(errors='replace')}"
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.Error):
            if child.name() == "systemd":
                return int(child.pid)
    return None


def _remove_group(folder: Path) -> None:
    """Remove a control group and those below it, once their processes are gone."""

    def gone() -> bool:
        for path, _, _ in os.walk(folder, topdown=False):
            with contextlib.suppress(OSError):
                Path(path).rmdir()
        return not folder.exists()

    wait_until(gone, timeout_s=20, what=f"the end of {folder}")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
