import numpy as np
import pytest
from flwr.app import Error, Message

from gmmas_schema.errors import FederationError, ModelError, ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.messages import Action
from gmmas_schema.vocabulary import MODALITIES, Modality, Split, Task
from gmmas_workflows.run_folder import KEEP_LAST
from server.checkpoint import RunFolder
from server.events import read_events
from server.records import Outcome
from strategies.codec import Parcel, unpack_tensors
from tests.server.simulated_sites import Clock, RecordingTracker, SimulatedSite, dice_of, make_config, make_grid, run

NO_T1CE = tuple(m for m in MODALITIES if m is not Modality.T1CE)
LATER_SOURCES = (Modality.T2, Modality.FLAIR)


@pytest.fixture
def make_folder(tmp_path):
    return lambda **options: RunFolder.create(tmp_path / "run", make_config(**options), run="r1")


def told(folder, kind):
    return [event for event in read_events(folder.events_path) if event.kind is kind]


def same(first, second):
    """Bit for bit."""
    return {n: (v.shape, v.tobytes()) for n, v in first.items()} == {n: (v.shape, v.tobytes()) for n, v in second.items()}


def names_in(message):
    """Return the names of all tensors in a message, whichever way it goes; checks that no other bytes could hold one."""
    content = message.content
    assert set(content) <= {"task", "report", "arrays"}
    (document,) = (content[name] for name in ("task", "report") if name in content)
    if "arrays" not in content:
        assert set(document) <= {"document", "digest"}
        return set()
    assert set(document) - {"digest"} == {"document", "index"}
    assert set(content["arrays"]) == {"tensors"}
    return set(unpack_tensors(Parcel(content["arrays"], document["index"])))


def on_round(number, change):
    """Return an `alter` that changes the training reply of one round."""

    def alter(report, tensors):
        return change(report, tensors) if report.round == number and tensors else (report, tensors)

    return alter


def test_a_run_goes_from_the_seeded_start_to_a_tested_best_model(make_folder):
    folder, tracker = make_folder(rounds=3), RecordingTracker()
    north, south = SimulatedSite("north"), SimulatedSite("south", NO_T1CE)
    result = run(make_grid(north, south), folder, tracker=tracker)

    assert [record.round for record in tracker.rounds] == [1, 2, 3]
    assert [record.validation.model_round for record in tracker.rounds] == [0, 1, 2]
    asked = [request for request in north.seen if request.evaluate is not Split.CALIBRATION]
    assert [request.action for request in asked] == [Action.DESCRIBE, *[Action.TRAIN] * 3, *[Action.EVALUATE] * 2]
    assert [request.evaluate for request in asked] == [None, *[Split.VALIDATION] * 4, Split.TEST]
    assert [request.round for request in asked] == [0, 1, 2, 3, 3, result.best_round]
    scores = {record.validation.model_round: record.validation.score for record in tracker.rounds[1:]} | {3: result.last.score}
    assert result.best_round == max(scores, key=scores.get)
    assert result.validation.score == scores[result.best_round]
    assert set(result.test.sites) == {"north", "south"}
    assert result.test.split is Split.TEST
    assert tracker.registered == {"best": result.best_round, "last": 3}
    assert (tracker.result, tracker.status) == (result, "FINISHED")
    assert folder.read_result() == result
    assert [event.kind for event in read_events(folder.events_path)][-1] is EventKind.RUN_FINISHED


