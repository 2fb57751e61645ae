"""The wire in the true round loop: what a lossy one carries survives kills bit for bit, and no model is sent to a node that holds it."""

import numpy as np
import pytest
from flwr.app import Error, Message

from gmmas_schema.errors import ReasonCode
from gmmas_schema.events import Event, EventKind
from gmmas_schema.messages import ARRAYS, TASK, Action
from gmmas_schema.vocabulary import MODALITIES, Modality, Split, Task
from gmmas_schema.wire import WireConfig
from gmmas_workflows.site_state import SiteState
from server.checkpoint import RunFolder
from server.events import EventLog
from server.records import Outcome
from strategies.wire import FEEDBACK, PATIENCE, SiteWire
from tests.matrices import thinned
from tests.server.kills import Killed, kill_at
from tests.server.simulated_sites import Clock, SimulatedSite, make_config, make_grid, run

ROUNDS = 4
SPARSE = WireConfig(up="int8", top_k=0.25)
NO_T1CE = tuple(m for m in MODALITIES if m is not Modality.T1CE)


def new_folder(path, wire=SPARSE, **options):
    config = make_config(**({"rounds": ROUNDS, "sites": 2, "replies": 2} | options)).model_copy(update={"wire": wire})
    return RunFolder.create(path, config, run="r1")


def sites(states):
    """Return the sites as new processes that find what the old ones left on disk."""
    return tuple(
        SimulatedSite(name, modalities, labelled, wire=SiteWire(SiteState(states / name, kind=FEEDBACK)))
        for name, modalities, labelled in (
            ("north", MODALITIES, {Task.SEGMENTATION: 9, Task.IDH: 9}),
            ("south", NO_T1CE, {Task.SEGMENTATION: 8, Task.IDH: 3}),
        )
    )


def digests(folder):
    return [folder.read_record(number).model_sha256 for number in range(1, ROUNDS + 1)]


def wire_of(folder):
    """Return (bytes down, bytes up) per round and site."""
    return [[(site.bytes_down, site.bytes_up) for site in folder.read_record(number).sites] for number in range(1, ROUNDS + 1)]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    path = tmp_path_factory.mktemp("unbroken")
    folder = new_folder(path / "run")
    run(make_grid(*sites(path / "states")), folder)
    return folder


KILLS = [
    (EventKind.ROUND_STARTED, None),
    (EventKind.REPLY_ACCEPTED, "north"),
    (EventKind.REPLY_ACCEPTED, "south"),
    (EventKind.ROUND_FINISHED, None),
]


@pytest.mark.parametrize(("number", "kind", "site"), thinned(range(1, ROUNDS + 1), KILLS))
def test_debts_survive_a_kill_in_and_between_rounds(tmp_path, unbroken, number, kind, site):
    """In a round one or both sites have already moved on to its end when they are asked for it again."""
    folder = new_folder(tmp_path / "run")
    with pytest.raises(Killed):
        run(make_grid(*sites(tmp_path / "states")), folder, events=EventLog(folder.events_path, on_event=kill_at(kind, number, site)))
    run(make_grid(*sites(tmp_path / "states")), folder)
    assert digests(folder) == digests(unbroken)
    assert wire_of(folder) == wire_of(unbroken)


def test_that_would_be_seen_if_the_debts_were_lost(tmp_path, unbroken):
    folder = new_folder(tmp_path / "run")
    with pytest.raises(Killed):
        run(
            make_grid(*sites(tmp_path / "states")),
            folder,
            events=EventLog(folder.events_path, on_event=kill_at(EventKind.ROUND_FINISHED, 2)),
        )
    run(make_grid(*sites(tmp_path / "elsewhere")), folder)
    assert digests(folder)[:2] == digests(unbroken)[:2]
    assert digests(folder)[2] != digests(unbroken)[2]


