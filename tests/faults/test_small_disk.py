"""A disk that is full or read-only ends the work with one clear error, and the work goes on once there is room."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gmmas_schema.errors import FederationError, GmmasError, ReasonCode
from gmmas_schema.events import Event, EventKind
from gmmas_workflows.site_state import SiteState
from server.app import run_in_folder
from server.checkpoint import RunFolder
from server.events import read_events
from server.submission import is_at_work
from tests.client.serving import TIMEOUT_S, make_tensors, serving
from tests.client.sites import make_request, read_site
from tests.faults.small_disk import SmallDisk, small_disk
from tests.faults.table import EQUAL, Row, write_row
from tests.server.simulated_sites import RecordingTracker, make_grid
from tests.server.test_resume import new_folder, outcome, run, sites

pytestmark = pytest.mark.faults


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", mib=16) as made:
        yield made


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = new_folder(tmp_path_factory.mktemp("unbroken") / "run")
    run(make_grid(*sites()), folder)
    return outcome(folder)


def resume(folder: RunFolder) -> object:
    run_in_folder(make_grid(*sites()), RunFolder.open(folder.path), tracker=RecordingTracker())
    return outcome(folder)


def _note(fault: str, stage: str, since: float, *, outcome: str = EQUAL, resumes: int = 1) -> None:
    row = Row(fault, stage, outcome, resumes=resumes, failed_attempts=0, seconds=time.monotonic() - since, note="within one process")
    write_row(row)


@pytest.mark.parametrize(
    ("kind", "leave_bytes"),
    [
        (EventKind.RUN_STARTED, 0),
        (EventKind.ROUND_STARTED, 65536),
        (EventKind.REPLY_ACCEPTED, 4096),
        (EventKind.MODEL_REGISTERED, 0),
    ],
)
def test_a_run_on_a_full_disk_says_so_and_goes_on_once_there_is_room(
    disk: SmallDisk, unbroken: object, kind: EventKind, leave_bytes: int
) -> None:
    filled, since = [], time.monotonic()

    def fill(event: Event) -> None:
        if event.kind is kind and event.round in {0, 2, 4, None} and not filled:
            filled.append(event)
            disk.fill(leave_bytes=leave_bytes)

    folder = new_folder(disk.path / "run")
    with pytest.raises(FederationError) as caught:
        run_in_folder(make_grid(*sites()), folder, tracker=RecordingTracker(), on_event=fill)
    assert caught.value.code is ReasonCode.DISK
    assert caught.value.where.startswith(str(folder.path))
    assert "make room" in caught.value.remedy
    before = folder.finished_rounds()
    assert not list(folder.path.rglob(".unfinished-*"))
    disk.free()
    folder.load_round(before[-1])
    read_events(folder.events_path)
    assert resume(folder) == unbroken
    assert folder.finished_rounds() >= before
    _note("disk of the coordinator full", kind.value.replace("_", " "), since)


def test_a_run_on_a_read_only_disk_says_so(disk: SmallDisk, unbroken: object) -> None:
    since, folder = time.monotonic(), new_folder(disk.path / "run")
    with disk.read_only():
        assert not is_at_work(folder.path)
        with pytest.raises(FederationError) as caught:
            run_in_folder(make_grid(*sites()), folder, tracker=RecordingTracker())
    assert caught.value.code is ReasonCode.DISK
    assert "read-only" in caught.value.got
    assert resume(folder) == unbroken
    _note("disk of the coordinator read-only", "run started", since)


def test_a_run_whose_models_will_not_fit_is_not_begun(disk: SmallDisk) -> None:
    folder = new_folder(disk.path / "run")
    tensors = {"a": np.zeros(2**20, dtype=np.float32)}
    with pytest.raises(FederationError, match="too little room for the models of this run"):
        folder.require_room(tensors)


def test_a_site_whose_disk_is_full_answers_with_that_and_trains_once_there_is_room(tmp_path: Path, disk: SmallDisk) -> None:
    since, config = time.monotonic(), read_site(tmp_path / "site")
    config = config.model_copy(update={"node": config.node.model_copy(update={"state": disk.path / "state"})})
    with serving(config) as trainer:
        disk.fill(leave_bytes=16384)
        with pytest.raises(GmmasError) as caught:
            trainer.train(make_request(), make_tensors(), timeout_s=TIMEOUT_S)
        assert caught.value.code is ReasonCode.DISK
        disk.free()
        report, trained = trainer.train(make_request(), make_tensors(), timeout_s=TIMEOUT_S)
        assert trained
        assert report.steps == 2
        disk.fill()
        with pytest.raises(GmmasError) as caught:
            trainer.train(make_request(number=2), make_tensors(), timeout_s=TIMEOUT_S)
        assert caught.value.code is ReasonCode.AUDIT_LOG, "nothing leaves that is not on record"
        disk.free()
        assert trainer.train(make_request(number=2), make_tensors(), timeout_s=TIMEOUT_S)[1]
    _note("disk of a site full", "training", since, outcome="says so, trains once there is room", resumes=0)


def test_a_state_that_cannot_be_written_leaves_the_one_before(disk: SmallDisk) -> None:
    state = SiteState(disk.path / "training", kind="feedback")
    first = {"a": np.arange(4, dtype=np.float32)}
    state.write(first, run="r", round=1)
    disk.fill()
    state.write({"a": np.zeros(200_000, dtype=np.float32)}, run="r", round=2)
    assert np.array_equal(state.before(run="r", round=3)["a"], first["a"])
    assert [file.name for file in (disk.path / "training").iterdir()] == ["feedback-000001.safetensors"]


def test_a_run_cannot_be_made_on_a_full_disk_and_says_so(disk: SmallDisk) -> None:
    disk.fill()
    with pytest.raises(FederationError, match="the disk is full"):
        new_folder(disk.path / "run")
    disk.free()
    assert new_folder(disk.path / "run").finished_rounds() == ()
