"""Bad replies in the true round loop: refused beside the others', told to everybody concerned, and the same after any interruption."""

import numpy as np
import pytest
from flwr.app import Message

from gmmas_schema.errors import FederationError, ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.messages import Action
from gmmas_schema.robustness import FixedClip, MedianClip, MedianRule, RobustnessConfig, TrimmedRule
from gmmas_schema.vocabulary import Task
from server.checkpoint import RunFolder
from server.events import EventLog, read_events
from server.judgement import SPOOL
from server.records import Outcome
from strategies.anchors import COUNTS, SUMS
from tests.matrices import thinned
from tests.server.kills import Killed, kill_at
from tests.server.simulated_sites import TINY, SimulatedSite, make_config, make_grid, run

ROUNDS = 3


def scale(factor):
    """Return an `alter` that lengthens the update by `factor`; a simulated site's model is 0.9 of what it received, and noise."""
    return lambda report, tensors: (report, {name: value * np.float32(factor) for name, value in tensors.items()})


def only_in(number, change):
    return lambda report, tensors: change(report, tensors) if report.round == number and tensors else (report, tensors)


def make_folder(path, *, rounds=ROUNDS, replies=2, sites=3, **robustness):
    config = make_config(rounds=rounds, sites=sites, replies=replies)
    return RunFolder.create(path, config.model_copy(update={"robustness": RobustnessConfig(**robustness)}), run="r1")


def honest(names="abc"):
    return [SimulatedSite(name) for name in names]


def told(folder, kind):
    return [event for event in read_events(folder.events_path) if event.kind is kind]


def same(first, second):
    return {n: (v.shape, v.tobytes()) for n, v in first.items()} == {n: (v.shape, v.tobytes()) for n, v in second.items()}


@pytest.fixture(scope="module")
def without_the_attacker(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("clean") / "run")
    run(make_grid(*honest()), folder)
    return folder


def test_defences_cost_honest_sites_nothing_to_the_last_bit(tmp_path, without_the_attacker):
    plain = make_folder(tmp_path / "run", norm_limit=None)
    run(make_grid(*honest()), plain)
    for number in range(1, ROUNDS + 1):
        assert plain.read_record(number).model_sha256 == without_the_attacker.read_record(number).model_sha256
        assert all(site.outcome is Outcome.ACCEPTED for site in without_the_attacker.read_record(number).sites)


def test_an_update_that_is_far_too_long_is_refused_by_default_and_leaves_no_trace(tmp_path, without_the_attacker):
    folder = make_folder(tmp_path / "run")
    run(make_grid(*honest(), SimulatedSite("z", alter=scale(100))), folder)
    for number in range(1, ROUNDS + 1):
        record = folder.read_record(number)
        assert record.model_sha256 == without_the_attacker.read_record(number).model_sha256
        assert record.validation == without_the_attacker.read_record(number).validation
        bad = record.sites[3]
        assert (bad.outcome, bad.code, bad.shares, bad.evaluation) == (Outcome.REFUSED, ReasonCode.REPLY_REFUSED, {}, None)
        assert "size of its update" in bad.reason
        assert bad.bytes_up > 0
    dismissed = told(folder, EventKind.REPLY_DISMISSED)
    assert [(event.round, event.site, event.code) for event in dismissed] == [(n, "z", ReasonCode.REPLY_REFUSED) for n in (1, 2, 3)]
    assert "size of its update" in dismissed[0].message
    assert not (folder.path / SPOOL).exists()


def stand_on(patients):
    """Return an `alter` that gives each prototype so many patients, each with features of 1."""

    def change(report, tensors):
        anchors = {name: np.full_like(value, patients) for name, value in tensors.items() if name in (SUMS, COUNTS)}
        return report, tensors | anchors

    return change


@pytest.mark.parametrize(("patients", "joint"), [(-5.0, 10), (1000.0, 10), (10.0, 20)])
def test_anchors_of_patients_that_a_site_cannot_have_do_not_count_and_the_rest_of_its_reply_does(tmp_path, patients, joint):
    """Below 0, the features of the others would be divided by fewer patients than they come from."""
    network = TINY.network.model_copy(update={"prototypes": 1})
    config = make_config(rounds=1, sites=3, replies=3)
    config = config.model_copy(update={"model": TINY.model_copy(update={"network": network})})
    folder = RunFolder.create(tmp_path / "run", config, run="r1")
    a, b = (SimulatedSite(name, alter=stand_on(5.0)) for name in "ab")
    run(make_grid(a, b, SimulatedSite("c", alter=stand_on(patients))), folder)
    tensors, (*_, last) = folder.load_round(1).tensors, folder.read_record(1).sites
    assert (tensors[COUNTS] == joint).all()
    assert (tensors[SUMS] == joint).all()
    assert last.outcome is Outcome.ACCEPTED
    assert ("anchors" in last.shares) is (joint == 20)
    assert last.shares["fusion"] > 0


