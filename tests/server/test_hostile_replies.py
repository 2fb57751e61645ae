"""Whatever one site sends, the run goes on with the others, and the event log names it."""

import json

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from gmmas_schema.errors import ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.messages import ARRAYS, DOCUMENT, REPORT, Action
from server.checkpoint import RunFolder
from server.events import EventLog, read_events
from server.records import Outcome
from strategies.codec import INDEX, pack_tensors, write_report
from tests.server.kills import Killed, kill_at
from tests.server.simulated_sites import SimulatedSite, make_config, make_grid, run

DIGITS = "9" * 4300
ESCAPES = "\x1b]0;owned\x07\x1b[2J" * 50_000
ARRAY = pack_tensors({"fusion.0": np.ones(2, np.float32)}).arrays


def with_index(index):
    return lambda text: RecordDict({REPORT: ConfigRecord({DOCUMENT: text, INDEX: index}), ARRAYS: ARRAY})


def with_document(change):
    return lambda text: RecordDict({REPORT: ConfigRecord({DOCUMENT: change(text)})})


HOSTILE = {
    "a size that cannot be printed": with_index(f'[["fusion.x",[{DIGITS},{DIGITS}],"f4",0]]'),
    "a size that takes long to calculate": with_index(f'[["fusion.x",[{",".join([DIGITS] * 100)}],"f4",0]]'),
    "very many dimensions": with_index(f'[["fusion.x",[{",".join(["2"] * 200_000)}],"f4",0]]'),
    "a name with escapes": with_index(json.dumps([[ESCAPES, [2], "f2", 0]])),
    "very many tensors": with_index("[" + ",".join(f'["{n}",[],"f4",0]' for n in range(60_000)) + "]"),
    "a key with escapes": with_document(lambda text: json.dumps(json.loads(text) | {ESCAPES[:100]: 1})),
    "a key of a megabyte": with_document(lambda text: json.dumps(json.loads(text) | {ESCAPES: 1})),
    "another site's name with escapes": with_document(lambda text: json.dumps(json.loads(text) | {"site": ESCAPES[:100]})),
    "a megabyte of brackets": with_document(lambda text: f'{text[:-1]},"x":[{",".join(["{}"] * 300_000)}]}}'),
    "a number of thousands of digits": with_document(lambda text: text.replace('"steps":3', f'"steps":{DIGITS}')),
    "no document": lambda text: RecordDict({ESCAPES: ConfigRecord({})}),
}


class HostileSite(SimulatedSite):
    """Describes itself as any other site, and answers training with something else than a reply."""

    hostile = staticmethod(write_report)

    def __call__(self, message, context):
        reply = super().__call__(message, context)
        if self.seen[-1].action is not Action.TRAIN:
            return reply
        return Message(self.hostile(reply.content[REPORT][DOCUMENT]), reply_to=message)


def sites(hostile):
    south = HostileSite("south")
    south.hostile = hostile
    return SimulatedSite("north"), south, SimulatedSite("west")


def new_folder(path):
    return RunFolder.create(path, make_config(rounds=2, sites=3, replies=2), run="r1")


def weights(folder):
    return [folder.read_record(number).model_sha256 for number in (1, 2)]


@pytest.fixture(scope="module")
def without_south(tmp_path_factory):
    """Return the models of the run in which the site says nothing that counts."""
    folder = new_folder(tmp_path_factory.mktemp("without") / "run")
    run(make_grid(*sites(lambda text: RecordDict())), folder)
    return weights(folder)


def refusals(folder):
    return [event for event in read_events(folder.events_path, kinds={EventKind.REPLY_REFUSED}) if event.detail["action"] == "train"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_reply_that_cannot_be_read_is_its_sites_fault_alone(tmp_path, name, without_south):
    folder = new_folder(tmp_path / "run")
    run(make_grid(*sites(HOSTILE[name])), folder)
    assert [(event.site, event.round) for event in refusals(folder)] == [("south", 1), ("south", 2)]
    assert weights(folder) == without_south
    north, south, west = folder.read_record(2).sites
    assert (north.outcome, south.outcome, west.outcome) == (Outcome.ACCEPTED, Outcome.REFUSED, Outcome.ACCEPTED)
    assert south.code in {ReasonCode.PROTOCOL, ReasonCode.REPLY_REFUSED}
    for message in (event.message for event in refusals(folder)):
        assert len(message) < 1000
        assert all(line.isprintable() for line in message.split("\n"))


def test_a_run_with_such_a_site_is_resumed(tmp_path, without_south):
    folder, hostile = new_folder(tmp_path / "run"), HOSTILE["a size that cannot be printed"]
    with pytest.raises(Killed):
        run(make_grid(*sites(hostile)), folder, events=EventLog(folder.events_path, on_event=kill_at(EventKind.REPLY_REFUSED, 2)))
    run(make_grid(*sites(hostile)), folder)
    assert weights(folder) == without_south
    assert {event.site for event in refusals(folder)} == {"south"}


def test_a_fault_of_our_own_that_one_reply_brings_about_is_refused_with_it_and_logged(tmp_path, monkeypatch, caplog, without_south):
    def stumble(report, tensors, **options):
        if report.site == "south":
            raise ZeroDivisionError("nobody has thought of this")

    monkeypatch.setattr("server.replies.check_reply", stumble)
    folder = new_folder(tmp_path / "run")
    run(make_grid(*(SimulatedSite(name) for name in ("north", "south", "west"))), folder)
    assert {event.site for event in refusals(folder)} == {"south"}
    assert weights(folder) == without_south
    south = folder.read_record(2).sites[1]
    assert (south.code, "ZeroDivisionError" in south.reason) == (ReasonCode.REPLY_REFUSED, True)
    assert "nobody has thought of this" in caplog.text
    assert "nobody has thought of this" not in "".join(event.message for event in refusals(folder))


def test_a_fault_of_ours_in_counting_a_reply_ends_the_run(tmp_path, monkeypatch):
    """Half of an update may be in the sums by then: no model may be made of them."""

    def stumble(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("strategies.robust.RobustAggregate.fold", stumble)
    with pytest.raises(ZeroDivisionError):
        run(make_grid(*(SimulatedSite(name) for name in ("north", "south", "west"))), new_folder(tmp_path / "run"))
