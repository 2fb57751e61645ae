from pathlib import Path

import pytest

from gmmas_schema.messages import Evaluation, Interval
from gmmas_schema.model import ModelDefinition
from gmmas_schema.validation import MatrixRow, ValidatedModel, ValidationMatrix
from gmmas_schema.vocabulary import Region, Split, Task
from gmmas_workflows.matrix_figure import MOST_SITES, _difference, draw_matrix

MODEL = ValidatedModel(label="m", source="m", weights="ab" * 32, definition=ModelDefinition())


def row(sites: dict[str, Evaluation], **metrics: float) -> MatrixRow:
    return MatrixRow(model=MODEL, sites=sites, metrics=metrics)


def evaluation(dice: float, **paired: Interval) -> Evaluation:
    figures = {Region.WT: Interval(value=dice, n=9)}
    auc = {Task.IDH: Interval(value=0.5, n=9)}
    return Evaluation(split=Split.TEST, cases=9, dice=figures, auc=auc, paired=paired, against="x" if paired else "")


def matrix(*rows: MatrixRow) -> ValidationMatrix:
    return ValidationMatrix(validation="v", split=Split.TEST, made_at="", seconds=1, rows=rows)


@pytest.mark.parametrize("sites", [0, 1, 3, MOST_SITES + 5])
def test_a_picture_is_drawn_of_any_number_of_sites(tmp_path: Path, sites: int) -> None:
    own = {f"site{number}": evaluation(0.5) for number in range(sites)}
    metrics = {"dice_wt": 0.5, "auc_idh": 0.5} if sites else {}
    path = draw_matrix(matrix(row(own, **metrics), row(own, **metrics)), tmp_path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 2_000


def test_a_difference_is_called_sure_only_where_its_interval_and_its_patients_allow() -> None:
    first = row({"north": evaluation(0.5)})

    def told(metric: str, **interval: float) -> tuple[str, bool]:
        return _difference(first, row({"north": evaluation(0.6, **{metric: Interval(**interval)})}), "north", metric)

    assert told("dice_wt", value=0.1, low=0.05, high=0.15, n=5) == ("+0.10▲", True)
    assert told("dice_wt", value=-0.1, low=-0.15, high=-0.05, n=5) == ("-0.10▼", True)
    assert told("dice_wt", value=0.1, low=-0.05, high=0.25, n=5) == ("+0.10", False)
    assert told("auc_idh", value=-1.0, low=-1.0, high=-1.0, n=5) == ("-1.00", False)
    assert _difference(first, row({"north": evaluation(0.6)}), "north", "dice_wt") == ("+0.10", False)
    assert _difference(first, first, "north", "dice_wt") == ("", False)
