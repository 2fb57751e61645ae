from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmas_model.metrics import mean_interval
from gmmas_schema.errors import DataError
from gmmas_schema.vocabulary import MODALITIES, Modality, Region, Task
from gmmas_workflows.evaluation import CaseScore, subsets
from gmmas_workflows.significance import CaseGates, Subset, attribute_figures, shapley_values, subset_name, summarise_gates

ALL: list[Subset] = [*subsets(MODALITIES), ()]

figures = st.floats(-1, 1, allow_nan=False, width=32)
tables = st.lists(figures, min_size=16, max_size=16).map(lambda values: dict(zip(ALL, values, strict=True)))


def by_orders(table: Mapping[Subset, float], player: Modality) -> float:
    """The definition: the mean gain of a player over all orders of joining."""
    gains = []
    for order in permutations(MODALITIES):
        before = set(order[: order.index(player)])
        gains.append(table[ordered(before | {player})] - table[ordered(before)])
    return float(np.mean(gains))


def ordered(subset: set[Modality]) -> Subset:
    return tuple(m for m in MODALITIES if m in subset)


@given(tables)
def test_shapley_values_are_the_mean_gain_over_all_orders(table) -> None:
    assert shapley_values(table) == {m: pytest.approx(by_orders(table, m), abs=1e-9) for m in MODALITIES}


@given(tables)
def test_efficiency(table) -> None:
    assert sum(shapley_values(table).values()) == pytest.approx(table[MODALITIES] - table[()], abs=1e-9)


@given(tables, st.permutations(MODALITIES))
def test_symmetry_equal_sequences_get_equal_values(table, names) -> None:
    one, other = names[:2]
    swapped = {one: other, other: one}
    mirror = {subset: table[ordered({swapped.get(m, m) for m in subset})] for subset in ALL}
    found = shapley_values({subset: (table[subset] + mirror[subset]) / 2 for subset in ALL})
    assert found[one] == pytest.approx(found[other], abs=1e-9)


@given(tables, st.sampled_from(MODALITIES))
def test_dummy_a_sequence_that_changes_nothing_gets_nothing(table, dummy) -> None:
    without = {subset: table[ordered(set(subset) - {dummy})] for subset in ALL}
    assert shapley_values(without)[dummy] == pytest.approx(0, abs=1e-12)


@given(tables, tables, figures)
def test_linearity_and_arrays(one, other, factor) -> None:
    both = shapley_values({subset: np.array([one[subset], other[subset], one[subset] + factor * other[subset]]) for subset in ALL})
    for m, (first, second, mixed) in both.items():
        assert mixed == pytest.approx(first + factor * second, abs=1e-9)
        assert first == pytest.approx(shapley_values(one)[m], abs=1e-9)


def test_a_model_of_two_sequences_and_of_one() -> None:
    table = {(): 0.0, (Modality.T1,): 0.3, (Modality.FLAIR,): 0.5, (Modality.T1, Modality.FLAIR): 0.6}
    assert shapley_values(table) == {Modality.T1: pytest.approx(0.2), Modality.FLAIR: pytest.approx(0.4)}
    assert shapley_values({(): 0.5, (Modality.T2,): 0.75}) == {Modality.T2: pytest.approx(0.25)}


def test_an_incomplete_table_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        shapley_values({subset: 0.0 for subset in ALL if len(subset) != 2})
    assert caught.value.got.startswith("10 subsets of t1+t1ce+t2+flair")
    with pytest.raises(DataError):
        shapley_values(dict.fromkeys(ALL[:-1], 0.0))


