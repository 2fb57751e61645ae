"""SIGKILL for every kind of process at every stage of a run, and a line that is cut: the run ends in the weights of an unbroken one."""

import time
from collections.abc import Iterator

import pytest

from gmmas_schema.events import EventKind
from server.checkpoint import RunFolder
from tests.faults.federation import STAGES, Federation, Story, forget, kill, missing_replies, outcome, training
from tests.faults.table import EQUAL, MISSING, Row, write_row

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(1500)]

VICTIMS = ("serverapp", "superlink", "superexec", "trainer", "executor", "supernode")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with Federation(tmp_path_factory.mktemp("faults")).up() as up:
        yield up


@pytest.fixture(scope="module")
def unbroken(federation: Federation) -> dict[str, bytes | str]:
    folder, story = federation.run()
    found = outcome(folder)
    write_row(Row("none", "", EQUAL, story.resumes, failed_attempts(story), story.seconds))
    assert (story.resumes, missing_replies(folder)) == (0, 0)
    return found


def failed_attempts(story: Story) -> int:
    return sum(event.kind is EventKind.ROUND_FAILED for event in story.events)


def settle(fault: str, stage: str, folder: RunFolder, story: Story, unbroken: dict[str, bytes | str], *, note: str = "") -> None:
    """Compare a run with the unbroken one, and write it down whatever came out."""
    found, missing = outcome(folder), missing_replies(folder)
    result = EQUAL if found == unbroken else MISSING if missing else "other weights"
    write_row(Row(fault, stage, result, story.resumes, failed_attempts(story), story.seconds, note))
    assert missing == 0
    assert found == unbroken
    forget(folder)


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("stage", ["training", "checkpointing", "calibrating", "replying", "waiting for sites"])
def test_a_killed_process_changes_nothing(federation: Federation, unbroken: dict[str, bytes | str], victim: str, stage: str) -> None:
    folder, story = federation.run(moment=STAGES[stage], fault=kill(victim))
    settle(f"SIGKILL of the {victim}", stage, folder, story, unbroken)


@pytest.mark.parametrize("seconds", [10, 60, 180])
@pytest.mark.parametrize("kind", ["stalled", "broken"])
def test_a_cut_line_changes_nothing(federation: Federation, unbroken: dict[str, bytes | str], kind: str, seconds: int) -> None:
    def cut(federation: Federation) -> None:
        assert federation.line is not None
        with getattr(federation.line, kind)():
            time.sleep(seconds)

    folder, story = federation.run(moment=training, fault=cut)
    settle(f"line {kind} for {seconds} s", "training", folder, story, unbroken)
