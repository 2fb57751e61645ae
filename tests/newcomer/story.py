"""A newcomer's story: three machines, from nothing to a trained round, with the documentation's commands and no others.

What is not in the documentation, because it is not done with this software: a machine's own system, its scans (phantoms), names of hosts,
files that people send one another, the text of a federation.yaml.
"""

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from gmmas_data.phantom import make_cohorts
from gmmas_schema.phantom import PhantomSpec
from tests.gmmas_runtime.waiting import wait_until
from tests.newcomer.machine import RELEASE, Machine, Machines, connect
from tests.newcomer.steps import EVERY, Step

HOSPITALS: Final = ("north", "south")
HOST: Final = "fed.example.org"
RUN: Final = "/srv/gmmas/runs/first"
NEIGHBOUR: Final = "neighbour"
NODE_PROCESSES: Final = ("trainer", "supernode", "executor")
FINGERPRINT: Final = re.compile(r"\b[A-Z2-7]{4}(?:-[A-Z2-7]{4}){3}\b")

PHANTOMS: Final = PhantomSpec.model_validate(
    {
        "seed": 11,
        "spacing_mm": 3.0,
        "sites": [
            {"name": "north", "cases": 5, "scanner": "research-3t"},
            {"name": "south", "cases": 5, "scanner": "clinical-1.5t", "modalities": ["t1", "t2", "flair"]},
        ],
    }
)
FEDERATION: Final = {
    "name": "first",
    "seed": 5,
    "rounds": 1,
    "model": {
        "network": {"channels": [4, 8], "blocks": [1, 1], "transformer_heads": 2},
        "grid": {"spacing_mm": 8.0, "shape": [24, 24, 24]},
    },
    "training": {"local_steps": 4, "precision": "fp32"},
    "quorum": {"sites": 2, "replies": 2, "join_deadline_s": 300, "round_deadline_s": 300},
}
"""Both hospitals have to be there and to answer."""


@dataclass
class Told:
    """What was seen on the way.

    Attributes:
        coordinator, hospitals: the machines, still up.
        printed: what each step printed, by (step, machine).
        addresses: of each hospital on its wire to the coordinator.
        facts: other observations, by name.
    """

    coordinator: Machine
    hospitals: dict[str, Machine]
    addresses: dict[str, str]
    printed: dict[tuple[str, str], str] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)


class Newcomer:
    """Follows the steps.

    Args:
        steps: of the documentation.
        told: is filled in.
        transcript: file that gets every command and what it printed.
    """

    def __init__(self, steps: dict[str, Step], told: Told, transcript: Path) -> None:
        self._steps, self.told, self._transcript = steps, told, transcript

    def do(self, name: str, machine: Machine, *, expected: int = 0, **given: str) -> str:
        """Run a step on a machine, with the examples' names replaced by those that hold there."""
        step = self._steps[name]
        kind = "coordinator" if machine is self.told.coordinator else "hospital"
        assert step.machine in (kind, EVERY), f"{name} is for {step.machine}"
        commands = step.commands.replace("north", machine.name) if kind == "hospital" else step.commands
        for example, value in given.items():
            commands = commands.replace(example, value)
        start = time.monotonic()
        printed = machine.run(commands, user=step.user, expected=expected)
        with self._transcript.open("a") as transcript:
            transcript.write(f"## {name} on {machine.name} as {step.user}, {time.monotonic() - start:.1f} s\n{commands}\n{printed}\n")
        self.told.printed[name, machine.name] = printed
        return printed


def start_machines(place: Machines) -> Told:
    """Start a coordinator and two hospitals, each hospital with a wire to the coordinator and none to the other."""
    coordinator = place.start("coordinator", first_uid=310)
    hospitals = {name: place.start(name, first_uid=330 + 20 * number) for number, name in enumerate(HOSPITALS)}
    addresses = {}
    for number, (name, machine) in enumerate(hospitals.items()):
        there, addresses[name] = connect(coordinator, machine, network=number)
        machine.run(f"echo '{there} {HOST}' >> /etc/hosts")
    for machine in (coordinator, *hospitals.values()):
        machine.run(f"adduser --system --group --no-create-home {NEIGHBOUR}")
    return Told(coordinator, hospitals, addresses)


def begin(newcomer: Newcomer, folder: Path) -> None:
    """Set up the coordinator, let both hospitals join, and start their nodes."""
    told = newcomer.told
    coordinator = told.coordinator
    newcomer.do("coordinator-user", coordinator)
    newcomer.do("coordinator-init", coordinator)
    newcomer.do("coordinator-service", coordinator)
    _wait_for("coordinator-status", newcomer, coordinator)
    make_cohorts(PHANTOMS, folder / "cohorts", processes=1)
    for name, machine in told.hospitals.items():
        machine.put(folder / "cohorts" / name, "/data/glioma")
        machine.put(coordinator.root / "srv/gmmas/authority/authority.pem", f"{RELEASE}/authority.pem")
        newcomer.do("hospital-user", machine)
        newcomer.do("join-init", machine)
        newcomer.do("join-check", machine, expected=1)
        read_out = FINGERPRINT.findall(newcomer.do("join-fingerprint", machine))
        assert len(read_out) == 1
        letter = f"srv/gmmas/{name}.enrolment.json"
        coordinator.put(machine.root / "srv/gmmas/keys" / f"{name}.enrolment.json", f"/{letter}", owner="gmmas-fed")
        newcomer.do("join-enrol", coordinator, **{"ABCD-EFGH-IJKL-MNOP": read_out[0], "north": name})
        newcomer.do("join-check-again", machine)
        newcomer.do("hospital-service", machine)
    for machine in told.hospitals.values():
        _wait_for("hospital-status", newcomer, machine)
    wait_until(lambda: newcomer.do("join-online", coordinator).count("online") == len(HOSPITALS), timeout_s=180, what="two nodes online")


