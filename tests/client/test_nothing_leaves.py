"""Markers are planted wherever a hospital keeps something of its own; a run with failures goes through real messages; nothing of it leaves.

Planted: patient and case identifiers, names of folders and files, cells of the table of labels, headers of scans, texts of exceptions of
every kind, names and reasons of the hospital's operators. Searched: every message both ways, the coordinator's folder with its events,
checkpoints and MLflow store, and the coordinator's log; as they are, in other encodings, and as plain hashes.
"""

import base64
import hashlib
import itertools
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest
import yaml
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict

import client.app
import client.trainer_servicer
from client.app import SOCKET_VARIABLE, STATE_VARIABLE, app
from client.folder import NodeFolder
from client.interventions import pause_site, resume_site
from client.policy import Override, Overrides
from gmmas_schema.errors import DataError, ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.federation import FederationConfig, QuorumConfig, TrackingConfig, TrainingPlan
from gmmas_schema.messages import Action, TaskRequest
from gmmas_schema.site import SiteConfig
from gmmas_workflows.training import LocalTrainer
from server.checkpoint import RunFolder
from server.events import EventLog, read_events
from server.local_grid import LocalGrid
from server.records import Outcome
from server.rounds import run_federation
from server.tracking import MlflowTracker
from tests.client.serving import serving
from tests.client.sites import PATIENT, TINY, write_site
from tests.server.simulated_sites import Clock

CLINIC, CELL, HEADER, FAULT, PERSON, WHY = (f"{name}-PLANTED" for name in ("clinic", "cell", "header", "fault", "person", "why"))
MARKERS = (PATIENT, CLINIC, CELL, HEADER, FAULT, PERSON, WHY)
CASES = 6


def forms(marker: str) -> Iterator[bytes]:
    """Yield a marker as it is and as it might be disguised."""
    raw = marker.encode()
    yield from (raw, raw.lower(), raw[::-1], raw.hex().encode(), marker.encode("utf-16-le"))
    for start in range(3):  # base 64 of a text that holds it, wherever it begins
        encoded = base64.b64encode(b"." * start + raw)
        yield encoded[4 * (start > 0) : len(encoded) - 4]
    for name in ("md5", "sha1", "sha256"):
        digest = hashlib.new(name, raw)
        yield from (digest.digest(), digest.hexdigest().encode())


SOUGHT = {form: marker for marker in (*MARKERS, *(f"{PATIENT}-{n}" for n in range(CASES))) for form in forms(marker)}


def found_in(blob: bytes) -> set[str]:
    return {marker for form, marker in SOUGHT.items() if form in blob}


def bytes_of(message: Message) -> bytes:
    """Return everything that a message carries."""
    parts = [repr(vars(message.metadata)).encode(), repr(message.error).encode() if message.has_error() else b""]
    for name, record in message.content.items() if message.has_content() else ():
        parts.append(str(name).encode())
        if isinstance(record, ArrayRecord):
            parts += [str(key).encode() + array.data for key, array in record.items()]
        else:
            parts.append(repr(dict(record)).encode())
    return b"\n".join(parts)


def plant(folder: Path, site: str, **policy: Any) -> SiteConfig:
    """Write a site whose every corner holds a marker."""
    path = write_site(folder, cases=CASES)
    labels = folder / "labels.csv"
    head, *rows = labels.read_text().splitlines()
    labels.write_text("\n".join([f"{head},{CELL}", *(f"{row},{CELL}" for row in rows)]))
    for scan in sorted(folder.rglob("*.nii")):
        image = nib.load(scan, mmap=False)
        image.header["descrip"] = HEADER
        nib.save(nib.Nifti1Image(image.dataobj[...], image.affine, image.header), scan)
    broken = sorted(folder.rglob("*_t1.nii"))[0]
    broken.write_bytes(broken.read_bytes()[:400])
    raw = yaml.safe_load(path.read_text())
    raw["site"], raw["policy"] = site, policy
    raw["data"]["skip_bad_cases"] = True
    path.write_text(yaml.safe_dump(raw))
    return SiteConfig.from_yaml(path)


class Hospital:
    """A node behind a function: the real app asks the real trainer over its socket."""

    def __init__(self, config: SiteConfig) -> None:
        self._folder = NodeFolder(config.node.state)

    def __call__(self, message: Message, context: Context) -> Message:
        os.environ[SOCKET_VARIABLE], os.environ[STATE_VARIABLE] = str(self._folder.socket), str(self._folder.training)
        return app(message, context)


def fail_once(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, error: Exception, *, at: int = 1) -> None:
    """Let the at-th call of a function raise."""
    calls, true = itertools.count(1), getattr(owner, name)

    def maybe(*arguments: Any, **options: Any) -> Any:
        if next(calls) == at:
            raise error
        return true(*arguments, **options)

    monkeypatch.setattr(owner, name, maybe)