def make_scores(
    cases: int, *, dice_of: Callable[[int, Subset], float], mutant: Callable[[int], bool], seed: int = 0
) -> dict[Subset, list[CaseScore]]:
    """Scores whose probability of IDH tells mutants apart with T2 only."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.1, cases)

    def score(number: int, subset: Subset) -> CaseScore:
        told = 0.3 * mutant(number) if Modality.T2 in subset else 0.0
        return CaseScore(
            case_id=f"case-{number}",
            patient_id=f"patient-{number}",
            modalities=subset,
            probability={Task.IDH: 0.5 + told + noise[number] * bool(subset), Task.CODELETION: 0.5},
            truth={Task.IDH: mutant(number)},
            dice={Region.WT: dice_of(number, subset)},
        )

    return {subset: [score(number, subset) for number in range(cases)] for subset in ALL}


def test_figures_are_divided_with_intervals() -> None:
    offsets = np.random.default_rng(1).uniform(-0.2, 0.2, 12)
    scores = make_scores(12, dice_of=lambda n, s: 0.2 * len(s) + offsets[n] * bool(s), mutant=lambda n: n % 3 == 0)
    found = attribute_figures(scores, seed=0)
    assert set(found) == {"dice_wt", "auc_idh"}
    dice, auc = found["dice_wt"], found["auc_idh"]
    assert set(dice.value) == {subset_name(subset) for subset in ALL}
    assert dice.value["nothing"].value == 0
    full = [score.dice[Region.WT] for score in scores[MODALITIES]]
    assert dice.value["t1+t1ce+t2+flair"] == mean_interval(np.array(full), seed=0, patients=[f"patient-{n}" for n in range(12)])
    assert dice.shapley == dict.fromkeys(MODALITIES, dice.shapley[Modality.T1])
    assert dice.shapley[Modality.T1].value == pytest.approx(0.2 + offsets.mean() / 4)
    assert auc.value["nothing"].model_dump() == {"value": 0.5, "low": 0.5, "high": 0.5, "n": 12}
    assert auc.value["t1"] == auc.value["t1+t1ce+flair"]
    assert auc.shapley[Modality.T2].value > 0.2 > auc.shapley[Modality.T1].value
    assert auc.shapley[Modality.T1] == auc.shapley[Modality.FLAIR]


def test_the_same_patients_are_drawn_for_every_subset() -> None:
    # Patients differ far more from one another than a sequence changes any of them: only a paired bootstrap sees the change exactly.
    scores = make_scores(8, dice_of=lambda n, s: n / 10 + 0.01 * len(s), mutant=lambda n: n < 4)
    found = attribute_figures(scores, seed=0)["dice_wt"]
    assert found.value["t1"].high - found.value["t1"].low > 0.2
    for interval in found.shapley.values():
        assert (interval.low, interval.value, interval.high) == pytest.approx((0.01, 0.01, 0.01))


def test_scans_of_one_patient_are_drawn_together() -> None:
    scores = make_scores(8, dice_of=lambda n, s: n / 10 * len(s), mutant=lambda n: n < 4)
    pairs = {
        subset: [replace(score, patient_id=f"patient-{place // 2}") for place, score in enumerate(of)] for subset, of in scores.items()
    }
    apart, together = (attribute_figures(table, seed=0)["dice_wt"].shapley[Modality.T1] for table in (scores, pairs))
    assert (apart.n, together.n) == (8, 4)
    assert together.value == apart.value
    assert together.high - together.low > apart.high - apart.low


def test_what_is_not_labelled_is_left_out() -> None:
    scores = make_scores(6, dice_of=lambda n, s: 0.1 * len(s), mutant=lambda n: True)
    assert set(attribute_figures(scores, seed=0)) == {"dice_wt"}
    unlabelled = {subset: [replace(score, dice={}, truth={}) for score in found] for subset, found in scores.items()}
    assert attribute_figures(unlabelled, seed=0) == {}
    half = {subset: [replace(s, dice={}) if n % 2 else s for n, s in enumerate(found)] for subset, found in scores.items()}
    assert attribute_figures(half, seed=0)["dice_wt"].shapley[Modality.T2].n == 3


def test_scores_of_other_cases_are_refused() -> None:
    scores = make_scores(3, dice_of=lambda n, s: 0.0, mutant=lambda n: True)
    with pytest.raises(DataError, match="same cases"):
        attribute_figures({**scores, (Modality.T1,): scores[Modality.T1,][::-1]}, seed=0)


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_every_figure_is_divided_without_rest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.uniform(size=(5, 16))
    scores = make_scores(5, dice_of=lambda n, s: float(table[n, ALL.index(s)]), mutant=lambda n: n < 2, seed=seed)
    for found in attribute_figures(scores, seed=seed).values():
        rest = found.value["t1+t1ce+t2+flair"].value - found.value["nothing"].value
        assert sum(interval.value for interval in found.shapley.values()) == pytest.approx(rest)


def test_gates_are_averaged_over_the_cases_that_have_them() -> None:
    def gates(flair: float, *, tumour: bool) -> CaseGates:
        weight = {Modality.T1: 1 - flair, Modality.FLAIR: flair}
        return CaseGates(tumour=weight if tumour else {}, brain=weight)

    cases = [(gates(0.2, tumour=True), gates(0.5, tumour=True)), (gates(0.6, tumour=False), gates(0.7, tumour=True))]
    fine, coarse = summarise_gates(cases, ["A", "B"], grid_spacing_mm=2.0, seed=0)
    assert (fine.spacing_mm, coarse.spacing_mm) == (2.0, 4.0)
    assert (fine.tumour[Modality.FLAIR].value, fine.tumour[Modality.FLAIR].n) == (0.2, 1)
    assert fine.brain[Modality.FLAIR].value == pytest.approx(0.4)
    assert (coarse.tumour[Modality.FLAIR].low, coarse.tumour[Modality.FLAIR].high) == (0.5, 0.7)
    nobody = summarise_gates([[gates(0.2, tumour=False)]], ["A"], grid_spacing_mm=2.0, seed=0)
    assert nobody[0].tumour == {}