def test_the_site_is_told_with_its_next_request_until_a_reply_counts(tmp_path):
    folder = make_folder(tmp_path / "run")
    site = SimulatedSite("z", alter=only_in(1, scale(100)))
    run(make_grid(*(others := honest()), site), folder)
    asked = {request.round: request.notice for request in site.seen if request.action is Action.TRAIN}
    assert asked[1] is None
    assert asked[2].round == 1
    assert asked[2].code is ReasonCode.REPLY_REFUSED
    assert "size of its update" in asked[2].reason
    assert asked[2].reason.isprintable()
    assert asked[3] is None
    assert not any(request.notice for other in others for request in other.seen)


def test_a_refusal_before_the_others_came_is_told_too_and_after_a_resume(tmp_path):
    not_finite = only_in(1, scale(np.inf))
    folder = make_folder(tmp_path / "run")
    with pytest.raises(Killed):
        run(
            make_grid(*honest(), SimulatedSite("z", alter=not_finite)),
            folder,
            events=EventLog(folder.events_path, on_event=kill_at(EventKind.ROUND_STARTED, 2)),
        )
    site = SimulatedSite("z")
    run(make_grid(*honest(), site), folder)
    (notice,) = (request.notice for request in site.seen if request.action is Action.TRAIN and request.round == 2)
    assert "not finite" in notice.reason
    assert notice.round == 1


def test_replies_that_a_kill_left_on_the_disk_are_cleared_away_even_if_no_round_is_left(tmp_path):
    folder = make_folder(tmp_path / "run", rounds=1)
    with pytest.raises(Killed):
        run(make_grid(*honest()), folder, events=EventLog(folder.events_path, on_event=kill_at(EventKind.REPLY_ACCEPTED, 1)))
    (folder.path / SPOOL).mkdir(exist_ok=True)
    (folder.path / SPOOL / "0.f32").write_bytes(b"secret")
    run(make_grid(*honest()), folder)
    (folder.path / SPOOL).mkdir()
    folder.result_path.unlink()
    run(make_grid(*honest()), folder)
    assert not (folder.path / SPOOL).exists()


def test_refused_replies_do_not_make_a_quorum(tmp_path):
    folder = make_folder(tmp_path / "run", sites=4, replies=4)
    with pytest.raises(FederationError) as caught:
        run(make_grid(*honest(), SimulatedSite("z", alter=scale(100))), folder)
    assert caught.value.code is ReasonCode.QUORUM
    assert not (folder.path / SPOOL).exists()


def test_a_group_of_two_is_held_against_the_rounds_before_also_by_a_resumed_run(tmp_path):
    """Only two sites teach 1p/19q; in round 3 one of them multiplies that head by 100."""

    def blow_up(report, tensors):
        return report, {name: value * np.float32(100 if "codeletion" in name else 1) for name, value in tensors.items()}

    def sites():
        few = {Task.SEGMENTATION: 20, Task.IDH: 20}
        return [SimulatedSite("a", labelled=few), SimulatedSite("b", labelled=few), SimulatedSite("c"),
                SimulatedSite("z", alter=only_in(3, blow_up))]  # fmt: skip

    folder = make_folder(tmp_path / "run", sites=4)
    with pytest.raises(Killed):
        run(make_grid(*sites()), folder, events=EventLog(folder.events_path, on_event=kill_at(EventKind.ROUND_FINISHED, 2)))
    run(make_grid(*sites()), folder)
    assert [folder.read_record(number).sites[3].outcome for number in (1, 2, 3)] == [Outcome.ACCEPTED, Outcome.ACCEPTED, Outcome.REFUSED]
    assert "codeletion" in folder.read_record(3).sites[3].reason


MODES = {
    "median": {"combine": MedianRule()},
    "trimmed": {"combine": TrimmedRule(share=0.25), "clip": MedianClip(multiple=1.2)},
    "cosine": {"cosine_limit": -0.05, "clip": FixedClip(norm=0.1)},
}


def turn_back(report, tensors):
    """A simulated site comes a little nearer to 0 and adds noise; this one goes away from it."""
    return report, {name: value * np.float32(2.2) for name, value in tensors.items()}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folders = {}
    for mode, options in MODES.items():
        folders[mode] = make_folder(tmp_path_factory.mktemp(mode) / "run", sites=5, norm_limit=None, **options)
        run(make_grid(*honest("abcd"), SimulatedSite("z", alter=turn_back)), folders[mode])
    return folders


