import pytest
from flwr.app import Error, Message

from gmmas_schema.errors import FederationError, ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.messages import PROTOCOL_VERSION, Action, TaskRequest
from gmmas_schema.model import ModelDefinition
from gmmas_schema.vocabulary import Task
from server.courier import Courier
from server.events import EventLog, read_events
from server.local_grid import LocalGrid
from server.membership import Roster
from tests.server.simulated_sites import TINY, Clock, SimulatedSite, make_grid

REQUEST = TaskRequest(action=Action.DESCRIBE, run="r", round=0, rounds=3, seed=0, model=TINY)


@pytest.fixture
def events(tmp_path):
    return EventLog(tmp_path / "events.db")


def roster_of(grid, events, clock=None):
    return Roster(Courier(grid, (clock or Clock()).timing()), request=REQUEST, events=events)


def told(events, kind):
    return [event for event in read_events(events.path) if event.kind is kind]


def names(members):
    return [member.site for member in members]


class Misfit(SimulatedSite):
    """Describes another model than it was asked about."""

    def describe(self, request):
        return super().describe(request).model_copy(update={"model_digest": ModelDefinition().digest()})


class Newer(SimulatedSite):
    """Speaks another protocol version."""

    def describe(self, request):
        return super().describe(request).model_copy(update={"protocol": PROTOCOL_VERSION + 1})


class Impossible(SimulatedSite):
    """Has more labels than cases."""

    def describe(self, request):
        return super().describe(request).model_copy(update={"labelled": {Task.IDH: 1000}})


def answer_with(code):
    return lambda message, context: Message(Error(2, code.value), reply_to=message)


def test_members_are_sorted_by_name_and_described_once(events):
    south, north = SimulatedSite("south"), SimulatedSite("north")
    roster = roster_of(make_grid(south, north), events)
    assert names(roster.wait_for(2, timeout_s=10)) == ["north", "south"]
    assert names(roster.wait_for(2, timeout_s=10)) == ["north", "south"]
    assert [request.action for request in south.seen] == [Action.DESCRIBE]
    (joined, _) = told(events, EventKind.SITE_JOINED)
    assert joined.site == "south"
    assert joined.detail["labelled"]["idh"] == 20


@pytest.mark.parametrize(
    ("site", "code"),
    [
        (Misfit("west"), ReasonCode.MODEL_DEFINITION),
        (Newer("west"), ReasonCode.PROTOCOL_VERSION),
        (Impossible("west"), ReasonCode.PROTOCOL),
        (answer_with(ReasonCode.MODEL_DEFINITION), ReasonCode.MODEL_DEFINITION),
        (answer_with(ReasonCode.POLICY_PRIVACY), ReasonCode.POLICY_PRIVACY),
    ],
)
def test_a_misfit_is_left_out_told_once_and_not_asked_again(events, site, code):
    clock = Clock()
    roster = roster_of(make_grid(SimulatedSite("north"), site), events, clock)
    assert names(roster.wait_for(1, timeout_s=30)) == ["north"]
    clock.now = 1000
    assert names(roster.wait_for(1, timeout_s=30)) == ["north"]
    (refused,) = told(events, EventKind.SITE_REFUSED)
    assert refused.code is code
    if isinstance(site, SimulatedSite):
        assert [request.action for request in site.seen] == [Action.DESCRIBE]


def test_a_site_that_cannot_answer_yet_is_asked_again(events):
    clock, answers = Clock(), [ReasonCode.TRAINER_UNREACHABLE, ReasonCode.TRAINER_UNREACHABLE, None]
    ready = SimulatedSite("late")

    def starting(message, context):
        code = answers.pop(0)
        return ready(message, context) if code is None else answer_with(code)(message, context)

    roster = roster_of(make_grid(starting), events, clock)
    assert names(roster.wait_for(1, timeout_s=100)) == ["late"]
    assert 20 <= clock.now < 30
    assert len(told(events, EventKind.SITE_REFUSED)) == 1


@pytest.mark.parametrize(("code", "asked_after_s"), [(ReasonCode.PAUSED, 10), (ReasonCode.POLICY_HOURS, 60)])
def test_a_member_that_says_not_now_is_waited_for_and_joins_again(events, code, asked_after_s):
    clock = Clock()
    roster = roster_of(make_grid(SimulatedSite("north"), SimulatedSite("south")), events, clock)
    roster.wait_for(2, timeout_s=10)
    roster.hear("south", code)
    assert names(roster.members) == ["north"]
    began = clock.now
    assert names(roster.wait_for(2, timeout_s=100)) == ["north", "south"]
    assert asked_after_s <= clock.now - began < asked_after_s + 10
    (refused,) = told(events, EventKind.SITE_REFUSED)
    assert (refused.site, refused.code) == ("south", code)
    assert len(told(events, EventKind.SITE_JOINED)) == 3


