import json

import pytest

from benchmarks.federation.__main__ import main, read_result
from benchmarks.federation.figures import draw
from benchmarks.federation.measure import Result
from benchmarks.federation.plan import Cell
from benchmarks.federation.report import summarise, write_markdown


def result(system, repeat=0, *, overhead_s=2.0, cpu_s=1.0, sites=4):
    return Result(
        cell=Cell(system=system, sites=sites, model="4 MB", repeat=repeat),
        periods=3,
        wall_s=overhead_s + 2,
        train_s=2.0,
        overhead_s=overhead_s,
        overheads_s=(overhead_s,) * 3,
        cpu_s=cpu_s,
        cpu_by_program={"coordinator/x": cpu_s},
        loopback_bytes=1e7,
        coordinator_peak_mib=500.0,
        peak_by_program={},
        ended_unseen_s=0.0,
        load=1.0,
        own_loopback=True,
        machine="m",
        extra={"payload_down": 16e6, "payload_up": 32e6},
    )


def rows(results):
    summary = summarise(results, command="c")
    return summary, {(row["system"], row["sites"]): row for row in summary["rows"]}


def test_medians_and_ratios_to_flower_with_as_many_sites():
    found = [result("gmmas", repeat, overhead_s=seconds) for repeat, seconds in enumerate((1.0, 3.0, 2.0))]
    found += [result("flower", overhead_s=8.0, cpu_s=10.0), result("flower", sites=8, overhead_s=99.0)]
    _, by_name = rows(found)
    assert by_name["gmmas", 4]["overhead_s"] == 2.0
    assert by_name["gmmas", 4]["overhead_of_flower"] == 0.25
    assert by_name["gmmas", 4]["cpu_of_flower"] == 0.1
    assert by_name["gmmas", 4]["payload_down_mb_per_site"] == 1.0
    assert by_name["gmmas", 4]["runs"] == 3


def test_without_flower_there_is_no_ratio_and_nodes_are_compared_with_nodes():
    _, by_name = rows([result("gmmas", sites=8), result("flower"), result("gmmas-nodes"), result("flower-nodes", cpu_s=4.0)])
    assert "cpu_of_flower" not in by_name["gmmas", 8]
    assert by_name["gmmas-nodes", 4]["cpu_of_flower"] == 0.25


def test_the_page_and_the_picture(tmp_path):
    summary, _ = rows([result("gmmas"), result("flower", overhead_s=8.0), result("gmmas-nodes", sites=16)])
    page = write_markdown(summary)
    assert "Software of this project: unknown." in page
    assert "| 4 MB | 4 | gmmas | 2.00 | 0.25 | 1.00 | 1.00 | 500 | 1.00, 2.00 | 10.0 | 3 |" in page
    draw(summary, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_what_is_measured_is_not_measured_again_and_other_settings_do_not_count(tmp_path):
    done = result("gmmas")
    (tmp_path / done.cell.name).mkdir()
    (tmp_path / done.cell.name / "result.json").write_text(done.model_dump_json())
    assert read_result(tmp_path, done.cell) == done
    assert read_result(tmp_path, done.cell.model_copy(update={"model": "20 MB"})) is None


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.timeout(900)
def test_our_deployment_is_measured_in_earnest(tmp_path):
    assert main(["--quick", "--systems", "gmmas", "--out", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "federation.json").read_text())
    (run,) = summary["runs"]
    assert run["periods"] == 1
    assert run["train_s"] == pytest.approx(0.2, abs=0.15)
    assert 0 < run["overhead_s"] < 60
    assert run["cpu_s"] > 0.05
    assert run["ended_unseen_s"] < 0.1
    programs = set(run["cpu_by_program"]) | set(run["peak_by_program"])
    assert {"coordinator/server.superlink", "site/client.supernode", "site/client.executor"} <= programs
    assert run["extra"]["payload_down"] > 0
