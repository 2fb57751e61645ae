"""The ledger is what the rounds were: bytes, seconds, processor and memory by site and round, attempts that failed included."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas
import pytest
from flwr.app import Error, Message

from gmmas_schema.events import EventKind
from server.checkpoint import RunFolder
from server.events import EventLog
from server.ledger import add_up, read_ledger
from tests.server.simulated_sites import SimulatedSite, make_config, make_grid, run

DOCS = Path(__file__).parents[2] / "docs" / "coordinator.md"


class Costly(SimulatedSite):
    """Reports what its work cost."""

    def report(self, request):
        changes = {"seconds": {"load": 0.5, "train": 2.0}, "cpu_seconds": 3.5, "peak_memory_mib": 700.0}
        return super().report(request).model_copy(update=changes)


class FailsOnce:
    """Answers the first request of round 2 with an error."""

    def __init__(self):
        self.site, self.failed = Costly("south"), False

    def __call__(self, message, context):
        if message.metadata.group_id == "2" and not self.failed:
            self.failed = True
            return Message(Error(2, "E_TRAINER"), reply_to=message)
        return self.site(message, context)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = RunFolder.create(tmp_path_factory.mktemp("ledger") / "run", make_config(rounds=2, attempts=2), run="r")
    run(make_grid(Costly("north"), FailsOnce()), folder)
    return folder


def test_the_ledger_agrees_with_the_records_of_the_rounds(folder):
    ledger = read_ledger(folder.events_path)
    for record in folder.read_records():
        for site in record.sites:
            (*_, entry) = [e for e in ledger if (e.round, e.site, e.action) == (record.round, site.site, "train")]
            assert (entry.bytes_down, entry.bytes_up) == (site.bytes_down, site.bytes_up)
            assert entry.bytes_up > 1000
            assert entry.stages == {"load": 0.5, "train": 2.0}
            assert (entry.seconds, entry.cpu_seconds, entry.peak_memory_mib) == (2.5, 3.5, 700.0)
            assert (entry.outcome, entry.code, entry.split) == ("accepted", None, "validation")


def test_an_attempt_that_did_not_count_was_paid_for(folder):
    second = [entry for entry in read_ledger(folder.events_path) if entry.round == 2 and entry.action == "train"]
    assert [(entry.site, entry.outcome, entry.code) for entry in second] == [
        ("north", "accepted", None), ("south", "failed", "E_TRAINER"), ("north", "accepted", None), ("south", "accepted", None),
    ]  # fmt: skip
    cost = add_up(second)
    assert (cost.asked, cost.answered, cost.cpu_seconds) == (4, 3, 10.5)
    assert cost.bytes_down == sum(entry.bytes_down for entry in second)
    assert second[1].bytes_down > 1000
    assert second[1].bytes_up == 0
    assert second[1].cpu_seconds is None


def test_joining_and_evaluating_are_in_the_ledger(folder):
    ledger = read_ledger(folder.events_path)
    assert [entry.site for entry in ledger if entry.action == "query"] == ["north", "south"]
    assert all(entry.bytes_down > 100 and entry.bytes_up > 100 for entry in ledger if entry.action == "query")
    assert {entry.split for entry in ledger if entry.action == "evaluate"} >= {"validation", "test"}


def test_the_coordinator_has_its_own_entries(folder):
    own = [entry for entry in read_ledger(folder.events_path) if entry.site is None]
    assert [entry.round for entry in own] == [1, 2, 2]  # the last is of the evaluations at the end
    assert all(entry.action == "coordinate" and entry.bytes_up is None and entry.outcome is None for entry in own)
    assert all(entry.cpu_seconds > 0 and entry.peak_memory_mib > 10 for entry in own)
    assert set(own[0].stages) >= {"wait", "ask", "step", "checkpoint"}
    assert own[0].seconds == pytest.approx(sum(own[0].stages.values()))


def test_a_run_without_events_has_cost_nothing(tmp_path):
    assert read_ledger(tmp_path / "events.db") == ()
    EventLog(tmp_path / "events.db").emit(EventKind.RUN_STARTED)
    assert read_ledger(tmp_path / "events.db") == ()


def documented_queries():
    return re.findall(r"```sql\n(.*?)```", DOCS.read_text(), re.DOTALL)


def test_the_documented_queries_give_what_they_say(folder):
    """Sums by site, refusals with their reasons, rounds with the slowest site."""
    by_site, refused, slowest = documented_queries()
    with closing(sqlite3.connect(folder.events_path)) as database:
        table = pandas.read_sql(by_site, database).set_index("site")
        assert set(table.index) == {"north", "south", "coordinator"}
        trained = [e for e in read_ledger(folder.events_path) if e.site == "north"]
        assert table.loc["north", "mb_up"] == pytest.approx(sum(e.bytes_up for e in trained) / 1e6, abs=0.06)
        reasons = pandas.read_sql(refused, database)
        assert reasons[["round", "site", "kind", "code"]].to_numpy().tolist() == [[2, "south", "reply_refused", "E_TRAINER"]]
        rounds = pandas.read_sql(slowest, database)
        assert rounds["round"].tolist() == [1, 2]
        assert set(rounds["train_s"]) == {2.0}