def test_a_rounds_record_holds_bytes_seconds_shares_and_figures(make_folder):
    folder = make_folder(rounds=1)
    run(make_grid(SimulatedSite("north"), SimulatedSite("south", NO_T1CE, {Task.SEGMENTATION: 5})), folder)
    record = folder.read_record(1)
    north, south = record.sites
    assert (north.outcome, north.site, north.cases, north.steps) == (Outcome.ACCEPTED, "north", 20, 3)
    assert north.bytes_down > south.bytes_down > 10_000
    assert north.bytes_up > south.bytes_up > 10_000
    assert north.shares["encoder.t1ce"] == 1.0
    assert "encoder.t1ce" not in south.shares
    assert north.shares["fusion"] == pytest.approx(2 / 3)
    assert south.shares["fusion"] == pytest.approx(1 / 3)
    assert record.bytes_up == north.bytes_up + south.bytes_up
    assert record.peak_memory_mib > 1
    (finished,) = told(folder, EventKind.ROUND_FINISHED)
    assert set(finished.detail["sites"]) == {"north", "south"}
    assert finished.detail["validation"]["metrics"]["dice_wt"] == record.validation.metrics["dice_wt"]


def test_only_old_models_that_are_not_the_best_are_deleted(make_folder):
    folder = make_folder(rounds=6)
    # Model 1 is validated in round 2 and is by far the best.
    alter = lambda report, tensors: (dice_of(report, 0.99 if report.round == 2 else 0.1), tensors)  # noqa: E731
    result = run(make_grid(SimulatedSite("a", alter=alter), SimulatedSite("b", alter=alter)), folder)
    kept = [number for number in folder.finished_rounds() if (folder.round_path(number) / "model.safetensors").exists()]
    assert kept == [1, *range(7 - KEEP_LAST, 7)]
    assert result.best_round == 1
    assert same(folder.load_round(1).tensors, _load(folder.model_path("best")))
    assert same(folder.load_round(6).tensors, _load(folder.model_path("last")))


def _load(path):
    from gmmas_model.weights import load_weights

    return load_weights(path).tensors


def test_a_finished_run_is_returned_as_it_is(make_folder):
    folder = make_folder(rounds=1)
    result = run(make_grid(SimulatedSite("a"), SimulatedSite("b")), folder)
    assert run(make_grid(), folder) == result
    assert len(told(folder, EventKind.RUN_FINISHED)) == 1


def test_a_site_without_a_sequence_never_gets_sends_or_changes_its_encoder(make_folder):
    """Judged by what is on the wire."""
    wire = []
    folder = make_folder(rounds=2)
    sites = (SimulatedSite("south", NO_T1CE), SimulatedSite("east", LATER_SOURCES))
    run(make_grid(*sites, watch=wire.append), folder)
    names = [names_in(message) for message in wire]
    evaluations = sum(request.action is Action.EVALUATE for request in sites[0].seen)
    assert evaluations >= 3
    # Both ways in two rounds, and model 2 down for its validation; after that the sites hold both models.
    assert [len(found) > 50 for found in names].count(True) == 2 * 2 * 2 + 2
    assert not [name for found in names for name in found if ".t1ce." in name]
    start, end = folder.load_round(0).tensors, folder.load_round(2).tensors
    t1ce = [name for name in start if ".t1ce." in name]
    assert t1ce
    assert same({name: start[name] for name in t1ce}, {name: end[name] for name in t1ce})


def test_a_round_that_nobody_with_labels_answered_does_not_count(make_folder):
    """Replies of hospitals without labels are good ones, but the model would stay as it is while the schedule goes on."""
    folder = make_folder(rounds=1, sites=3, replies=2, attempts=2)
    silent = lambda message, context: None if message.metadata.message_type == "train" else labelled(message, context)  # noqa: E731
    labelled, others = SimulatedSite("a"), [SimulatedSite(name, labelled={}) for name in ("b", "c")]
    with pytest.raises(FederationError, match="none that trained"):
        run(make_grid(silent, *others), folder)
    failed = told(folder, EventKind.ROUND_FAILED)
    assert [event.code for event in failed] == [ReasonCode.QUORUM] * 2
    assert folder.finished_rounds() == (0,)


def test_the_plan_goes_with_an_evaluation_so_that_all_models_are_judged_in_one_precision(make_folder):
    site = SimulatedSite("a")
    run(make_grid(site, SimulatedSite("b")), make_folder(rounds=1))
    asked = [request for request in site.seen if request.action is not Action.DESCRIBE]
    assert len({request.plan.digest() for request in asked}) == 1
    assert {request.action for request in asked} == {Action.TRAIN, Action.EVALUATE}