def test_a_failed_attempt_leaves_no_trace(tmp_path, unbroken):
    """Both sites trained round 2, one answer got lost, and both train it again from where they were."""
    north, south = sites(tmp_path / "states")
    lost = [True]

    def once_losing(message, context):
        reply = south(message, context)
        if message.metadata.message_type == "train" and message.metadata.group_id == "2" and lost:
            lost.pop()
            return Message(Error(2, ReasonCode.OUT_OF_MEMORY.value), reply_to=message)
        return reply

    folder = new_folder(tmp_path / "run", attempts=2)
    run(make_grid(north, once_losing), folder)
    assert folder.read_record(2).attempt == 2
    assert digests(folder) == digests(unbroken)
    # North holds the model of the first attempt.
    again, first = folder.read_record(2).sites[0].bytes_down, unbroken.read_record(2).sites[0].bytes_down
    assert again < first / 20


@pytest.mark.parametrize(("wire", "factor"), [(WireConfig(up="int8", top_k=0.1), 200), (WireConfig(up="int8"), 1e5)])
def test_a_site_that_diverges_once_is_refused_once(tmp_path, wire, factor):
    """What was left out of the update that was refused is as long as that, and is not sent after it."""

    def diverge(report, tensors):
        return report, {n: v * np.float32(factor) for n, v in tensors.items()} if report.round == 2 else tensors

    folder = new_folder(tmp_path / "run", wire, sites=4)
    run(make_grid(*map(SimulatedSite, "abc"), SimulatedSite("z", alter=diverge)), folder)
    outcomes = [folder.read_record(number).sites[3].outcome for number in range(1, ROUNDS + 1)]
    assert outcomes == [Outcome.ACCEPTED, Outcome.REFUSED, Outcome.ACCEPTED, Outcome.ACCEPTED]


class Losing(SimulatedSite):
    """Its answers of rounds 2 and 3 do not arrive; `before` training, or after it."""

    before = True

    def __call__(self, message, context):
        lost = message.metadata.message_type == "train" and message.metadata.group_id in {"2", "3"}
        if not lost or not self.before:
            reply = super().__call__(message, context)
        return Message(Error(2, ReasonCode.OUT_OF_MEMORY.value), reply_to=message) if lost else reply


def test_an_answer_that_is_lost_leaves_no_trace(tmp_path):
    """The site trained twice, and owes what it would if it had not. The coordinator's records tell it, so a kill is no harm."""
    found = []
    for name, before in (("untrained", True), ("trained", False), ("killed", False)):
        losing = Losing("z", wire=SiteWire(SiteState(tmp_path / name / "z", kind=FEEDBACK)))
        losing.before = before
        folder, grid = new_folder(tmp_path / name / "run"), make_grid(SimulatedSite("a"), SimulatedSite("b"), losing)
        if name == "killed":
            with pytest.raises(Killed):
                run(grid, folder, events=EventLog(folder.events_path, on_event=kill_at(EventKind.ROUND_STARTED, 4)))
        run(grid, folder)
        found.append(digests(folder))
        assert [request.counted for request in losing.seen if request.action is Action.TRAIN] == ([0, 1] if before else [0, 1, 1, 1])
    assert found[0] == found[1] == found[2]


def test_what_an_attempt_accepted_that_came_to_no_round_has_not_counted(tmp_path):
    """North's answer to round 2 was good both times it was asked, and only the second counted."""
    north, south, lost = SimulatedSite("north"), SimulatedSite("south"), [True]

    def once_losing(message, context):
        reply = south(message, context)
        if message.metadata.message_type == "train" and message.metadata.group_id == "2" and lost:
            lost.pop()
            return Message(Error(2, ReasonCode.OUT_OF_MEMORY.value), reply_to=message)
        return reply

    run(make_grid(north, once_losing), new_folder(tmp_path / "run", attempts=2))
    for site in (north, south):
        told = [(request.round, request.counted) for request in site.seen if request.action is Action.TRAIN]
        assert told == [(1, 0), (2, 1), (2, 1), (3, 2), (4, 3)]
    assert all(request.counted is None for request in north.seen if request.action is not Action.TRAIN)


