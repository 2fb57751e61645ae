import logging
import stat
import subprocess
import sys

import numpy as np
import pytest

from gmmas_runtime.sealed_files import PLAIN, Seal, is_sealed, rotate_key
from gmmas_workflows.site_state import KEEP, SiteState, sealed_states


def state_of(number: float) -> dict[str, np.ndarray]:
    return {"encoders.t1.0": np.full((2, 3), number, np.float32), "uncertainty.idh": np.array(-number, np.float32)}


def same(first, second) -> bool:
    return {n: (v.shape, v.tobytes()) for n, v in first.items()} == {n: (v.shape, v.tobytes()) for n, v in second.items()}


def make_seal(folder) -> Seal:
    rotate_key(folder / "seal.key", [])
    return Seal(folder / "seal.key")


@pytest.fixture(params=["disk", "sealed", "memory"])
def make_state(request, tmp_path):
    """Return a maker of the site's state; on disk each call is a new process, in memory it is the one there is."""
    if request.param != "memory":
        seal = PLAIN if request.param == "disk" else make_seal(tmp_path)
        return lambda kind="feedback": SiteState(tmp_path / "states", kind=kind, seal=seal)
    kept = {}
    return lambda kind="feedback": kept.setdefault(kind, SiteState(kind=kind))


def test_a_new_site_has_no_state(make_state):
    assert make_state().before(run="r", round=1) == {}


def test_a_round_starts_from_what_the_one_before_ended_with(make_state):
    for number in range(1, 8):
        assert same(make_state().before(run="r", round=number), state_of(number - 1) if number > 1 else {})
        make_state().write(state_of(number), run="r", round=number)


def test_a_round_that_is_asked_for_again_starts_from_the_same_state_even_after_it_ended(make_state):
    for number in (1, 2, 3):
        make_state().write(state_of(number), run="r", round=number)
    assert same(make_state().before(run="r", round=3), state_of(2))
    make_state().write(state_of(30), run="r", round=3)
    assert same(make_state().before(run="r", round=3), state_of(2))
    assert same(make_state().before(run="r", round=4), state_of(30))


def test_a_coordinator_that_lost_its_last_checkpoint_may_go_back_one_round(make_state):
    for number in range(1, 6):
        make_state().write(state_of(number), run="r", round=number)
    assert same(make_state().before(run="r", round=4), state_of(3))


def test_states_of_the_rounds_that_are_made_again_are_forgotten(make_state):
    for number in range(1, 5):
        make_state().write(state_of(number), run="r", round=number)
    make_state().write(state_of(30), run="r", round=3)
    assert same(make_state().before(run="r", round=9), state_of(30))


def test_missed_rounds_do_not_lose_the_state(make_state):
    make_state().write(state_of(2), run="r", round=2)
    assert same(make_state().before(run="r", round=7), state_of(2))
    make_state().write(state_of(7), run="r", round=7)
    assert same(make_state().before(run="r", round=7), state_of(2))


def test_states_of_rounds_that_did_not_count_are_passed_over(make_state):
    for number in (1, 2, 3):
        make_state().write(state_of(number), run="r", round=number)
    assert same(make_state().before(run="r", round=4, counted=3), state_of(3))
    assert same(make_state().before(run="r", round=4, counted=2), state_of(2))
    assert same(make_state().before(run="r", round=3, counted=3), state_of(2))
    assert make_state().before(run="r", round=4, counted=0) == {}


def test_any_number_of_rounds_that_did_not_count_displaces_no_state_that_did(make_state):
    make_state().write(state_of(1), run="r", round=1, counted=0)
    for number in range(2, 9):
        for _ in range(2):
            assert same(make_state().before(run="r", round=number, counted=1), state_of(1))
            make_state().write(state_of(number), run="r", round=number, counted=1)
    assert same(make_state().before(run="r", round=9, counted=8), state_of(8))
    assert same(make_state().before(run="r", round=9, counted=7), state_of(1))


def test_a_void_state_is_gone_even_where_the_next_cannot_be_written(tmp_path, monkeypatch):
    state = SiteState(tmp_path, kind="feedback")
    for number in (1, 2):
        state.write(state_of(number), run="r", round=number)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("gmmas_runtime.files.os.fsync", fail)
        state.write(state_of(3), run="r", round=3, counted=1)
    assert same(state.before(run="r", round=4, counted=3), state_of(1))


def test_a_state_of_another_run_is_never_used(make_state):
    make_state().write(state_of(1), run="first", round=1)
    assert make_state().before(run="second", round=2) == {}
    make_state().write(state_of(5), run="second", round=1)
    assert make_state().before(run="first", round=2) == {}
    assert same(make_state().before(run="second", round=2), state_of(5))