@dataclass(frozen=True)
class Ended:
    """What a run has left: the coordinator's folder, the hospitals', every message, and the log of either side."""

    folder: RunFolder
    hospitals: Path
    messages: list[bytes]
    log: str
    log_of_sites: str


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Run the federation once."""
    hospitals = tmp_path_factory.mktemp("hospitals") / CLINIC
    shut = datetime.now(UTC) + timedelta(hours=12)
    hours = [f"{shut:%H}:00-{shut + timedelta(hours=1):%H}:00"]
    north, south = plant(hospitals / "north", "north"), plant(hospitals / "south", "south", hours=hours)
    where = f"{hospitals}/north/data/{PATIENT}-0"
    messages: list[bytes] = []
    logs: dict[bool, list[str]] = {True: [], False: []}

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logs[record.name.split(".")[0] in ("server", "strategies")].append(self.format(record))

    handler = Keep()
    with pytest.MonkeyPatch.context() as monkeypatch, ExitStack() as stack:
        monkeypatch.setenv(SOCKET_VARIABLE, "")
        monkeypatch.setenv(STATE_VARIABLE, "")
        logging.getLogger().addHandler(handler)
        stack.callback(logging.getLogger().removeHandler, handler)
        fault = f"{FAULT} in {where}"
        fail_once(monkeypatch, client.app, "write_report", RuntimeError(fault))
        fail_once(monkeypatch, LocalTrainer, "train", OSError(5, fault, where), at=2)
        fail_once(monkeypatch, client.trainer_servicer, "report_evaluation", DataError(fault, where=where, got=PATIENT, expected=CELL))
        for config in (north, south):
            stack.enter_context(serving(config))
        override = Override(code=ReasonCode.POLICY_HOURS, until=datetime.now(UTC) + timedelta(hours=1), reason=WHY, by=PERSON)
        clock = Clock()
        # South is closed; its people open it for a while. North's people pause it, and let it take part again.
        clock.at[20.0] = lambda: Overrides(given=(override,)).write(NodeFolder(south.node.state).overrides)
        pause_site(north, by=PERSON, reason=WHY)
        clock.at[15.0] = lambda: resume_site(north, by=PERSON) and None
        config = FederationConfig(
            name="t",
            rounds=2,
            model=TINY,
            training=TrainingPlan(local_steps=1, precision="fp32"),
            quorum=QuorumConfig(sites=2, replies=1, round_attempts=4),
        )
        folder = RunFolder.create(tmp_path_factory.mktemp("coordinator") / "run", config, run="r")
        grid = LocalGrid({10: Hospital(north), 11: Hospital(south)}, watch=lambda message: messages.append(bytes_of(message)))
        tracker = MlflowTracker(TrackingConfig(), folder.path)
        run_federation(grid, folder, tracker=tracker, events=EventLog(folder.events_path), timing=clock.timing())
    return Ended(folder, hospitals, messages, "\n".join(logs[True]), "\n".join(logs[False]))


def test_the_search_finds_what_it_is_to_find() -> None:
    request = TaskRequest(action=Action.DESCRIBE, run=PATIENT, round=0, rounds=1, seed=0, model=TINY)
    message = Message.__new__(Message)
    content = RecordDict({"task": ConfigRecord({"document": request.model_dump_json()})})
    message.__dict__.update({"_metadata": SimpleMetadata(), "_content": content, "_error": None})
    assert found_in(bytes_of(message)) == {PATIENT}
    message.__dict__.update({"_content": None, "_error": Error(1, FAULT)})
    assert found_in(bytes_of(message)) == {FAULT}
    assert found_in(base64.b64encode(f"ab {CLINIC} cd".encode())) == {CLINIC}
    assert found_in(hashlib.sha256(f"{PATIENT}-3".encode()).hexdigest().encode()) == {f"{PATIENT}-3"}
    assert found_in(b"nothing of interest") == set()


class SimpleMetadata:
    """Says nothing."""


def test_the_run_had_its_failures_and_ended(ended: Ended) -> None:
    folder = ended.folder
    assert folder.read_result() is not None
    events = read_events(folder.events_path)
    codes = {event.code for event in events if event.kind in (EventKind.SITE_REFUSED, EventKind.REPLY_REFUSED)}
    assert codes >= {ReasonCode.PAUSED, ReasonCode.POLICY_HOURS, ReasonCode.TRAINER, ReasonCode.DATA}
    outcomes = {(site.site, site.outcome) for number in (1, 2) for site in folder.read_record(number).sites}
    assert {site for site, outcome in outcomes if outcome is Outcome.ACCEPTED} == {"north", "south"}
    assert len(ended.messages) > 12
    for marker in (FAULT, PATIENT, CLINIC):
        assert marker in ended.log_of_sites, "the site itself is told everything"


def test_no_message_holds_a_marker(ended: Ended) -> None:
    for number, message in enumerate(ended.messages):
        assert not found_in(message), f"message {number}"


def test_nothing_at_the_coordinator_holds_a_marker(ended: Ended) -> None:
    files = [path for path in ended.folder.path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"events.db", "mlflow.db", "model.safetensors", "result.json"}
    for path in files:
        assert not found_in(path.read_bytes()), path.name
        assert not found_in(path.name.encode())
    assert not found_in(ended.log.encode())


def test_the_hospitals_own_record_holds_nothing_of_a_patient(ended: Ended) -> None:
    records = b"".join(path.read_bytes() for path in ended.hospitals.rglob("audit-log/*.jsonl"))
    assert records.count(b"\n") > 10
    assert found_in(records) == {PERSON, WHY}
