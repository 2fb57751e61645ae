"""A simulation gives the same run whatever the number of processes, and stops and goes on like any other run."""

import pytest

from gmmas_schema.errors import FederationError, ReasonCode
from gmmas_schema.events import EventKind
from server.checkpoint import RunFolder
from server.events import read_events
from server.simulation import NoTracker, simulate
from tests.server.simulated_sites import SimulatedSite, make_config

SITES = [f"site{number:02d}" for number in range(6)]


def sites():
    return {name: PicklableSite(name) for name in SITES}


class PicklableSite:
    """A stand-in for training that travels to a worker."""

    def __init__(self, name):
        self.name = name

    def __call__(self, message, context):
        return SimulatedSite(self.name)(message, context)


def make_folder(path, *, join_deadline_s=60.0, **keys):
    config = make_config(sites=6, replies=6, **keys)
    quorum = config.quorum.model_copy(update={"join_deadline_s": join_deadline_s})
    return RunFolder.create(path, config.model_copy(update={"quorum": quorum}), run="r")


@pytest.mark.slow
def test_the_run_does_not_depend_on_the_number_of_processes(tmp_path):
    told = []
    results = [
        simulate(make_folder(tmp_path / str(processes)), sites(), tracker=NoTracker(), processes=processes, on_event=told.append)
        for processes in (1, 3)
    ]
    assert results[0].last_sha256 == results[1].last_sha256
    assert results[0].best_sha256 == results[1].best_sha256
    ends = [event for event in told if event.kind is EventKind.RUN_FINISHED]
    assert len(ends) == 2
    replies = [event for event in read_events(tmp_path / "3" / "events.db") if event.kind is EventKind.REPLY_ACCEPTED]
    assert {event.site for event in replies if event.round == 1} == set(SITES)


@pytest.mark.slow
def test_no_site_is_late_however_short_the_deadline(tmp_path):
    folder = make_folder(tmp_path / "run", rounds=1, deadline_s=0.001)
    simulate(folder, sites(), tracker=NoTracker(), processes=2)
    assert not [event for event in read_events(folder.events_path) if event.kind is EventKind.REPLY_MISSING]


def test_a_run_that_fails_says_so_and_goes_on(tmp_path):
    folder = make_folder(tmp_path / "run", rounds=2)
    broken = sites() | {"site03": lambda message, context: 1 / 0}
    with pytest.raises(FederationError):
        simulate(folder, broken, tracker=NoTracker())
    last = read_events(folder.events_path)[-1]
    assert (last.kind, last.code) == (EventKind.RUN_FAILED, ReasonCode.QUORUM)
    result = simulate(folder, sites(), tracker=NoTracker())
    assert result.last_sha256 == simulate(make_folder(tmp_path / "unbroken", rounds=2), sites(), tracker=NoTracker()).last_sha256
