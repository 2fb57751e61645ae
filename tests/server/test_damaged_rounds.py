"""A round whose folder is damaged or gone costs a round at most: the run goes on, resumes and ends without it, and says what it lacks."""

import shutil

import pytest

from gmmas_schema.errors import ModelError
from gmmas_schema.events import Event, EventKind
from gmmas_schema.federation import FederationConfig
from gmmas_workflows.run_folder import KEEP_LAST
from server.checkpoint import RunFolder
from server.events import EventLog, read_events
from tests.server.kills import Killed, kill_at
from tests.server.simulated_sites import RecordingTracker, SimulatedSite, dice_of, make_config, make_grid, run

ROUNDS, DONE, BEST = 6, 5, 1
STEPS = ["average", "momentum", "adam"]


def sites():
    """The sites validate in round k what round k - 1 has made; of all models the BEST one is the best, and of the others a later one."""
    alter = lambda report, tensors: (dice_of(report, 0.9 if report.round == BEST + 1 else report.round / 100), tensors)  # noqa: E731
    return SimulatedSite("a", alter=alter), SimulatedSite("b", alter=alter)


def new_folder(path, step="average"):
    config = make_config(rounds=ROUNDS).model_dump() | {"server_step": {"kind": step}}
    return RunFolder.create(path, FederationConfig.parse(config, where="test"), run="r1")


def digests(folder):
    return {number: folder.read_record(number).model_sha256 for number in folder.finished_rounds() if number > 0}


def unreadable(folder):
    return [event for event in read_events(folder.events_path) if event.kind is EventKind.MODEL_UNREADABLE]


def stopped(folder):
    """Run until round DONE is finished and what nothing needs any more is deleted."""
    with pytest.raises(Killed):
        run(make_grid(*sites()), folder, events=EventLog(folder.events_path, on_event=kill_at(EventKind.ROUND_STARTED, DONE + 1)))
    return folder


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folders = {step: new_folder(tmp_path_factory.mktemp(step) / "run", step) for step in STEPS}
    for folder in folders.values():
        run(make_grid(*sites()), folder)
        assert folder.read_result().best_round == BEST
    return {step: digests(folder) for step, folder in folders.items()}


@pytest.mark.parametrize(
    ("step", "how"),
    [("average", "a bit"), ("average", "the model"), ("average", "the folder"), ("adam", "the state"), ("adam", "the folder")],
)
def test_the_round_before_the_last_is_not_needed(tmp_path, unbroken, step, how):
    folder = stopped(new_folder(tmp_path / "run", step))
    place = folder.round_path(DONE - 1)
    if how == "a bit":
        damage(place / "model.safetensors")
    elif how == "the folder":
        shutil.rmtree(place)
    else:
        (place / f"{how.removeprefix('the ')}.safetensors").unlink()
    assert run(make_grid(*sites()), folder).best_round == BEST
    found = digests(folder)
    assert found == {number: digest for number, digest in unbroken[step].items() if number in found}
    assert len(found) == ROUNDS - (how == "the folder")
    assert not unreadable(folder)


@pytest.mark.parametrize("how", ["a bit", "the folder"])
def test_momentum_goes_one_step_without_it_and_says_so(tmp_path, unbroken, how):
    folder = stopped(new_folder(tmp_path / "run", "momentum"))
    place = folder.round_path(DONE - 1)
    damage(place / "model.safetensors") if how == "a bit" else shutil.rmtree(place)
    assert run(make_grid(*sites()), folder).rounds == ROUNDS
    assert digests(folder)[DONE] == unbroken["momentum"][DONE]
    assert digests(folder)[DONE + 1] != unbroken["momentum"][DONE + 1]
    (told,) = unreadable(folder)
    assert told.round == DONE - 1
    assert f"round {DONE + 1} goes without momentum" in told.message


