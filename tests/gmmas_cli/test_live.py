import io

from rich.console import Console

from gmmas_cli.live import LiveRun, describe_event, draw_run
from gmmas_schema.events import EventKind
from server.run_view import RunView
from tests.gmmas_cli.events import event, whole_run


def test_a_pipe_gets_one_line_per_event_that_matters() -> None:
    out = io.StringIO()
    with LiveRun(Console(file=out, width=200)) as live:
        for each in whole_run():
            live.update(each)
        live.note("the demo tests the model")
    lines = [line.split(" ", 1)[1] for line in out.getvalue().splitlines()[:-1]]
    assert lines == [
        "started",
        "waiting for hospitals: 0 of 2 have joined",
        "north joined: 20 training cases, t1, t1ce, t2, flair",
        "east joined: 20 training cases, t2, flair",
        "round 1 of 3 in 15 s, about 30 s left  Dice WT 0.100 TC 0.050  AUC IDH 0.500",
        "east, round 2: no answer: E_DEADLINE",
        "round 2 of 3 in 25 s, about 20 s left  Dice WT 0.600 TC 0.300  AUC IDH 0.800",
    ]
    assert out.getvalue().splitlines()[-1] == "the demo tests the model"


def test_what_unlabelled_scans_teach_is_told_where_it_changes() -> None:
    view, lines = RunView(), []
    for number, ready in enumerate([(), ("wt",), ("wt",), ("wt", "tc", "idh"), ("idh",)], start=1):
        each = event(EventKind.ROUND_STARTED, number, number=number, attempt=1, sites=["north"], ready=dict.fromkeys(ready, 0.5))
        view.update(each)
        lines.append(describe_event(each, view))
        assert ("unlabelled scans too" in view.stage) == bool(ready)
    assert [line and line.plain.split(" ", 1)[1] for line in lines] == [
        None,
        "round 2: unlabelled scans now teach WT",
        None,
        "round 4: unlabelled scans now teach TC, IDH",
        "round 5: unlabelled scans no longer teach WT, TC: their validation fell below the threshold",
    ]


def test_a_terminal_keeps_the_last_picture() -> None:
    out = io.StringIO()
    with LiveRun(Console(file=out, force_terminal=True, width=80, color_system=None)) as live:
        for each in whole_run():
            live.update(each)
    picture = out.getvalue()
    assert "round 2 of 3" in picture
    assert "east, round 2: no answer: E_DEADLINE" in picture


def drawn(view: RunView, *, width: int = 80) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(draw_run(view))
    return out.getvalue().splitlines()


def test_the_picture_fits_80_columns() -> None:
    view = RunView()
    for each in whole_run():
        view.update(each)
    lines = drawn(view)
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    (north,) = [line.split() for line in lines if line.startswith("north")]
    assert north == ["north", "done", "T1", "T1ce", "T2", "FL", "20", "0:12", "8", "MB/7", "MB"]


def test_the_best_model_so_far_stays_in_sight() -> None:
    view = RunView()
    for each in whole_run():
        view.update(each)
    assert any(line.startswith("best so far model 1") for line in drawn(view))


def test_the_best_model_so_far_is_chosen_as_the_run_chooses_it() -> None:
    view, others = RunView(), {"dice_wt": 0.8, "dice_tc": 0.7}
    view.validation = {
        1: others | {"dice_et": 0.5, "visible_dice_et": 0.0},
        2: others | {"dice_et": 0.35, "visible_dice_et": 0.7},
        3: {"loss_idh": 1.0},
    }
    assert any(line.startswith("best so far model 2") for line in drawn(view))


def test_an_empty_run_can_be_drawn() -> None:
    assert drawn(RunView())[0].startswith("run  waiting for the coordinator")


def test_brackets_in_messages_are_text() -> None:
    view = RunView()
    view.update(event(EventKind.RUN_FAILED, 0, message="[red]odd[/]"))
    assert any("[red]odd[/]" in line for line in drawn(view))


def test_of_many_sites_those_in_trouble_have_a_row() -> None:
    view = RunView()
    for index in range(200):
        view.update(event(EventKind.SITE_JOINED, 1, site=f"s{index:03d}", modalities=["flair"], cases=1))
    view.update(event(EventKind.SITE_LEFT, 2, site="s150"))
    out = io.StringIO()
    Console(file=out, width=80).print(draw_run(view))
    lines = out.getvalue().splitlines()
    assert len(lines) < 30
    assert max(map(len, lines)) <= 80
    assert sum("s150" in line and "left" in line for line in lines) == 1
    assert "and 180 more: 180 joined" in out.getvalue()