def test_a_loss_of_a_task_that_the_network_lacks_adds_nothing_to_the_model(make_folder):
    """Else one site could make a checkpoint that nobody can load."""
    folder = make_folder(rounds=2)
    config = folder.config.model_copy(
        update={"training": folder.config.training.model_copy(update={"uncertainty_weighting": "closed_form"})}
    )
    folder = RunFolder.create(folder.path.parent / "closed", config, run="r2")
    odd = SimulatedSite("a", labelled={Task.SEGMENTATION: 5, Task.GRADE: 5})
    run(make_grid(odd, SimulatedSite("b")), folder)
    start, end = folder.load_round(0).tensors, folder.load_round(2).tensors
    assert set(end) == set(start)
    assert not same({"u": start["uncertainty.segmentation"]}, {"u": end["uncertainty.segmentation"]})


def test_a_holder_among_others_does_change_it(make_folder):
    wire = []
    folder = make_folder(rounds=1)
    run(make_grid(SimulatedSite("north"), SimulatedSite("south", NO_T1CE), watch=wire.append), folder)
    by_node = {}
    for message in wire:
        node = message.metadata.src_node_id if message.metadata.reply_to_message_id else message.metadata.dst_node_id
        by_node.setdefault(node, set()).update(names_in(message))
    assert [name for name in by_node[100] if ".t1ce." in name]
    assert not [name for name in by_node[101] if ".t1ce." in name]
    start, end = folder.load_round(0).tensors, folder.load_round(1).tensors
    assert all(not np.array_equal(start[name], end[name]) for name in start if ".t1ce." in name)


def test_nobody_with_labels_for_a_task_leaves_its_head_alone(make_folder):
    folder = make_folder(rounds=2)
    labelled = {Task.IDH: 9}
    run(make_grid(SimulatedSite("a", labelled=labelled), SimulatedSite("b", labelled=labelled)), folder)
    start, end = folder.load_round(0).tensors, folder.load_round(2).tensors
    untouched = [name for name in start if same({name: start[name]}, {name: end[name]})]
    prefixes = {
        ".".join(name.split(".")[:2]) if name.split(".")[0] in {"heads", "uncertainty"} else name.split(".")[0] for name in untouched
    }
    assert prefixes == {"decoder", "heads.segmentation", "heads.codeletion", "uncertainty.segmentation", "uncertainty.codeletion"}


TWO_TASKS = {Task.SEGMENTATION: 9, Task.IDH: 9}


@pytest.fixture(scope="module")
def without_the_bad_one(tmp_path_factory):
    """The model of the two good sites alone."""
    folder = RunFolder.create(tmp_path_factory.mktemp("good") / "run", make_config(rounds=2), run="r1")
    run(make_grid(SimulatedSite("a", labelled=TWO_TASKS), SimulatedSite("b", labelled=TWO_TASKS)), folder)
    return folder.load_round(2).tensors


def bad_values(report, tensors):
    return report, tensors | {next(iter(tensors)): np.full_like(next(iter(tensors.values())), np.nan)}


def bad_shape(report, tensors):
    return report, tensors | {name: value[:1] for name, value in list(tensors.items())[:1]}


def foreign_tensor(report, tensors):
    return report, tensors | {"fusion.backdoor": np.ones(1, np.float32)}


