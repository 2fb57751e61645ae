from pathlib import Path

from gmmas_cli.run_report import MOST_LINES, _loss_lines, write_curves
from gmmas_schema.vocabulary import Task
from server.records import Outcome, RoundRecord, SiteRecord


def record(number: int, sites: int) -> RoundRecord:
    own = [
        SiteRecord(site=f"s{index}", node=str(index), outcome=Outcome.ACCEPTED, losses={Task.IDH: float(index)}) for index in range(sites)
    ]
    return RoundRecord(run="r", round=number, rounds=2, started_at=0.0, seconds=1.0, model_sha256="", attempt=1, sites=tuple(own))


def test_few_sites_have_a_line_each() -> None:
    assert _loss_lines([record(1, 2), record(2, 2)], Task.IDH) == {"s0": [(1, 0.0), (2, 0.0)], "s1": [(1, 1.0), (2, 1.0)]}


def test_many_sites_are_told_by_their_quartiles() -> None:
    lines = _loss_lines([record(1, MOST_LINES + 1)], Task.IDH)
    assert lines == {"upper quartile": [(1, 9.0)], "median of the sites": [(1, 6.0)], "lower quartile": [(1, 3.0)]}


def test_what_was_never_measured_has_no_picture(tmp_path: Path) -> None:
    write_curves([record(1, 0)], tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []
    write_curves([record(1, 2)], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
