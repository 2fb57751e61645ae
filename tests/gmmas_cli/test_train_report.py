import io

from rich.console import Console

from gmmas_cli.train_report import curve_panels, show_result, table_rows, write_curves
from gmmas_schema.messages import Evaluation, Interval
from gmmas_schema.standalone import TrainConfig, TrainTracking
from gmmas_schema.vocabulary import Region, Split, Task
from gmmas_workflows.scores import ModelScore, score_model
from gmmas_workflows.train_folder import TrainFolder, TrainResult
from tests.gmmas_cli.trainings import finished_round

CONFIG = TrainConfig.model_validate({"cohorts": [{"name": "north", "root": "/data/north"}], "rounds": 4, "threads": 1})


def evaluation(dice: float, patients: int) -> Evaluation:
    return Evaluation(
        split=Split.TEST,
        cases=patients,
        dice={Region.WT: Interval(value=dice, low=0.1, high=0.9, n=patients)},
        auc={Task.IDH: Interval(n=patients)},
        loss={Task.SEGMENTATION: 0.5},
    )


def result(test: ModelScore | None, *, rounds: int = 4) -> TrainResult:
    return TrainResult(
        run="train-1",
        rounds=rounds,
        best_round=2,
        model_digest="0",
        best_sha256="0",
        last_sha256="0",
        test=test,
        planned_rounds=4,
        stopped_early=rounds < 4,
        seconds=130.0,
        steps=40,
        device="cpu",
        software="test",
    )


def shown(folder: TrainFolder, outcome: TrainResult) -> str:
    out = io.StringIO()
    show_result(Console(file=out, width=160, color_system=None), folder, outcome)
    return out.getvalue()


def test_several_cohorts_have_a_row_of_their_mean_over_patients() -> None:
    test = score_model({"north": evaluation(0.8, 3), "east": evaluation(0.4, 1)}, model_round=2, split=Split.TEST)
    rows = table_rows(test)
    assert list(rows) == ["east", "north", "pooled"]
    assert rows["pooled"].cases == 4
    assert rows["pooled"].dice[Region.WT] == Interval(value=0.7000000000000001, n=4)
    assert rows["pooled"].auc[Task.IDH].value is None


def test_one_cohort_is_one_row() -> None:
    assert list(table_rows(score_model({"north": evaluation(0.8, 3)}, model_round=2, split=Split.TEST))) == ["north"]


def test_the_end_says_what_came_and_where_it_is(tmp_path) -> None:
    folder = TrainFolder.prepare(tmp_path / "run", CONFIG, resume=False)
    text = shown(folder, result(score_model({"north": evaluation(0.8, 3)}, model_round=2, split=Split.TEST), rounds=3))
    assert "Training stopped early after round 3 of 4. 40 steps in 2 min 10 s on cpu. Best model: round 2." in text
    assert "model of round 2 on the test patients" in text
    assert ".10–.90" in text
    assert f"--backend-store-uri sqlite:///{folder.path}/mlflow.db" in text
    assert f"--model {folder.path}/models/best" in text
    assert "No cohort has test cases" in shown(folder, result(None))


def test_the_credentials_of_a_store_are_not_shown(tmp_path) -> None:
    config = CONFIG.model_copy(update={"tracking": TrainTracking(uri="https://me:secret@mlflow.example.org")})
    text = shown(TrainFolder.prepare(tmp_path / "run", config, resume=False), result(None))
    assert "mlflow.example.org" in text
    assert "secret" not in text


def test_curves_are_of_validation_and_training_and_only_of_what_was_measured(tmp_path) -> None:
    rounds = [finished_round(number, rounds=4) for number in (1, 2, 3)]
    score = score_model({"north": evaluation(0.75, 4)}, model_round=2, split=Split.VALIDATION)
    rounds[1] = rounds[1].model_copy(update={"validation": score})
    assert curve_panels(rounds) == {
        "validation Dice": {"WT": [(2, 0.75)]},
        "loss: segmentation": {"training": [(1, 0.7), (2, 0.7), (3, 0.7)], "validation": [(2, 0.5)]},
        "loss: idh": {"training": [(1, 0.3), (2, 0.3), (3, 0.3)]},
    }
    assert write_curves(TrainFolder.prepare(tmp_path / "run", CONFIG, resume=False)) is None