def named(message):
    """Tell whether a request names its model without bringing it."""
    return not message.metadata.reply_to_message_id and ARRAYS not in message.content and "digest" in message.content[TASK]


def asked(wire, action=Action.EVALUATE):
    return [m for m in wire if not m.metadata.reply_to_message_id and m.metadata.message_type == action.value]


def test_after_the_rounds_each_model_travels_once_and_the_ledger_says_so(tmp_path):
    wire = []
    folder = new_folder(tmp_path / "run", rounds=2)
    result = run(make_grid(SimulatedSite("a"), SimulatedSite("b"), watch=wire.append), folder)
    evaluations = asked(wire)
    assert [named(message) for message in evaluations] == [False, False, *[True] * (len(evaluations) - 2)]
    assert len(evaluations) >= 8
    full, *others = sorted({site.bytes_down for site in result.ledger}, reverse=True)
    assert all(size < full / 5 for size in others)
    assert all(site.outcome is Outcome.ACCEPTED for site in result.ledger)


def test_without_reuse_every_request_brings_its_model(tmp_path):
    wire = []
    folder = new_folder(tmp_path / "run", WireConfig(reuse=False), rounds=1)
    run(make_grid(SimulatedSite("a"), SimulatedSite("b"), watch=wire.append), folder)
    assert not [message for message in wire if named(message)]


class Forgetful(SimulatedSite):
    """A new process for each message, as Flower's own executor starts one."""

    def __call__(self, message, context):
        self.wire = SiteWire(SiteState(kind=FEEDBACK))
        return super().__call__(message, context)


def test_a_node_that_forgets_gets_the_model_at_once_and_is_soon_asked_with_it(tmp_path):
    wire = []
    folder, plain = new_folder(tmp_path / "run", WireConfig(), rounds=2), new_folder(tmp_path / "plain", WireConfig(), rounds=2)
    clock = Clock()
    result = run(make_grid(SimulatedSite("a"), Forgetful("b"), watch=wire.append), folder, clock=clock)
    expected = run(make_grid(SimulatedSite("a"), SimulatedSite("b")), plain)
    assert result.model_dump(exclude={"ledger"}) == expected.model_dump(exclude={"ledger"})
    to_b = [message for message in asked(wire) if message.metadata.dst_node_id == 101]
    assert [named(message) for message in to_b][:6] == [False, True, False, True, False, False]
    assert sum(map(named, to_b)) == PATIENCE
    refusals = [message for message in wire if message.has_error()]
    assert [message.error.reason for message in refusals] == [ReasonCode.MODEL_NEEDED.value] * PATIENCE
    assert {site.outcome for site in result.ledger} == {Outcome.ACCEPTED}
    twice = [site for site in result.ledger if site.site == "b"][1]
    assert twice.bytes_down > max(site.bytes_down for site in result.ledger if site.site == "a")
    # One look for replies each.
    assert clock.now <= 0.5 * PATIENCE


def test_a_site_restarted_between_two_requests_is_sent_the_model_once_more(tmp_path):
    """Its executor came back before Flower noticed, so the activation is the same."""
    wire = []
    folder = new_folder(tmp_path / "run", WireConfig(), rounds=1)
    site, restarts = SimulatedSite("b"), [True]

    def restarting(message, context):
        if message.metadata.message_type == "evaluate" and named(message) and restarts:
            restarts.pop()
            site.wire = SiteWire(SiteState(kind=FEEDBACK))
        return site(message, context)

    run(make_grid(SimulatedSite("a"), restarting, watch=wire.append), folder)
    to_b = [named(message) for message in asked(wire) if message.metadata.dst_node_id == 101]
    assert to_b[:4] == [False, True, False, True]
    assert all(to_b[3:])