@pytest.mark.parametrize("code", [ReasonCode.OUT_OF_MEMORY, ReasonCode.TRAINER, ReasonCode.POLICY_COHORT])
def test_a_member_that_failed_otherwise_stays_one(events, code):
    roster = roster_of(make_grid(SimulatedSite("north")), events)
    roster.wait_for(1, timeout_s=10)
    roster.hear("north", code)
    roster.hear("nobody", ReasonCode.PAUSED)
    assert names(roster.members) == ["north"]


def test_two_nodes_of_one_name_are_not_both_admitted(events):
    roster = roster_of(make_grid(SimulatedSite("north"), SimulatedSite("north"), SimulatedSite("south")), events)
    assert names(roster.wait_for(2, timeout_s=10)) == ["north", "south"]
    assert "name" in told(events, EventKind.SITE_REFUSED)[0].message


def test_too_few_sites_are_an_error_that_counts_them(events):
    clock = Clock()
    roster = roster_of(make_grid(SimulatedSite("north"), Misfit("west"), lambda message, context: None), events, clock)
    with pytest.raises(FederationError) as caught:
        roster.wait_for(2, timeout_s=40)
    assert caught.value.code is ReasonCode.QUORUM
    assert "1 (north)" in caught.value.got
    assert ReasonCode.MODEL_DEFINITION in caught.value.got
    assert clock.now == pytest.approx(40, abs=1)
    assert [event.detail for event in told(events, EventKind.WAITING_FOR_SITES)] == [{"joined": 1, "needed": 2}]


def test_a_silent_node_holds_up_a_round_only_shortly_and_once(events):
    clock = Clock()
    roster = roster_of(make_grid(SimulatedSite("north"), lambda message, context: None), events, clock)
    roster.wait_for(1, timeout_s=100)
    assert clock.now == pytest.approx(10, abs=1)
    roster.wait_for(1, timeout_s=100)
    assert clock.now == pytest.approx(10, abs=1)


def test_a_site_may_join_late_leave_and_come_back_with_other_data(events):
    grid = make_grid(SimulatedSite("north"))
    roster = roster_of(grid, events)
    assert names(roster.wait_for(1, timeout_s=10)) == ["north"]
    grid.bring_online(200, SimulatedSite("east"))
    assert names(roster.wait_for(1, timeout_s=10)) == ["east", "north"]
    grid.take_offline(200)
    assert names(roster.wait_for(1, timeout_s=10)) == ["north"]
    grid.bring_online(200, SimulatedSite("east", cases=33))
    assert {member.site: member.description.cases for member in roster.wait_for(1, timeout_s=10)} == {"north": 20, "east": 33}


def test_a_misfit_that_was_mended_is_admitted_when_it_comes_back(events):
    grid = make_grid(SimulatedSite("north"), Misfit("west"))
    roster = roster_of(grid, events)
    roster.wait_for(1, timeout_s=10)
    grid.take_offline(101)
    grid.bring_online(101, SimulatedSite("west"))
    assert names(roster.wait_for(2, timeout_s=10)) == ["north", "west"]


@pytest.mark.parametrize(("enrolled", "joins"), [("north", True), ("south", False)])
def test_a_site_takes_part_only_under_its_enrolled_name(events, enrolled, joins):
    grid = LocalGrid({2: SimulatedSite("north")}, names={2: enrolled})
    roster = roster_of(grid, events)
    roster.refresh()
    assert names(roster.members) == (["north"] if joins else [])
    assert [event.code for event in told(events, EventKind.SITE_REFUSED)] == ([] if joins else [ReasonCode.PROTOCOL])


def test_who_leaves_is_told_once_and_may_come_back(events):
    grid = make_grid(SimulatedSite("north"), SimulatedSite("south"))
    roster = roster_of(grid, events)
    roster.wait_for(2, timeout_s=10)
    grid.take_offline(101)
    for _ in range(2):
        roster.refresh()
    (left,) = told(events, EventKind.SITE_LEFT)
    assert (left.site, left.detail) == ("south", {"node": "101"})
    grid.bring_online(101)
    assert names(roster.wait_for(2, timeout_s=10)) == ["north", "south"]
    assert len(told(events, EventKind.SITE_JOINED)) == 3
