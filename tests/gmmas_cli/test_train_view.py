import io

import pytest
from rich.console import Console

from gmmas_cli.train_view import LiveTraining
from gmmas_schema.messages import Evaluation, Interval, SiteDescription
from gmmas_schema.standalone import EarlyStop, TrainConfig
from gmmas_schema.vocabulary import REGIONS, Split, Task
from gmmas_workflows.scores import score_model
from gmmas_workflows.train_folder import TrainRound
from tests.gmmas_cli.trainings import finished_round

CONFIG = TrainConfig.model_validate(
    {
        "cohorts": [{"name": "north", "root": "/data/north"}],
        "rounds": 4,
        "training": {"local_steps": 10, "batch_size": 2},
        "early_stop": None,
        "threads": 1,
    }
)
CASES = SiteDescription(
    site="north", model_digest="0", software="test", modalities=("t1", "flair"), cases=20, labelled={Task.SEGMENTATION: 20, Task.IDH: 0}
)


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def validated(record: TrainRound, dice: float) -> TrainRound:
    """Return the round with a validation that has every metric on the screen."""
    evaluation = Evaluation(
        split=Split.VALIDATION,
        cases=4,
        dice={region: Interval(value=dice, n=4) for region in REGIONS},
        auc={Task.IDH: Interval(value=0.75, n=4), Task.CODELETION: Interval(value=1.0, n=4)},
    )
    return record.model_copy(update={"validation": score_model({"north": evaluation}, model_round=record.round, split=Split.VALIDATION)})


def drawn(live: LiveTraining, *, width: int = 80) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(live.render())
    return [line.rstrip() for line in out.getvalue().splitlines()]


def make_live(config: TrainConfig = CONFIG, *, terminal: bool = False) -> tuple[LiveTraining, io.StringIO, Clock]:
    out, clock = io.StringIO(), Clock()
    console = Console(file=out, width=80, color_system=None, force_terminal=terminal)
    return LiveTraining(console, config, clock=clock), out, clock


def test_a_pipe_gets_one_plain_line_per_round() -> None:
    live, out, _ = make_live()
    with live:
        for done in (1, 2, 3):
            live.prepare(done, 3)
        live.begin(CASES, [], device="cpu")
        live.step(1, 40)
        live.evaluate(Split.VALIDATION, 1, 4)
        live.round(validated(finished_round(1, rounds=4, seconds=30.0), 0.5))
    lines = [line.split(" ", 1)[1] for line in out.getvalue().splitlines()]
    assert lines == [
        "3 cases are ready",
        "20 training cases (t1, flair); labelled: 20 segmentation; on cpu",
        "round 1 of 4 in 30 s, 4.0 samples/s, about 1 min 30 s left  loss segmentation 0.700 idh 0.300  "
        "validation Dice WT 0.500 TC 0.500 ET 0.500  AUC IDH 0.750 1p/19q 1.000",
    ]
    assert "\x1b" not in out.getvalue()


def test_the_picture_tells_step_speed_time_losses_and_validation_within_80_columns() -> None:
    live, _, clock = make_live()
    live.begin(CASES, [], device="cpu")
    live.round(validated(finished_round(1, rounds=4, seconds=40.0), 0.6))
    live.round(validated(finished_round(2, rounds=4, seconds=20.0), 0.4))
    for step in range(21, 26):
        clock.now += 0.5
        live.step(step, 40)
    lines = drawn(live)
    assert max(map(len, lines)) <= 80
    assert lines[0] == "train  round 3 of 4"
    # Two rounds of 30 s on average, of which 2.5 s are gone; two cases every half second.
    assert lines[1].startswith("25 of 40")
    assert lines[1].endswith("4.0 samples/s  about 58 s left")
    assert lines[2].split() == ["loss", "round", "2", "segmentation", "0.700", "idh", "0.300"]
    assert lines[3].startswith("validation round 2   Dice WT 0.400")
    assert lines[4].startswith("best       round 1   Dice WT 0.600")


def test_the_time_left_is_an_upper_limit_where_training_may_stop_early() -> None:
    live, _, _ = make_live(CONFIG.model_copy(update={"early_stop": EarlyStop()}))
    live.begin(CASES, [finished_round(1, rounds=4, seconds=30.0)], device="cpu")
    assert drawn(live)[1].endswith("4.0 samples/s  at most 1 min 30 s left")
    assert live.remaining_s == pytest.approx(90)


def test_a_resumed_training_says_where_it_goes_on() -> None:
    live, out, _ = make_live()
    live.begin(CASES, [finished_round(1, rounds=4), finished_round(2, rounds=4)], device="cpu")
    assert "resumed after round 2 of 4" in out.getvalue()
    assert drawn(live)[1].startswith("20 of 40")


def test_the_stage_follows_preparation_and_evaluation() -> None:
    live, _, _ = make_live()
    assert drawn(live)[0] == "train  reading the cohorts"
    live.prepare(1, 3)
    assert drawn(live)[0] == "train  preparing cases"
    assert drawn(live)[1].startswith("1 of 3")
    live.begin(CASES, [], device="cpu")
    live.evaluate(Split.TEST, 2, 5)
    assert drawn(live)[0] == "train  test: 2 of 5 cases"


def test_a_terminal_shows_the_picture_and_takes_it_away() -> None:
    live, out, _ = make_live(terminal=True)
    with live:
        live.begin(CASES, [], device="cpu")
    assert "round 1 of 4" in out.getvalue()
    assert "20 training cases" in out.getvalue()
    assert "\x1b[" in out.getvalue()