def test_kinds_do_not_meet(make_state):
    make_state("feedback").write(state_of(1), run="r", round=1)
    make_state("norms").write(state_of(2), run="r", round=1)
    assert same(make_state("feedback").before(run="r", round=2), state_of(1))
    assert same(make_state("norms").before(run="r", round=2), state_of(2))


def test_what_is_written_is_a_copy(make_state):
    tensors = state_of(1)
    make_state().write(tensors, run="r", round=1)
    tensors["encoders.t1.0"][:] = 9
    assert same(make_state().before(run="r", round=2), state_of(1))


def test_an_empty_state_is_one_too(make_state):
    make_state().write(state_of(1), run="r", round=1)
    make_state().write({}, run="r", round=2)
    assert make_state().before(run="r", round=3) == {}


def test_files_are_private_few_and_hold_no_code(tmp_path):
    folder = tmp_path / "states"
    for number in range(1, 9):
        SiteState(folder, kind="feedback").write(state_of(number), run="r", round=number)
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [f"feedback-00000{number}.safetensors" for number in range(9 - KEEP, 9)]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def spoil(data: bytes, how: str) -> bytes:
    return {"cut": data[:-5], "empty": b"", "flipped": data[:-1] + bytes([data[-1] ^ 1]), "nonsense": b"\xff" * 64}[how]


@pytest.mark.parametrize("how", ["cut", "empty", "flipped", "nonsense"])
def test_a_damaged_state_is_logged_and_counts_as_none(tmp_path, caplog, how):
    state = SiteState(tmp_path, kind="feedback")
    for number in (1, 2):
        state.write(state_of(number), run="r", round=number)
    path = tmp_path / "feedback-000002.safetensors"
    path.write_bytes(spoil(path.read_bytes(), how))
    with caplog.at_level(logging.WARNING):
        assert state.before(run="r", round=3) == {}
    assert "round 2 is left aside" in caplog.text
    assert same(state.before(run="r", round=2), state_of(1))
    state.write(state_of(3), run="r", round=3)
    assert same(state.before(run="r", round=4), state_of(3))


def test_a_file_renamed_to_another_round_is_no_state(tmp_path):
    state = SiteState(tmp_path, kind="feedback")
    state.write(state_of(1), run="r", round=1)
    (tmp_path / "feedback-000001.safetensors").rename(tmp_path / "feedback-000004.safetensors")
    assert state.before(run="r", round=5) == {}


def test_a_disk_that_cannot_be_written_costs_the_state_and_not_the_round(tmp_path, caplog):
    (tmp_path / "states").write_text("a file where the folder should be")
    state = SiteState(tmp_path / "states", kind="feedback")
    with caplog.at_level(logging.WARNING):
        state.write(state_of(1), run="r", round=1)
    assert "is not kept" in caplog.text
    assert state.before(run="r", round=2) == {}


def test_a_kill_while_writing_leaves_the_older_state(tmp_path, monkeypatch):
    state = SiteState(tmp_path, kind="feedback")
    state.write(state_of(1), run="r", round=1)

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("gmmas_runtime.files.os.fsync", die)
        with pytest.raises(Killed):
            state.write(state_of(2), run="r", round=2)
    assert same(SiteState(tmp_path, kind="feedback").before(run="r", round=3), state_of(1))


def test_it_loads_no_torch():
    program = "import gmmas_workflows.site_state, sys; sys.exit('torch' in sys.modules or 'flwr' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


def test_sealed_states_are_rotated_and_one_under_another_rounds_name_is_none(tmp_path):
    seal = make_seal(tmp_path)
    state = SiteState(tmp_path / "states", kind="feedback", seal=seal)
    for number in (1, 2):
        state.write(state_of(number), run="r", round=number)
    files = sealed_states(tmp_path / "states")
    assert [is_sealed(file.path) for file in files] == [True, True]
    rotate_key(seal.key_file, files)
    assert same(state.before(run="r", round=3), state_of(2))
    files[0].path.replace(files[1].path)
    assert state.before(run="r", round=3) == {}


def test_plain_states_are_left_aside_until_they_are_sealed(tmp_path):
    SiteState(tmp_path / "states", kind="feedback").write(state_of(1), run="r", round=1)
    seal = make_seal(tmp_path)
    state = SiteState(tmp_path / "states", kind="feedback", seal=seal)
    assert state.before(run="r", round=2) == {}
    rotate_key(seal.key_file, sealed_states(tmp_path / "states"))
    assert same(state.before(run="r", round=2), state_of(1))