@pytest.mark.parametrize(
    ("mode", "kind", "number"),
    thinned([*MODES], [(EventKind.REPLY_ACCEPTED, 2), (EventKind.ROUND_FINISHED, 2), (EventKind.ROUND_STARTED, 3)]),
)
def test_a_killed_run_goes_on_to_the_same_weights_in_any_order_of_replies(tmp_path, unbroken, mode, kind, number):
    sites = [SimulatedSite("z", alter=turn_back), *honest("dcba")]
    folder = make_folder(tmp_path / "run", sites=5, norm_limit=None, **MODES[mode])
    with pytest.raises(Killed):
        run(make_grid(*sites), folder, events=EventLog(folder.events_path, on_event=kill_at(kind, number)))
    run(make_grid(*sites), folder)
    for each in range(1, ROUNDS + 1):
        mine, theirs = folder.read_record(each), unbroken[mode].read_record(each)
        assert mine.model_sha256 == theirs.model_sha256
        assert [site.outcome for site in mine.sites] == [site.outcome for site in theirs.sites]


def test_each_mode_does_what_it_says(unbroken):
    cosine = unbroken["cosine"].read_record(1).sites
    assert [site.outcome for site in cosine][4] is Outcome.REFUSED
    assert cosine[4].cosine < -0.05 < min(site.cosine for site in cosine[:4])
    assert all(site.clipped for site in cosine[:4])
    trimmed = unbroken["trimmed"].read_record(1)
    assert trimmed.sites[4].clipped["decoder"] < 1
    assert not trimmed.combined
    assert unbroken["median"].read_record(1).sites[0].shares["fusion"] == pytest.approx(0.2)


def test_who_turned_back_is_refused_until_the_mean_of_its_rounds_is_over_the_limit_also_by_a_resumed_run(tmp_path):
    def sites():
        return make_grid(*honest("abcd"), SimulatedSite("z", alter=only_in(1, turn_back)))

    folder = make_folder(tmp_path / "run", sites=5, norm_limit=None, cosine_limit=-0.034)
    with pytest.raises(Killed):
        run(sites(), folder, events=EventLog(folder.events_path, on_event=kill_at(EventKind.ROUND_FINISHED, 1)))
    run(sites(), folder)
    first, second, third = (folder.read_record(number).sites for number in (1, 2, 3))
    assert [first[4].outcome, second[4].outcome, third[4].outcome] == [Outcome.REFUSED, Outcome.REFUSED, Outcome.ACCEPTED]
    assert first[4].cosine < -0.034 < second[4].cosine
    assert all(site.outcome is Outcome.ACCEPTED for site in (*first[:4], *second[:4], *third[:4]))


class Replaying(SimulatedSite):
    """Answers every training request with the first answer it ever gave."""

    def __call__(self, message, context):
        reply = super().__call__(message, context)
        if message.metadata.message_type != "train":
            return reply
        self.first = getattr(self, "first", reply.content)
        return Message(self.first, reply_to=message)


def test_a_replayed_reply_is_refused_as_one_of_another_round(tmp_path):
    folder = make_folder(tmp_path / "run")
    run(make_grid(*honest(), Replaying("z")), folder)
    outcomes = [folder.read_record(number).sites[3].outcome for number in (1, 2, 3)]
    assert outcomes == [Outcome.ACCEPTED, Outcome.REFUSED, Outcome.REFUSED]
    assert "round" in folder.read_record(2).sites[3].reason


def test_a_reply_of_another_run_is_refused(tmp_path):
    first = make_folder(tmp_path / "first", rounds=1)
    stale = Replaying("z")
    run(make_grid(*honest(), stale), first)
    folder = RunFolder.create(tmp_path / "second", first.config, run="r2")
    run(make_grid(*honest(), stale), folder)
    assert folder.read_record(1).sites[3].outcome is Outcome.REFUSED
    assert "run" in folder.read_record(1).sites[3].reason


def test_somebody_elses_reply_is_refused(tmp_path):
    """A site that sends what it saw of another one."""
    stolen = {}

    class Thief(SimulatedSite):
        def __call__(self, message, context):
            if message.metadata.message_type != "train":
                return super().__call__(message, context)
            return Message(stolen[message.metadata.group_id], reply_to=message)

    def overhear(message):
        if message.metadata.message_type == "train" and message.metadata.src_node_id == 100:
            stolen.setdefault(message.metadata.group_id, message.content)

    folder = make_folder(tmp_path / "run")
    run(make_grid(*honest(), Thief("z"), watch=overhear), folder)
    assert folder.read_record(1).sites[3].outcome is Outcome.REFUSED
    assert "site name" in folder.read_record(1).sites[3].reason


def test_the_same_message_twice_counts_once(tmp_path, without_the_attacker):
    """A grid that hands every reply over twice, and again whenever it is asked."""
    grid = make_grid(*honest())
    pull, given = grid.pull_messages, {}

    def pull_twice(identifiers):
        for identifier in identifiers:
            given.setdefault(identifier, []).extend(pull([identifier]) * 2)
        return [message for replies in given.values() for message in replies]

    grid.pull_messages = pull_twice
    folder = make_folder(tmp_path / "run", rounds=1)
    run(grid, folder)
    assert folder.read_record(1).model_sha256
    assert same(folder.load_round(1).tensors, without_the_attacker.load_round(1).tensors)