def train(newcomer: Newcomer, folder: Path) -> None:
    """Do the first run."""
    (folder / "federation.yaml").write_text(yaml.safe_dump(FEDERATION))
    newcomer.told.coordinator.put(folder / "federation.yaml", "/srv/gmmas/federation.yaml", owner="gmmas-fed")
    newcomer.do("first-run", newcomer.told.coordinator)


def look(told: Told) -> None:
    """Note who listens where, and who reaches and reads what."""
    north, south = (told.hospitals[name] for name in HOSPITALS)
    for machine in (told.coordinator, north, south):
        told.facts["listening", machine.name] = _listeners(machine)
        for path in ("/srv/gmmas", "/data/glioma"):
            told.facts["readable", machine.name, path] = _readable(machine, path, as_user=NEIGHBOUR)
    other = _uid(south, "gmmas-node")
    told.facts["uids"] = {_uid(machine, "gmmas-node") for machine in (north, south)}
    # Root is asked for a file that is there, or else nobody's rights would have been tested.
    for path in ("/srv/gmmas/keys/north", "/data/glioma/labels.csv"):
        told.facts["another hospital's user", path] = {
            "root": north.runs(f"head --bytes 1 {path}"),
            "north": north.runs(f"head --bytes 1 {path}", user="gmmas-node"),
            "south": north.runs(f"setpriv --reuid {other} --regid {other} --clear-groups head --bytes 1 {path}"),
        }
    told.facts["ways"] = {
        "north to the coordinator's port": _reaches(north, HOST, 9443),
        "north to its dashboard": _reaches(north, HOST, 9093),
        "north to south": _reaches(north, told.addresses["south"], 19091),
        "coordinator to north": _reaches(told.coordinator, told.addresses["north"], 19091),
    }
    for machine in (north, south):
        audit = machine.run("gmmas site audit verify -c /srv/gmmas/site.yaml", user="gmmas-node")
        told.facts["record", machine.name] = audit
        told.facts["written outside", machine.name] = machine.files_of(_uid(machine, "gmmas-node"))


def go_on(newcomer: Newcomer) -> None:
    """Back up one hospital, switch its release, and see it come back."""
    north = newcomer.told.hospitals["north"]
    newcomer.do("hospital-backup", north)
    newcomer.told.facts["backup"] = north.run("tar --list --file /var/backups/gmmas-node.tar.gz").split()
    newcomer.told.facts["backup rights"] = north.run("stat --format %a:%U /var/backups/gmmas-node.tar.gz").strip()
    newcomer.do("rollback", north)
    wait_until(lambda: _all_run(newcomer, north), timeout_s=240, what="the node's three processes after the rollback")


def leave(newcomer: Newcomer) -> None:
    """Take everything of one hospital's node away again."""
    south = newcomer.told.hospitals["south"]
    uid = _uid(south, "gmmas-node")
    newcomer.do("uninstall", south)
    newcomer.told.facts["left"] = [*south.files_of(uid), *south.run("ls /opt /srv /usr/local/bin").split()]
    newcomer.told.facts["user is gone"] = not south.runs("id gmmas-node")


def tell_everything(place: Machines, steps: dict[str, Step], folder: Path) -> Told:
    """Go through the whole story; `folder` gets a transcript."""
    told = start_machines(place)
    newcomer = Newcomer(steps, told, folder / "transcript.txt")
    begin(newcomer, folder)
    train(newcomer, folder)
    result = told.coordinator.root / RUN.lstrip("/")
    told.facts["result"] = (result / "result.json").read_text()
    told.facts["round"] = (result / "rounds" / "0001" / "round.json").read_text()
    look(told)
    go_on(newcomer)
    leave(newcomer)
    return told


def _wait_for(step: str, newcomer: Newcomer, machine: Machine) -> None:
    """Do a step again until it succeeds, as somebody would who waits for a service."""

    def succeeds() -> bool:
        try:
            newcomer.do(step, machine)
        except AssertionError as error:
            newcomer.told.facts["waiting", step, machine.name] = str(error)
            return False
        return True

    wait_until(succeeds, timeout_s=240, what=f"{step} on {machine.name}")


def _all_run(newcomer: Newcomer, hospital: Machine) -> bool:
    """Return whether trainer, SuperNode and executor run, which the second does once it is connected."""
    _wait_for("hospital-status", newcomer, hospital)
    return newcomer.told.printed["hospital-status", hospital.name].count("running") == len(NODE_PROCESSES)


def _listeners(machine: Machine) -> set[tuple[str, int]]:
    """Return the addresses and TCP ports on which anything listens."""
    found = set()
    for line in machine.run("ss --listening --tcp --numeric --no-header").splitlines():
        address, _, port = line.split()[3].rpartition(":")
        found.add((address.strip("[]").partition("%")[0], int(port)))
    return found


def _readable(machine: Machine, path: str, *, as_user: str) -> list[str]:
    """Return what a user can read below a path."""
    uid = _uid(machine, as_user)
    command = f"setpriv --reuid {uid} --regid {uid} --clear-groups find {path} -mindepth 1 2>/dev/null || true"
    return machine.run(command).split()


def _uid(machine: Machine, user: str) -> int:
    return int(machine.run(f"id --user {user}"))


def _reaches(machine: Machine, host: str, port: int) -> bool:
    return machine.runs(f"timeout 3 bash -c '</dev/tcp/{host}/{port}'")