@pytest.mark.parametrize(
    ("step", "file"),
    [
        *[("average", file) for file in ("model.safetensors", "model.json", "round.json", "SHA256SUMS")],
        *[("momentum", "model.safetensors"), ("adam", "state.safetensors")],
    ],
)
def test_the_last_round_is_deleted_and_made_again(tmp_path, unbroken, step, file):
    """What the error says is true: one round is lost, and what is kept of those before is enough for the very weights."""
    folder = stopped(new_folder(tmp_path / "run", step))
    place = folder.round_path(DONE)
    damage(place / file)
    with pytest.raises(ModelError) as caught:
        run(make_grid(*sites()), folder)
    assert f"delete the folder {place.name}" in caught.value.remedy
    shutil.rmtree(place)
    run(make_grid(*sites()), folder)
    assert digests(folder) == unbroken[step]
    assert not unreadable(folder)


@pytest.mark.parametrize("step", STEPS)
def test_the_last_two_are_deleted(tmp_path, unbroken, step):
    folder = stopped(new_folder(tmp_path / "run", step))
    for number in (DONE - 1, DONE):
        shutil.rmtree(folder.round_path(number))
    run(make_grid(*sites()), folder)
    assert (digests(folder) == unbroken[step]) is (step != "momentum"), "the model of the round before is pruned"
    assert [event.round for event in unreadable(folder)] == ([DONE - KEEP_LAST] if step == "momentum" else [])


def test_a_best_model_that_is_damaged_is_named_and_without_it_the_next_one_is_the_best(tmp_path, unbroken):
    folder = stopped(new_folder(tmp_path / "run"))
    damage(folder.round_path(BEST) / "model.safetensors")
    with pytest.raises(ModelError) as caught:
        run(make_grid(*sites()), folder)
    assert f"delete the folder {BEST:04d}" in caught.value.remedy
    assert folder.finished_rounds()[-1] == ROUNDS
    shutil.rmtree(folder.round_path(BEST))
    tracker = RecordingTracker()
    result = run(make_grid(*sites()), folder, tracker=tracker)
    assert (result.best_round, tracker.registered) == (ROUNDS - 1, {"best": ROUNDS - 1, "last": ROUNDS})
    (told,) = unreadable(folder)
    assert told.round == BEST
    assert f"that of round {ROUNDS - 1} is taken for it" in told.message


def test_from_the_moment_that_the_best_model_is_gone_the_next_best_is_kept(tmp_path):
    """Else it would be pruned, for one that cannot be had."""
    following = ROUNDS - KEEP_LAST

    def alter(report, tensors):
        return dice_of(report, {BEST + 1: 0.9, following + 1: 0.5}.get(report.round, 0.1)), tensors

    good = [SimulatedSite(name, alter=alter) for name in "ab"]
    folder = new_folder(tmp_path / "run")

    def hook(event: Event) -> None:
        if (event.kind, event.round) == (EventKind.ROUND_STARTED, following):
            shutil.rmtree(folder.round_path(BEST))

    result = run(make_grid(*good), folder, events=EventLog(folder.events_path, on_event=hook))
    assert (result.best_round, result.validation.model_round) == (following, following)


@pytest.mark.parametrize(("number", "is_pruned"), [(2, True), (ROUNDS - KEEP_LAST, False)])
def test_the_sums_of_an_old_round_that_are_lost_stop_no_run(tmp_path, unbroken, number, is_pruned):
    folder = new_folder(tmp_path / "run")

    def hook(event: Event) -> None:
        if (event.kind, event.round) == (EventKind.ROUND_STARTED, ROUNDS):
            (folder.round_path(number) / "SHA256SUMS").unlink()

    run(make_grid(*sites()), folder, events=EventLog(folder.events_path, on_event=hook))
    assert folder.result_path.exists()
    folder.note_seals()
    assert (folder.round_path(number) / "model.safetensors").exists() is not is_pruned
    shutil.rmtree(folder.round_path(number))
    assert digests(folder) == {each: digest for each, digest in unbroken["average"].items() if each != number}
