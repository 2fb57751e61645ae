import json

import pytest

from benchmarks.federation.accounting import Sample, at
from benchmarks.federation.measure import read_notes, summarise_notes
from benchmarks.federation.plan import MODELS, Cell, plan_cells
from server.initial_model import make_initial_model


def note(number, start, end, cpu_s=0.1):
    return {"round": number, "start": start, "end": end, "cpu_s": cpu_s}


def test_a_period_goes_from_the_first_training_start_to_the_next_rounds(tmp_path):
    for site, lines in {"a": [note(1, 10, 12), note(2, 20, 22)], "b": [note(1, 11, 15), note(2, 21, 23)]}.items():
        (tmp_path / f"{site}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    starts, longest, cpu_s = summarise_notes(read_notes(tmp_path), rounds=2)
    assert starts == [10, 20]
    assert longest == [4, 2]
    assert cpu_s == pytest.approx(0.2), "the last round's training is not within a period"


def test_a_run_that_lost_rounds_is_no_result(tmp_path):
    with pytest.raises(AssertionError, match="not 3"):
        summarise_notes({"a": [note(1, 0, 1), note(2, 2, 3)]}, rounds=3)


def test_the_tree_between_two_samples_is_on_a_line():
    samples = [Sample(0.0, {("site", "a"): 1.0}, 100), Sample(2.0, {("site", "a"): 2.0, ("site", "b"): 1.0}, 300)]
    middle = at(samples, 1.0)
    assert middle.seconds == {("site", "a"): 1.5, ("site", "b"): 0.5}
    assert middle.total_s == 2.0
    assert middle.loopback_bytes == 200
    with pytest.raises(ValueError, match="not between"):
        at(samples, 3.0)


def test_systems_alternate_within_a_repeat():
    cells = plan_cells(systems=("gmmas", "flower"), sites=(4, 8), models=("4 MB",), rounds=2, train_s=1, repeats=2)
    assert [cell.system for cell in cells] == ["gmmas", "flower"] * 4
    assert [cell.repeat for cell in cells] == [0] * 4 + [1] * 4
    assert len({cell.name for cell in cells}) == len(cells)


@pytest.mark.parametrize(("model", "megabytes"), [("4 MB", 4.1), ("20 MB", 20.6)])
def test_models_are_as_big_as_they_are_called(model, megabytes):
    tensors = make_initial_model(Cell(system="flower", sites=1, model=model).federation)
    assert sum(value.nbytes for value in tensors.values()) / 1e6 == pytest.approx(megabytes, abs=0.1)
    assert model in MODELS