def foreign_group(report, tensors):
    return report, tensors | {"heads.codeletion.hidden.bias": np.ones(1, np.float32)}


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        (bad_values, ReasonCode.REPLY_REFUSED, "values of"),
        (bad_shape, ReasonCode.REPLY_REFUSED, "form of"),
        (foreign_tensor, ReasonCode.REPLY_REFUSED, "tensor name"),
        (foreign_group, ReasonCode.REPLY_REFUSED, "group of tensors"),
        (lambda r, t: (r.model_copy(update={"round": r.round + 1}), t), ReasonCode.REPLY_REFUSED, "round"),
        (lambda r, t: (r.model_copy(update={"run": "older"}), t), ReasonCode.REPLY_REFUSED, "run"),
        (lambda r, t: (r.model_copy(update={"site": "a"}), t), ReasonCode.REPLY_REFUSED, "site name"),
        (lambda r, t: (r.model_copy(update={"model_digest": "x"}), t), ReasonCode.MODEL_DEFINITION, "model definition"),
        (lambda r, t: (r.model_copy(update={"protocol": 9}), t), ReasonCode.PROTOCOL_VERSION, "protocol"),
        (lambda r, t: (r.model_copy(update={"cases": 10**6}), t), ReasonCode.REPLY_REFUSED, "number of cases"),
        (lambda r, t: (r, {name: value * np.float32(1e30) for name, value in t.items()}), ReasonCode.REPLY_REFUSED, "too large"),
    ],
)
def test_a_bad_reply_is_refused_by_name_and_the_round_goes_on_without_it(tmp_path, without_the_bad_one, change, code, named):
    folder = RunFolder.create(tmp_path / "run", make_config(rounds=2), run="r1")
    bad = SimulatedSite("z", labelled=TWO_TASKS, alter=lambda report, tensors: change(report, tensors) if tensors else (report, tensors))
    run(make_grid(SimulatedSite("a", labelled=TWO_TASKS), SimulatedSite("b", labelled=TWO_TASKS), bad), folder)
    assert same(folder.load_round(2).tensors, without_the_bad_one)
    refused = told(folder, EventKind.REPLY_REFUSED)
    assert [(event.round, event.site, event.code) for event in refused] == [(1, "z", code), (2, "z", code)]
    assert all(named in event.message for event in refused)
    assert folder.read_record(1).sites[2].outcome is Outcome.REFUSED
    assert "z" not in folder.read_record(2).validation.sites


def test_an_error_reply_costs_the_site_its_round_and_its_text_goes_nowhere(make_folder):
    folder = make_folder(rounds=2)
    good = SimulatedSite("z")

    def failing(message, context):
        if message.metadata.group_id == "1":
            return Message(Error(2, "KeyError: 'Jane Doe'"), reply_to=message)
        return good(message, context)

    run(make_grid(SimulatedSite("a"), SimulatedSite("b"), failing), folder)
    first, second = folder.read_record(1), folder.read_record(2)
    assert (first.sites[2].outcome, first.sites[2].code) == (Outcome.FAILED, ReasonCode.INTERNAL)
    assert second.sites[2].outcome is Outcome.ACCEPTED
    assert "Jane" not in str(read_events(folder.events_path)) + (folder.round_path(1) / "round.json").read_text()


def test_a_missing_reply_costs_the_deadline_and_not_the_round(make_folder):
    folder, clock = make_folder(rounds=1, deadline_s=50), Clock()
    describing = SimulatedSite("z")

    def stuck(message, context):
        return None if message.metadata.message_type == "train" else describing(message, context)

    run(make_grid(SimulatedSite("a"), SimulatedSite("b"), stuck), folder, clock=clock)
    record = folder.read_record(1)
    assert (record.sites[2].outcome, record.sites[2].code) == (Outcome.MISSING, ReasonCode.DEADLINE)
    assert record.seconds == pytest.approx(50, abs=1)
    assert [event.site for event in told(folder, EventKind.REPLY_MISSING)] == ["z"]


def test_a_killed_site_is_left_out_of_its_round_and_is_back_in_a_later_one(make_folder):
    folder, clock = make_folder(rounds=3), Clock()
    site = SimulatedSite("z")

    def killed_in_round_one(message, context):
        if message.metadata.message_type == "train" and message.metadata.group_id == "1":
            grid.take_offline(102)
            clock.at[clock.now + 0.2] = lambda: grid.bring_online(102, site)
            return None
        return site(message, context)

    grid = make_grid(SimulatedSite("a"), SimulatedSite("b"), killed_in_round_one)
    run(grid, folder, clock=clock)
    outcomes = [folder.read_record(number).sites[2].outcome for number in (1, 2, 3)]
    assert outcomes == [Outcome.FAILED, Outcome.ACCEPTED, Outcome.ACCEPTED]
    assert clock.now < 20
    assert [event.site for event in told(folder, EventKind.SITE_JOINED)].count("z") == 2