def test_a_returning_node_is_sent_the_model_for_its_new_activation(tmp_path):
    wire = []
    folder, site = new_folder(tmp_path / "run", WireConfig(), rounds=1), SimulatedSite("b")

    def leaving(message, context):
        reply = site(message, context)
        if message.metadata.message_type == "evaluate" and site.seen[-1].evaluate is Split.VALIDATION:
            grid.bring_online(101, SimulatedSite("b"))
        return reply

    grid = make_grid(SimulatedSite("a"), leaving, watch=wire.append)
    run(grid, folder)
    assert not [message for message in wire if message.has_error()]
    to_b = [named(message) for message in asked(wire) if message.metadata.dst_node_id == 101]
    assert to_b[:2] == [False, False]
    assert any(to_b[2:])


def test_a_site_that_asks_for_what_it_was_sent_has_failed(tmp_path):
    site = SimulatedSite("c")

    def never_content(message, context):
        return site(message, context) if message.metadata.message_type == "query" else Message(
            Error(2, ReasonCode.MODEL_NEEDED.value), reply_to=message
        )  # fmt: skip

    folder = new_folder(tmp_path / "run", WireConfig(), rounds=1)
    run(make_grid(SimulatedSite("a"), SimulatedSite("b"), never_content), folder)
    record = folder.read_record(1).sites[2]
    assert (record.outcome, record.code) == (Outcome.FAILED, ReasonCode.MODEL_NEEDED)


def test_a_site_killed_after_it_asked_for_the_model_is_missing_and_the_others_count(tmp_path):
    clock, site = Clock(), SimulatedSite("c")

    def dying(message, context):
        if message.metadata.message_type == "evaluate" and named(message):
            return Message(Error(2, ReasonCode.MODEL_NEEDED.value), reply_to=message)
        if message.metadata.message_type == "evaluate" and site.seen[-1].action is Action.EVALUATE:
            return None
        return site(message, context)

    folder = new_folder(tmp_path / "run", WireConfig(), rounds=1, deadline_s=50)
    result = run(make_grid(SimulatedSite("a"), SimulatedSite("b"), dying), folder, clock=clock)
    outcomes = [site.outcome for site in result.ledger if site.site == "c"]
    assert Outcome.MISSING in outcomes
    assert set(result.test.sites) == {"a", "b"}


@pytest.mark.parametrize("split", [Split.VALIDATION, Split.CALIBRATION, Split.TEST])
def test_a_coordinator_killed_among_the_evaluations_ends_in_the_same_result(tmp_path, split):
    """It does not know any more who holds what, and sends the models again."""
    folder, plain = new_folder(tmp_path / "run", rounds=2), new_folder(tmp_path / "plain", rounds=2)

    def hook(event: Event) -> None:
        if event.kind is EventKind.REPLY_ACCEPTED and event.detail["split"] == split and event.detail["action"] == "evaluate":
            raise Killed

    members = sites(tmp_path / "states")
    with pytest.raises(Killed):
        run(make_grid(*members), folder, events=EventLog(folder.events_path, on_event=hook))
    result, expected = run(make_grid(*members), folder), run(make_grid(*sites(tmp_path / "others")), plain)
    assert result.model_dump(exclude={"ledger"}) == expected.model_dump(exclude={"ledger"})


def test_the_order_of_replies_does_not_matter_to_a_lossy_wire(tmp_path, unbroken):
    north, south = sites(tmp_path / "states")
    folder = new_folder(tmp_path / "run")
    run(make_grid(south, north), folder)
    assert digests(folder) == digests(unbroken)


def test_the_rounds_record_says_what_a_lossy_wire_saves(tmp_path, unbroken):
    full = new_folder(tmp_path / "run", WireConfig(down="fp32", up="fp32"))
    run(make_grid(*sites(tmp_path / "states")), full)
    for (down, up), (plain_down, plain_up) in zip(wire_of(unbroken)[0], wire_of(full)[0], strict=True):
        assert down < 0.75 * plain_down
        assert up < 0.4 * plain_up
    assert np.isfinite([value.sum() for value in unbroken.load_round(ROUNDS).tensors.values()]).all()
