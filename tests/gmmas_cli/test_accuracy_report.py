import io

from rich.console import Console

from gmmas_cli.accuracy_report import accuracy_table, markdown_table
from gmmas_schema.messages import Evaluation, Interval
from gmmas_schema.vocabulary import Region, Split, Task

EVALUATION = Evaluation(
    split=Split.TEST,
    cases=16,
    dice={Region.WT: Interval(value=0.81, low=0.7, high=0.9, n=16)},
    auc={Task.IDH: Interval(value=None, n=3)},
)


def test_table_shows_values_with_intervals_and_a_dash_for_what_is_not_defined() -> None:
    text = markdown_table({"unseen": EVALUATION})
    assert "| unseen | 16 | 0.81 [0.70, 0.90] | – | – | – | – |" in text


def test_the_terminal_has_the_interval_below_the_value_and_fits_80_columns() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    every = EVALUATION.model_copy(
        update={"auc": dict.fromkeys((Task.IDH, Task.CODELETION, Task.GRADE, Task.MGMT), EVALUATION.dice[Region.WT])}
    )
    console.print(accuracy_table({"unseen": EVALUATION, "other": every}, title="t"))
    lines = console.export_text().splitlines()
    (unseen,) = [at for at, line in enumerate(lines) if "unseen" in line]
    assert lines[unseen].split() == ["unseen", "16", "0.81", *"––––––"]
    assert lines[unseen + 1].split() == [".70–.90"]
    assert lines[unseen + 3].split() == [".70–.90"] * 5


def test_an_optional_marker_has_a_column_where_it_was_judged() -> None:
    judged = EVALUATION.model_copy(update={"auc": {Task.GRADE: Interval(value=0.75, n=9)}})
    text = markdown_table({"unseen": EVALUATION, "north": judged})
    assert "| AUC 1p/19q | AUC grade |" in text
    assert text.splitlines()[-1].endswith("| – | – | 0.75 |")
    assert "MGMT" not in text
