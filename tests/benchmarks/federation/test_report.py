import json
import time
from types import SimpleNamespace

import pytest
from pydantic import ValidationError
from rich.console import Console

from benchmarks.federation import __main__ as command
from benchmarks.federation.__main__ import main, measure_cell, read_failure, read_result
from benchmarks.federation.figures import draw
from benchmarks.federation.measure import FAILURE, Result
from benchmarks.federation.plan import Cell, plan_cells
from benchmarks.federation.report import count_rows, name_missing, summarise, write_markdown


def result(system, repeat=0, *, overhead_s=2.0, cpu_s=1.0, sites=4, unseen_s=0.0, mib=500.0, model="4 MB"):
    return Result(
        cell=Cell(system=system, sites=sites, model=model, repeat=repeat),
        periods=3,
        wall_s=overhead_s + 2,
        train_s=2.0,
        overhead_s=overhead_s,
        overheads_s=(overhead_s,) * 3,
        cpu_s=cpu_s,
        stand_in_cpu_s=0.25,
        cpu_by_program={"coordinator/x": cpu_s, "the rest": 0.25},
        loopback_bytes=1e7,
        coordinator_peak_mib=mib,
        peak_by_program={"coordinator/x": mib - 100, "coordinator/y": 100.0, "site/z": 50.0},
        unseen_s=unseen_s,
        load=1.0,
        own_loopback=True,
        machine="m",
        extra={"payload_down": 16e6, "payload_up": 32e6},
    )


def rows(results):
    summary = summarise(results, command="c")
    return summary, {(row["system"], row["sites"]): row for row in summary["rows"]}


def test_processor_seconds_are_the_sum_of_their_parts_or_there_is_no_result():
    good = result("gmmas-nodes", cpu_s=3.0).model_dump()
    with pytest.raises(ValidationError, match="not the sum of its parts"):
        Result.model_validate(good | {"cpu_s": 2.0})


def test_medians_and_their_range():
    found = [result("gmmas", repeat, overhead_s=seconds) for repeat, seconds in enumerate((1.0, 3.0, 2.0))]
    _, by_name = rows(found)
    row = by_name["gmmas", 4]
    assert (row["overhead_s"], row["overhead_range_s"]) == (2.0, [1.0, 3.0])
    assert row["payload_down_mb_per_site"] == 1.0
    assert row["runs"] == 3
    page = write_markdown(summarise(found, command="c"))
    assert "| 4 MB | 4 | gmmas | 2.00 (1.00 to 3.00) | 1.00 (1.00 to 1.00) | 500 | 1.00, 2.00 | 10.0 | 3, 9 |" in page


def test_what_is_deployed_is_compared_with_flower_and_equal_work_with_equal_work():
    found = [
        result("gmmas", overhead_s=2.0, cpu_s=4.0, mib=1000.0),
        result("flower", overhead_s=8.0, cpu_s=40.0, mib=500.0),
        result("gmmas-plain", overhead_s=3.0, cpu_s=5.0),
        result("flower-train-only", overhead_s=4.0, cpu_s=20.0),
        result("flower", sites=8, overhead_s=99.0),
    ]
    summary, _ = rows(found)
    assert [(row["what"], row["system"], row["of"], row["sites"]) for row in summary["compared"]] == [
        ("as deployed", "gmmas", "flower", 4),
        ("equal work", "gmmas-plain", "flower-train-only", 4),
    ]
    page = write_markdown(summary)
    assert "| as deployed: gmmas / flower | 4 MB | 4 | 2.00 / 8.00 | 0.25 | 4.00 / 40.00 | 0.10 | 1000 / 500 | 2.00 |" in page
    assert (
        "| equal work: gmmas-plain / flower-train-only | 4 MB | 4 | 3.00 / 4.00 | 0.75 | 5.00 / 20.00 | 0.25 | 500 / 500 | 1.00 |" in page
    )


def test_without_the_other_side_there_is_no_ratio_and_nodes_are_compared_with_nodes():
    summary, _ = rows([result("gmmas", sites=8), result("flower"), result("gmmas-nodes"), result("flower-nodes", cpu_s=4.0)])
    (compared,) = summary["compared"]
    assert (compared["system"], compared["cpu_s"]["ratio"]) == ("gmmas-nodes", 0.25)


@pytest.mark.parametrize(
    ("unseen_s", "told", "figure"), [(0.005, False, "1.00"), (0.02, True, "1.00"), (0.07, True, "not known, see below")]
)
def test_processor_seconds_that_were_not_seen_are_told_and_too_many_give_no_figure(unseen_s, told, figure):
    summary, _ = rows([result("gmmas"), result("flower", unseen_s=unseen_s)])
    page = write_markdown(summary)
    assert ("Not seen by the accounting" in page) == told
    assert f"| 4 MB | 4 | flower | 2.00 | {figure} | 500 |" in page
    assert ("cpu_s" in summary["compared"][0]) == (figure == "1.00")


