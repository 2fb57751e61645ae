import threading

import pytest
from pydantic import ValidationError

from client.activity import Activity
from client.trainer_service_pb2 import State
from gmmas_schema.errors import FederationError, ReasonCode
from gmmas_schema.messages import Notice, TaskRequest
from tests.client.sites import make_request
from tests.gmmas_runtime.waiting import wait_until


@pytest.fixture
def activity() -> Activity:
    started = Activity("north")
    with started.preparing():
        pass
    return started


def test_states_in_order() -> None:
    activity = Activity("north")
    assert activity.snapshot().state == State.PREPARING
    with activity.preparing():
        activity.count(cases=3, to_cache=5)
        assert activity.snapshot().cases_to_cache == 5
    assert activity.snapshot().state == State.IDLE
    with activity.task(make_request(number=2)):
        activity.step(1, 4)
        seen = activity.snapshot()
        assert (seen.state, seen.run, seen.round, seen.rounds, seen.step, seen.steps) == (State.TRAINING, "run-1", 2, 3, 1, 4)
    activity.succeed(loss=0.5)
    after = activity.snapshot()
    assert (after.state, after.round, after.tasks_done, after.loss) == (State.IDLE, 2, 1, 0.5)
    assert after.rss_bytes > 0


def test_what_the_coordinator_said_of_the_last_answer_is_shown_until_a_request_comes_without_it(activity: Activity) -> None:
    refused = make_request(number=3).model_copy(update={"notice": Notice(round=2, code=ReasonCode.REPLY_REFUSED, reason="far too long")})
    with activity.task(refused):
        assert activity.snapshot().notice == "round 2: E_REPLY_REFUSED far too long"
    assert activity.snapshot().notice
    with activity.task(make_request(number=4)):
        assert activity.snapshot().notice == ""


def test_a_paused_site_admits_nothing(activity: Activity) -> None:
    activity.pause(abandon=False)
    assert activity.snapshot().state == State.PAUSED
    with pytest.raises(FederationError) as caught:
        activity.admit()
    assert caught.value.code is ReasonCode.PAUSED
    activity.resume()
    activity.admit()


def test_pause_holds_a_task_until_resume(activity: Activity) -> None:
    passed = threading.Event()

    def work() -> None:
        with activity.task(make_request()):
            activity.check()
            passed.set()

    activity.pause(abandon=False)
    worker = threading.Thread(target=work)
    worker.start()
    wait_until(lambda: activity.snapshot().run == "run-1")
    assert not passed.wait(0.1)
    activity.resume()
    worker.join(5)
    assert passed.is_set()


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda a: a.stop_task(), ReasonCode.CANCELLED),
        (lambda a: a.pause(abandon=True), ReasonCode.PAUSED),
        (lambda a: a.close(), ReasonCode.CANCELLED),
    ],
)
def test_a_running_task_can_be_ended(activity: Activity, end, code: ReasonCode) -> None:
    with activity.task(make_request()):
        activity.check()
        end(activity)
        with pytest.raises(FederationError) as caught:
            activity.check()
    assert caught.value.code is code


@pytest.mark.parametrize("field", ["round", "rounds"])
def test_a_round_is_a_number_that_can_be_shown(activity: Activity, field: str) -> None:
    fields = make_request().model_dump()
    with activity.task(TaskRequest.model_validate(fields | {field: 2**31 - 1})):
        assert getattr(activity.snapshot(), field) == 2**31 - 1
    with pytest.raises(ValidationError, match=f"{field}\n.*less than or equal to 2147483647"):
        TaskRequest.model_validate(fields | {field: 2**31})


def test_a_task_of_more_steps_than_can_be_counted_does_not_blind_those_that_watch(activity: Activity) -> None:
    with activity.task(make_request()):
        activity.step(2**31, 2**40)
        assert (activity.snapshot().step, activity.snapshot().steps) == (2**31 - 1, 2**31 - 1)
    activity.pause(abandon=False)
    assert activity.snapshot().state == State.PAUSED


def test_a_cancel_between_tasks_does_not_touch_the_next(activity: Activity) -> None:
    activity.stop_task()
    with activity.task(make_request()):
        activity.check()


def test_watching_shows_changes_and_ends_with_the_trainer(activity: Activity) -> None:
    seen = activity.watch(interval_s=0.0)
    assert next(seen).tasks_done == 0
    activity.succeed(loss=None)
    assert next(seen).tasks_done == 1
    activity.close()
    assert next(seen).tasks_done == 1
    with pytest.raises(StopIteration):
        next(seen)
