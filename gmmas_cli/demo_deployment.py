"""The demo's deployment: a coordinator and four hospitals on loopback, made by the steps and run by the commands that a real one uses.

coordinator/           gmmas server init, gmmas server up
sites/<name>/          gmmas site init (site.yaml, keys), gmmas server enrol, gmmas site start
cohorts/               gmmas phantom make
run/                   gmmas run
"""

import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from client.folder import NodeFolder
from gmmas_cli.site_setup import SiteAnswers, write_site
from gmmas_runtime.process_state import ProcessState, ProcessStatus, live_state
from gmmas_runtime.processes import ProcessSpec, Supervisor
from gmmas_schema.errors import FederationError
from gmmas_schema.phantom import PhantomSite, PhantomSpec
from gmmas_schema.site import SiteConfig
from gmmas_schema.vocabulary import TASKS
from server.deployment import enrol, init_coordinator, list_nodes, online_nodes
from server.folder import CoordinatorFolder

UNSEEN = "unseen"
"""Name of the cohort that no hospital of the demo trains on."""

START_TIMEOUT_S = 240.0
TRAINER_THREADS = 1
"""Four trainers share the machine; one thread each keeps two cores busy without waiting for one another."""


@dataclass(frozen=True)
class DemoFolder:
    """Where the demo keeps everything."""

    path: Path

    @property
    def cohorts(self) -> Path:
        """Phantom cohorts, one folder a hospital."""
        return self.path / "cohorts"

    @property
    def overview(self) -> Path:
        """Picture of a few patients of each hospital."""
        return self.cohorts / "phantom.png"

    @property
    def coordinator(self) -> Path:
        """The coordinator's folder."""
        return self.path / "coordinator"

    @property
    def run(self) -> Path:
        """The federated run's folder."""
        return self.path / "run"

    @property
    def cache(self) -> Path:
        """Preprocessed cases of the unseen hospital."""
        return self.path / "cache"

    @property
    def logs(self) -> Path:
        """Output of the demo's own child processes."""
        return self.path / "logs"

    def site(self, name: str) -> Path:
        """Folder of one hospital's node."""
        return self.path / "sites" / name

    def site_yaml(self, name: str) -> Path:
        """Configuration of one hospital's node."""
        return self.site(name) / "site.yaml"


def training_sites(spec: PhantomSpec) -> list[PhantomSite]:
    """Return the hospitals that take part in training."""
    return [site for site in spec.sites if site.name != UNSEEN]


def prepare_deployment(folder: DemoFolder, spec: PhantomSpec) -> None:
    """Make keys, certificates and configurations that are not there yet."""
    if not (folder.coordinator / "coordinator.yaml").exists():
        init_coordinator(folder.coordinator, port=_free_ports(1)[0], name="demo")
    opened = CoordinatorFolder.open(folder.coordinator)
    missing = [site for site in training_sites(spec) if not folder.site_yaml(site.name).exists()]
    for site, port in zip(missing, _free_ports(len(missing)), strict=True):
        cohort = folder.cohorts / site.name
        write_site(
            folder.site(site.name),
            SiteAnswers(
                site=site.name,
                data=cohort,
                labels=cohort / "labels.csv" if any(site.labelled.get(task, 1.0) for task in TASKS) else None,
                modalities=tuple(site.modalities),
                coordinator=opened.config.local_address,
                root_certificate=opened.authority_certificate,
                runtime_port=port,
                threads=TRAINER_THREADS,
            ),
        )


@contextmanager
def running_deployment(folder: DemoFolder, spec: PhantomSpec, *, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Run `gmmas server up`, enrol the hospitals, run `gmmas site start` for each; all of it ends with the context.

    Raises:
        GmmasError: a process failed to start; its own explanation is passed on.
    """
    folder.logs.mkdir(parents=True, exist_ok=True)
    names = [site.name for site in training_sites(spec)]
    opened = CoordinatorFolder.open(folder.coordinator)
    on_wait("coordinator starts")
    serves = partial(_is_ready, opened.state_file)
    with Supervisor([_command(folder, "coordinator", "server", "up", str(folder.coordinator), ready=serves)]) as coordinator:
        known = {node.name for node in list_nodes(folder.coordinator)}
        for name in names:
            if name not in known:
                enrol(folder.coordinator, public_key(folder, name), name=name)
        # All hospitals start at the same time; they are ready when the coordinator sees them.
        specs = [_command(folder, name, "site", "start", "--config", str(folder.site_yaml(name))) for name in names]
        on_wait("hospitals start")
        with Supervisor(specs) as sites:
            _wait_online(folder, len(names), [coordinator, sites], on_wait)
            yield


def public_key(folder: DemoFolder, name: str) -> Path:
    """Return the key that the coordinator enrols."""
    private_key = SiteConfig.from_yaml(folder.site_yaml(name)).node.private_key
    return private_key.with_name(private_key.name + ".pub")


def peak_memory_mib(folder: DemoFolder, spec: PhantomSpec) -> dict[str, float]:
    """Return the largest resident memory of every process in MiB, as the supervisors have seen it; to be asked while they run."""
    states = {"coordinator": CoordinatorFolder.open(folder.coordinator).state_file}
    for site in training_sites(spec):
        states[site.name] = NodeFolder(SiteConfig.from_yaml(folder.site_yaml(site.name)).node.state).state_file
    found = {owner: live_state(path) for owner, path in states.items()}
    return {f"{owner}/{process.name}": round(process.peak_mib, 1) for owner, state in found.items() if state for process in state.processes}


def _command(folder: DemoFolder, name: str, *arguments: str, ready: Callable[[], bool] | None = None) -> ProcessSpec:
    """Return a `gmmas` command in the foreground as a child process."""
    log_file = folder.logs / f"{name}.log"
    return ProcessSpec(
        name,
        (sys.executable, "-m", "gmmas_cli.main", *arguments),
        {"NO_COLOR": "1"},
        folder.path,
        log_file,
        ready=ready,
        ready_timeout_s=START_TIMEOUT_S,
        restart=False,
    )


def _wait_online(folder: DemoFolder, count: int, supervisors: list[Supervisor], on_wait: Callable[[str], None]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while (online := len(online_nodes(folder.coordinator))) < count:
        on_wait(f"{online} of {count} hospitals online")
        for process in (process for supervisor in supervisors for process in supervisor.status()):
            if process.state in (ProcessState.EXITED, ProcessState.FAILED):
                raise _start_failed(process)
        if time.monotonic() > deadline:
            raise FederationError(
                "the hospitals did not come online",
                where=folder.logs,
                got=f"{online} of {count} after {START_TIMEOUT_S:.0f} s",
                expected=f"{count} nodes online",
                remedy="read the logs there; a loaded machine may need a second try, which goes on from here",
            )
        time.sleep(2.0)


def _is_ready(state_file: Path) -> bool:
    state = live_state(state_file)
    return state is not None and state.ready


def _start_failed(process: ProcessStatus) -> FederationError:
    tail = Path(process.log_file).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-12:]
    return FederationError(
        f"{process.name} did not start",
        where=process.log_file,
        got="\n".join(tail),
        expected="a process that keeps running",
        remedy="mend what the log names and call `gmmas demo` again; it goes on from here",
    )


def _free_ports(count: int) -> list[int]:
    """Return TCP ports on loopback that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