def test_the_page_and_the_picture(tmp_path):
    summary, _ = rows([result("gmmas"), result("flower", overhead_s=8.0), result("gmmas-nodes", sites=16)])
    page = write_markdown(summary)
    assert "Software of this project: unknown." in page
    assert "| 4 MB | 4 | gmmas | 2.00 | 1.00 | 500 | 1.00, 2.00 | 10.0 | 1, 3 |" in page
    assert "- gmmas, 4 sites, 4 MB: coordinator/x 1.00, the rest 0.25. MiB: x 400, y 100" in page
    assert "without a result" not in page
    draw(summary, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_what_was_planned_and_is_not_there_is_named_with_the_reason():
    cells = plan_cells(systems=("gmmas", "flower"), sites=(4,), models=("4 MB",), rounds=4, train_s=2.0, repeats=2)
    found = [result("gmmas"), result("flower")]
    missing = name_missing(cells, found, {"flower-4sites-4MB-4x2s-1": "failed: x"})
    page = write_markdown(summarise(found, command="c", missing=missing))
    assert "Planned and without a result:\n\n- gmmas-4sites-4MB-4x2s-1: not run\n- flower-4sites-4MB-4x2s-1: failed: x\n" in page


def test_what_is_measured_is_not_measured_again_and_other_settings_do_not_count(tmp_path):
    done = result("gmmas")
    keep(tmp_path, done)
    assert read_result(tmp_path, done.cell) == done
    assert read_result(tmp_path, done.cell.model_copy(update={"model": "20 MB"})) is None


def test_why_a_cell_failed_is_kept_until_it_is_run_again(tmp_path, monkeypatch):
    cell = result("gmmas").cell
    monkeypatch.setattr(command.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=-9, stderr="", stdout=""))
    assert not measure_cell(Console(quiet=True), tmp_path, cell)
    assert read_failure(tmp_path, cell) == "failed: ended with -9"
    (tmp_path / cell.name / FAILURE).write_text("b\n")
    assert read_failure(tmp_path, cell) == "failed: b"
    monkeypatch.setattr(command.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=0, stderr="", stdout=""))
    assert measure_cell(Console(quiet=True), tmp_path, cell)
    assert read_failure(tmp_path, cell) == ""


def keep(folder, done):
    (folder / done.cell.name).mkdir(parents=True)
    (folder / done.cell.name / "result.json").write_text(done.model_dump_json())


def test_a_part_does_not_take_the_place_of_the_whole_committed_table(tmp_path, monkeypatch):
    committed, out = tmp_path / "results", tmp_path / "out"
    committed.mkdir()
    monkeypatch.setattr(command, "COMMITTED", committed)
    for done in (result("gmmas"), result("flower"), result("gmmas", 1), result("flower", 1)):
        keep(out, done)
    common = ["--report", "--commit", "--out", str(out), "--models", "4 MB", "--nodes", "0"]
    both, one = [*common, "--systems", "gmmas,flower"], [*common, "--systems", "gmmas"]
    assert main([*both, "--repeats", "2"]) == 0
    whole = (committed / "federation.md").read_text()
    for less in ([*one, "--repeats", "2"], [*both, "--repeats", "1"]):
        assert main(less) == 1
        assert (committed / "federation.md").read_text() == whole
    assert main([*one, "--repeats", "1", "--replace"]) == 0
    assert count_rows(json.loads((committed / "federation.json").read_text())) == {"gmmas, 4 sites, 4 MB": 1}


def test_the_committed_table_can_be_told_from_a_fuller_one():
    assert count_rows(json.loads((command.COMMITTED / "federation.json").read_text()))


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.timeout(900)
def test_our_deployment_is_measured_in_earnest(tmp_path):
    begun = time.monotonic()
    assert main(["--quick", "--systems", "gmmas", "--out", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "federation.json").read_text())
    (run,) = summary["runs"]
    assert run["periods"] == 1
    assert 0.2 <= run["train_s"] < run["wall_s"] < time.monotonic() - begun, "the stand-in sleeps as long at least, on a busy one longer"
    assert run["overhead_s"] == pytest.approx(run["wall_s"] - run["train_s"])
    assert run["cpu_s"] > 0.05
    assert run["unseen_s"] < 0.1
    programs = set(run["cpu_by_program"]) | set(run["peak_by_program"])
    assert {"coordinator/server.superlink", "site/client.supernode", "site/client.executor"} <= programs
    assert run["extra"]["payload_down"] > 0
