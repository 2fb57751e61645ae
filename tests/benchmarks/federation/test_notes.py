import json

import pytest

from benchmarks.federation.notes import read_notes, require_replies, summarise_notes
from gmmas_schema.errors import FederationError


def note(number, start, end, cpu_s=0.1):
    return {"round": number, "start": start, "end": end, "cpu_s": cpu_s}


WHOLE = {"a": [note(1, 10, 12), note(2, 20, 22)], "b": [note(1, 11, 15), note(2, 21, 23)]}


def test_a_period_goes_from_the_first_training_start_to_the_next_rounds(tmp_path):
    for site, lines in WHOLE.items():
        (tmp_path / f"{site}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    training = summarise_notes(read_notes(tmp_path), sites=2, rounds=2)
    assert training.starts == (10, 20)
    assert training.longest == (4, 2)
    assert training.cpu_s == pytest.approx(0.2), "the last round's training is not within a period"


@pytest.mark.parametrize(
    ("notes", "fault"),
    [
        ({}, "0 sites trained"),
        ({"a": WHOLE["a"]}, "1 sites trained"),
        (WHOLE | {"c": WHOLE["a"]}, "3 sites trained"),
        (WHOLE | {"b": [note(2, 21, 23)]}, "b trained 0 times in round 1"),
        (WHOLE | {"b": [note(1, 11, 12), note(1, 13, 15), note(2, 21, 23)]}, "b trained 2 times in round 1"),
        (WHOLE | {"b": [*WHOLE["b"], note(3, 30, 31)]}, "b trained in round 3"),
    ],
)
def test_a_run_that_went_on_without_a_site_is_no_result(notes, fault):
    with pytest.raises(FederationError, match="not every site trained") as error:
        summarise_notes(notes, sites=2, rounds=2)
    assert fault in error.value.got


def test_a_reply_that_was_not_averaged_is_seen(tmp_path):
    path = tmp_path / "replies.jsonl"
    with pytest.raises(FederationError, match="train of round 1: no replies"):
        require_replies(path, sites=2, rounds=2, kinds=("train",))
    lines = [{"kind": kind, "round": number, "good": 2, "failed": 0} for number in (1, 2) for kind in ("train", "evaluate")]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    require_replies(path, sites=2, rounds=2, kinds=("train", "evaluate"))
    lines[3] |= {"good": 1, "failed": 1}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    require_replies(path, sites=2, rounds=2, kinds=("train",))
    with pytest.raises(FederationError, match="evaluate of round 2: 1 replies, 1 failed"):
        require_replies(path, sites=2, rounds=2, kinds=("train", "evaluate"))
