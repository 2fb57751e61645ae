from pathlib import Path

import pytest

from gmmas_schema.errors import ReasonCode
from gmmas_schema.events import Event, EventKind
from gmmas_schema.messages import Evaluation, Interval
from gmmas_schema.vocabulary import Region, Split, Task
from server.records import Outcome, RoundRecord, SiteRecord
from server.run_view import RoundReader, RunView
from tests.gmmas_cli.events import START, accepted, event, finished, joined, whole_run


def view_of(events: list[Event]) -> RunView:
    view = RunView()
    for each in events:
        view.update(each)
    return view


def test_rounds_time_and_bytes_add_up() -> None:
    view = view_of(whole_run())
    assert (view.name, view.run, view.finished, view.rounds) == ("demo", "demo-1234", 2, 3)
    assert view.elapsed_s == 42
    assert view.remaining_s == pytest.approx(20.0)  # one round left, mean of 15 s and 25 s
    north, east = view.sites["north"], view.sites["east"]
    assert (north.bytes_down, north.bytes_up) == (8_000_000, 7_000_000)
    assert (east.bytes_down, east.bytes_up) == (8_000_000, 3_500_000)
    assert north.modalities == ("t1", "t1ce", "t2", "flair")
    assert view.validation == {0: {"dice_wt": 0.1, "dice_tc": 0.05, "auc_idh": 0.5}, 1: {"dice_wt": 0.6, "dice_tc": 0.3, "auc_idh": 0.8}}


def test_a_missing_site_is_a_fault_and_the_run_goes_on() -> None:
    view = view_of(whole_run())
    assert [fault.text for fault in view.faults] == ["east, round 2: no answer: E_DEADLINE"]
    assert view.sites["east"].failed
    assert not view.ended
    view.update(event(EventKind.ROUND_STARTED, 50, number=3, attempt=1, sites=["north"]))
    assert (view.sites["north"].state, view.sites["east"].state) == ("training", "absent")


def test_states_follow_a_round() -> None:
    view = view_of(whole_run()[:6])
    assert (view.stage, view.round) == ("round 1: hospitals train", 1)
    assert (view.sites["east"].state, view.sites["north"].state) == ("done", "training")
    view.update(event(EventKind.ROUND_STARTED, 12, number=1, attempt=2, sites=["north"]))
    assert view.stage == "round 1: hospitals train (attempt 2)"


def test_nothing_is_estimated_before_the_first_round_has_ended() -> None:
    assert view_of(whole_run()[:7]).remaining_s is None


def test_the_estimate_rests_on_the_last_rounds() -> None:
    view = view_of([event(EventKind.RUN_STARTED, 0, number=0, rounds=20)])
    for number in range(1, 11):
        view.update(finished(number, number * 10.0, seconds=100.0 if number < 6 else 10.0))
    assert view.remaining_s == pytest.approx(100.0)


def test_a_resume_starts_the_clock_and_keeps_the_history() -> None:
    failed = event(EventKind.RUN_FAILED, 50, code=ReasonCode.QUORUM, message="too few good replies [E_QUORUM]\n  got: none")
    view = view_of([*whole_run(), failed])
    assert view.ended
    assert not view.succeeded
    assert view.faults[-1].text == "the run failed: E_QUORUM too few good replies"
    view.update(event(EventKind.RUN_RESUMED, 1000, number=2, run="demo-1234", rounds=3))
    assert not view.ended
    assert (view.finished, view.stage, view.elapsed_s) == (2, "resumed after round 2", 0)
    assert view.sites["north"].bytes_up == 7_000_000
    view.update(event(EventKind.RUN_FINISHED, 1010, number=3, best_round=2, test={"dice_wt": 0.7}))
    assert view.succeeded
    assert view.result["best_round"] == 2


