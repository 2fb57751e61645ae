import pytest

from gmmas_schema.messages import Evaluation, Interval
from gmmas_schema.model import ModelDefinition, NetworkConfig
from gmmas_schema.promotion import GateRules, Verdict
from gmmas_schema.validation import HeadError, MatrixRow, ValidatedModel
from gmmas_schema.vocabulary import REQUIRED_TASKS, Region, Split, Task
from server.gate import judge

RULES = GateRules()


def row(label: str = "m", *, tasks=REQUIRED_TASKS, calibration=None, **sites: Evaluation) -> MatrixRow:
    definition = ModelDefinition(network=NetworkConfig(tasks=tasks))
    model = ValidatedModel(label=label, source=label, weights="ab" * 32, definition=definition)
    return MatrixRow(model=model, sites=sites, calibration=calibration or {})


def measured(dice: float, auc: float | None = 0.8, *, paired=None, width: float = 0.1) -> Evaluation:
    auc_of = {} if auc is None else {Task.IDH: Interval(value=auc, low=max(0, auc - width), high=min(1, auc + width), n=12)}
    figure = Interval(value=dice, low=dice - width, high=dice + width, n=12)
    return Evaluation(split=Split.TEST, cases=12, dice={Region.WT: figure}, auc=auc_of, paired=paired or {}, against="x" if paired else "")


def failures(champion: MatrixRow, candidate: MatrixRow, rules: GateRules = RULES) -> set[tuple[str, str]]:
    found = judge(champion, candidate, rules, reference=champion)
    return {(each.subject, each.site) for each in found if each.verdict is Verdict.FAILS}


def test_a_model_that_is_as_good_everywhere_passes() -> None:
    champion = row(north=measured(0.8), south=measured(0.7))
    assert failures(champion, champion) == set()
    assert failures(champion, row(north=measured(0.85), south=measured(0.69, 0.78))) == set()


@pytest.mark.parametrize(("loss", "fails"), [(0.019, False), (0.02, False), (0.021, True)])
def test_one_site_that_loses_more_than_the_margin_holds_it_up_whatever_the_others_gain(loss: float, fails: bool) -> None:
    champion = row(north=measured(0.8), south=measured(0.7))
    candidate = row(north=measured(0.99), south=measured(0.7 - loss))
    assert failures(champion, candidate) == ({("dice_wt", "south")} if fails else set())


def test_markers_have_a_margin_of_their_own() -> None:
    champion, candidate = row(north=measured(0.8, 0.80)), row(north=measured(0.8, 0.765))
    assert failures(champion, candidate) == {("auc_idh", "north")}
    assert failures(champion, candidate, GateRules(auc=0.05)) == set()


def test_an_auc_of_a_handful_of_patients_decides_nothing_and_is_shown() -> None:
    def few(auc: float) -> MatrixRow:
        figure = Interval(value=auc, low=0.0, high=1.0, n=5)
        return row(north=Evaluation(split=Split.TEST, cases=5, auc={Task.IDH: figure}))

    (found,) = (f for f in judge(few(1.0), few(0.0), RULES, reference=few(1.0)) if f.subject == "auc_idh")
    assert (found.verdict, found.difference, found.note) == (Verdict.NOT_JUDGED, -1.0, "of 5 patients, fewer than 10")
    assert failures(few(1.0), few(0.0), GateRules(auc_patients=5)) == {("auc_idh", "north")}


def test_nothing_that_the_champion_does_may_disappear() -> None:
    champion = row(north=measured(0.8), south=measured(0.7), tasks=(*REQUIRED_TASKS, Task.GRADE))
    assert failures(champion, row(north=measured(0.8, None))) == {("tasks", ""), ("auc_idh", "north"), ("figures", "south")}


def test_the_interval_is_the_sites_own_on_the_same_patients_where_it_sent_one() -> None:
    champion = row(north=measured(0.8))
    paired = {"dice_wt": Interval(value=0.01, low=-0.005, high=0.02, n=12)}
    (found,) = (f for f in judge(champion, row(north=measured(0.81, paired=paired)), RULES, reference=champion) if f.subject == "dice_wt")
    assert (found.paired, found.low, found.high, found.note) == (True, -0.005, 0.02, "")
    # Without it, or against another model, the interval of unrelated means stands in, and says that nothing is proven.
    for reference, candidate in ((champion, measured(0.81)), (row("other"), measured(0.81, paired=paired))):
        (found,) = (f for f in judge(champion, row(north=candidate), RULES, reference=reference) if f.subject == "dice_wt")
        assert not found.paired
        assert found.difference == pytest.approx(0.01)
        assert found.high - found.low == pytest.approx(0.2 * 2**0.5)
        assert found.note == "the interval reaches beyond the margin"


def test_a_difference_that_the_champion_told_is_seen_from_the_other_side() -> None:
    paired = {"dice_wt": Interval(value=-0.1, low=-0.12, high=-0.07, n=12)}
    champion, candidate = row(north=measured(0.7, paired=paired)), row(north=measured(0.8))
    (found,) = (f for f in judge(champion, candidate, RULES, reference=candidate) if f.subject == "dice_wt")
    assert (found.paired, found.low, found.high) == (True, 0.07, 0.12)


def test_calibration_is_judged_by_error_for_regions_and_by_log_loss_for_markers() -> None:
    before = {
        Region.WT: HeadError(patients=20, nll=0.3, ece=0.02, reliability_patients=20),
        Task.IDH: HeadError(patients=20, nll=0.5, ece=0.02, reliability_patients=20),
    }
    worse_ece = {head: own.model_copy(update={"ece": 0.06}) for head, own in before.items()}
    worse_nll = {head: own.model_copy(update={"nll": own.nll + 0.06}) for head, own in before.items()}
    assert failures(row(calibration=before), row(calibration=worse_ece)) == {("calibration wt", "")}
    assert failures(row(calibration=before), row(calibration=worse_nll)) == {("calibration idh", "")}
    assert failures(row(calibration=before), row()) == {("calibration wt", ""), ("calibration idh", "")}


def test_calibration_of_few_patients_is_not_judged() -> None:
    few = {Task.IDH: HeadError(patients=9, nll=0.1, ece=0.0, reliability_patients=9)}
    bad = {Task.IDH: HeadError(patients=9, nll=5.0, ece=0.9, reliability_patients=9)}
    (found,) = (f for f in judge(row(calibration=few), row(calibration=bad), RULES, reference=row()) if f.subject.startswith("cal"))
    assert found.verdict is Verdict.NOT_JUDGED