def test_too_few_good_replies_fail_the_round_which_is_tried_again(make_folder):
    folder = make_folder(rounds=2, attempts=2)
    failures = [True]
    good = SimulatedSite("b")

    def once_failing(message, context):
        if message.metadata.message_type == "train" and failures:
            failures.pop()
            return Message(Error(2, ReasonCode.OUT_OF_MEMORY.value), reply_to=message)
        return good(message, context)

    run(make_grid(SimulatedSite("a"), once_failing), folder)
    assert folder.read_record(1).attempt == 2
    (failed,) = told(folder, EventKind.ROUND_FAILED)
    assert (failed.round, failed.code, failed.detail["sites"]["b"]) == (1, ReasonCode.QUORUM, ReasonCode.OUT_OF_MEMORY)


def test_a_round_that_fails_in_every_attempt_stops_the_run_which_can_be_resumed(make_folder):
    folder = make_folder(rounds=2, attempts=2)
    broken = SimulatedSite("b", alter=on_round(2, bad_values))
    with pytest.raises(FederationError) as caught:
        run(make_grid(SimulatedSite("a"), broken), folder)
    assert caught.value.code is ReasonCode.QUORUM
    assert folder.finished_rounds() == (0, 1)
    result = run(make_grid(SimulatedSite("a"), SimulatedSite("b")), folder)
    assert result.rounds == 2
    assert told(folder, EventKind.RUN_RESUMED)[0].round == 1


def test_the_run_waits_for_its_sites(make_folder):
    folder, clock = make_folder(rounds=1), Clock()
    grid = make_grid(SimulatedSite("a"))
    clock.at[25.0] = lambda: grid.bring_online(300, SimulatedSite("late"))
    run(grid, folder, clock=clock)
    assert {site.site for site in folder.read_record(1).sites} == {"a", "late"}
    assert told(folder, EventKind.WAITING_FOR_SITES)[-1].detail == {"joined": 1, "needed": 2}


def test_a_run_whose_sites_never_come_says_so(make_folder):
    folder, clock = make_folder(rounds=1), Clock()
    with pytest.raises(FederationError) as caught:
        run(make_grid(SimulatedSite("a")), folder, clock=clock)
    assert caught.value.code is ReasonCode.QUORUM
    assert clock.now == pytest.approx(60, abs=1)


def test_a_site_of_another_model_is_never_sent_a_tensor(make_folder):
    class Misfit(SimulatedSite):
        def describe(self, request):
            return super().describe(request).model_copy(update={"model_digest": "other"})

    wire = []
    folder = make_folder(rounds=1)
    misfit = Misfit("z")
    run(make_grid(SimulatedSite("a"), SimulatedSite("b"), misfit, watch=wire.append), folder)
    assert [request.action for request in misfit.seen] == [Action.DESCRIBE]
    assert [event.code for event in told(folder, EventKind.SITE_REFUSED)] == [ReasonCode.MODEL_DEFINITION]
    assert not [message for message in wire if message.metadata.dst_node_id == 102 and "arrays" in message.content]


def test_a_damaged_checkpoint_stops_the_run_with_its_name(make_folder):
    folder = make_folder(rounds=2)
    with pytest.raises(FederationError):
        run(make_grid(SimulatedSite("a"), SimulatedSite("b", alter=on_round(2, bad_values))), folder)
    path = folder.round_path(1) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(ModelError) as caught:
        run(make_grid(SimulatedSite("a"), SimulatedSite("b")), folder)
    assert str(path) in caught.value.where
    assert "0001" in caught.value.remedy