def test_accuracies_by_site_come_from_the_rounds_record() -> None:
    dice = {Region.WT: Interval(value=0.5, n=4), Region.ET: Interval()}
    evaluation = Evaluation(split=Split.VALIDATION, cases=4, dice=dice, auc={Task.IDH: Interval(value=0.9, n=4)})
    site = SiteRecord(site="north", node="1", outcome=Outcome.ACCEPTED, evaluation=evaluation)
    record = RoundRecord(run="r", round=1, rounds=3, attempt=1, started_at=START, seconds=1.0, sites=(site,), model_sha256="x")
    view = RunView(lambda number: record if number == 1 else None)
    for each in (joined("north", "t1"), accepted("north", 1, 5), finished(1, 6)):
        view.update(each)
    assert view.sites["north"].dice == {Region.WT: 0.5}
    assert view.sites["north"].auc == {Task.IDH: 0.9}


@pytest.mark.parametrize("kind", list(EventKind))
def test_every_kind_of_event_is_understood_even_bare(kind: EventKind) -> None:
    view = RunView()
    view.update(event(kind, 0))
    view.update(event(kind, 1, number=1, site="north", code=ReasonCode.INTERNAL, message="m"))


def test_a_model_that_is_lost_is_a_fault_with_its_round() -> None:
    view = view_of([event(EventKind.MODEL_UNREADABLE, 0, number=3, code=ReasonCode.MODEL, message="round 5 goes without momentum")])
    assert view.faults[0].text == "the model of round 3 is missing or damaged: E_MODEL round 5 goes without momentum"


def test_a_phase_of_a_secure_round_shows_who_is_left_and_who_dropped_out() -> None:
    view = view_of([joined("north", "t1"), joined("south", "t1")])
    message = "agreeing: 1 of 2 answered, 2 needed; dropped out: south (E_DEADLINE)"
    view.update(Event(time=9, kind=EventKind.SUM_PHASE, round=2, message=message, detail={"dropped": {"south": "E_DEADLINE"}}))
    assert view.stage == f"round 2, adding up unseen: {message}"
    assert (view.sites["south"].state, view.sites["south"].failed) == ("dropped out", True)
    assert not view.sites["north"].failed
    view.update(Event(time=9, kind=EventKind.SUM_OPENED, round=2, message="15 parts opened"))
    assert view.stage == "round 2, added up unseen: 15 parts opened"


def test_a_refused_node_is_named_as_far_as_it_is_known() -> None:
    view = view_of(
        [event(EventKind.SITE_REFUSED, 0, code=ReasonCode.MODEL_DEFINITION, message="another model [E_MODEL_DEFINITION]\n  got: x")]
    )
    assert view.faults[0].text == "a node was not admitted: E_MODEL_DEFINITION another model"


def test_a_reply_that_is_refused_beside_the_others_is_a_fault_of_its_site() -> None:
    view = view_of([*whole_run(), event(EventKind.REPLY_ACCEPTED, 43, number=2, site="north")])
    view.update(
        Event(time=44, kind=EventKind.REPLY_DISMISSED, round=2, site="north", code=ReasonCode.REPLY_REFUSED, message="too long\n  where")
    )
    assert view.faults[-1].text == "north, round 2: E_REPLY_REFUSED too long"
    assert (view.sites["north"].state, view.sites["north"].failed) == ("refused", True)


def test_a_spent_budget_is_the_last_round_there_will_be() -> None:
    view = view_of(whole_run())
    view.update(Event(time=44, kind=EventKind.BUDGET_SPENT, round=2))
    assert view.rounds == 2
    assert "budget" in view.stage


def test_the_start_of_a_private_run_says_what_its_budget_affords() -> None:
    spent = {"affordable": 3, "releases": 1, "epsilon": 2.0}
    view = view_of([event(EventKind.RUN_RESUMED, 0, number=1, run="r", rounds=3, privacy=spent)])
    assert view.stage == "resumed after round 1; the privacy budget affords 2 more rounds, 3 are planned"
    assert "privacy" not in view_of([event(EventKind.RUN_STARTED, 0, run="r", rounds=3, privacy=None)]).stage


def test_damaged_records_are_nothing_to_show(tmp_path: Path) -> None:
    (tmp_path / "rounds" / "0001").mkdir(parents=True)
    (tmp_path / "rounds" / "0001" / "round.json").write_text("{")
    assert RoundReader(tmp_path)(1) is None
    assert RoundReader(tmp_path)(2) is None
