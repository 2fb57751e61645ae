import json

from benchmarks.committed import what_would_be_lost


def test_cells_and_runs_that_a_new_table_lacks_are_named(tmp_path) -> None:
    path = tmp_path / "table.json"
    assert what_would_be_lost(path, {}, count=dict) == []
    path.write_text(json.dumps({"a": 2, "b": 1}))
    assert what_would_be_lost(path, {"a": 2, "b": 3, "c": 1}, count=dict) == []
    assert what_would_be_lost(path, {"a": 1, "c": 1}, count=dict) == ["a (2 runs, now 1)", "b (1 runs, now 0)"]
