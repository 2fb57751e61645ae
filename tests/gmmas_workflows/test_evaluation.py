import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from gmmas_data.cases import Case
from gmmas_data.layouts import read_case
from gmmas_data.preprocessing import preprocess_case
from gmmas_data.samples import Sample
from gmmas_model.inference import predict_volume
from gmmas_model.network import GmmasNetwork
from gmmas_schema.messages import Interval
from gmmas_schema.model import GridConfig
from gmmas_schema.vocabulary import MODALITIES, REGIONS, TASKS, Layout, Modality, Region, Split, Task
from gmmas_workflows.evaluation import CaseScore, compare_scores, score_cases, score_samples, subsets, summarise, threshold

CASE = Path(__file__).parents[1] / "data" / "BraTS2021_00006"


def evaluate_network(network, samples, *, split, seed, precision="auto"):
    return summarise(score_samples(network, samples, precision=precision), split=split, seed=seed)


def case_score(number: int, *, dice=None, visible=(), truth=None, probability: float = 0.5, loss=None) -> CaseScore:
    return CaseScore(
        case_id=f"case-{number}",
        patient_id=f"patient-{number}",
        modalities=MODALITIES,
        probability={Task.IDH: probability, Task.CODELETION: probability / 2},
        truth=truth or {},
        dice=dice or {},
        visible=frozenset(visible),
        loss=loss or {},
    )


def _case_of(sample: Sample) -> Case:
    """Return a case without files for a sample that is there already."""
    return Case(case_id=sample.case_id, patient_id=sample.patient_id, layout=Layout.BRATS2021, images={}, segmentation=None)


@pytest.fixture
def network(definition) -> GmmasNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return GmmasNetwork(definition.network)


def fill(network: GmmasNetwork, *logits: float) -> GmmasNetwork:
    """Make the network say the same everywhere, whatever it is shown."""
    head = network.heads[Task.SEGMENTATION]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor(logits))
    return network


def test_empty_truth_and_empty_prediction_count_one_and_one_of_them_zero(network, make_sample) -> None:
    sample = make_sample(1)
    empty = replace(sample, regions_RXYZ=np.stack([sample.regions_RXYZ[0], *np.zeros_like(sample.regions_RXYZ[1:])]))
    (nothing,) = score_samples(fill(network, -9, -9, -9), [empty])
    assert nothing.dice == {Region.WT: 0, Region.TC: 1, Region.ET: 1}
    (everything,) = score_samples(fill(network, 9, 9, 9), [empty])
    assert everything.dice[Region.WT] == pytest.approx(2 * 343 / (343 + 16**3))
    assert everything.dice[Region.TC] == everything.dice[Region.ET] == 0


def test_a_region_is_visible_where_it_is_and_the_sequences_show_it(network, make_sample) -> None:
    whole = make_sample(1)
    empty = replace(whole, regions_RXYZ=np.stack([*whole.regions_RXYZ[:2], np.zeros_like(whole.regions_RXYZ[2])]))
    no_t1ce = replace(whole, present_M=np.array([m is not Modality.T1CE for m in MODALITIES]))
    found = [score.visible for score in score_samples(network, [whole, empty, no_t1ce])]
    assert found == [{Region.WT, Region.TC, Region.ET}, {Region.WT, Region.TC}, {Region.WT}]
    (shown,) = score_samples(network, [whole], modalities=[Modality.T2, Modality.FLAIR])
    assert shown.visible == {Region.WT}


def test_the_dice_of_those_who_have_a_region_is_told_where_nobody_is_told_with_it() -> None:
    def told(visible: int, others: int) -> Interval | None:
        scores = [case_score(n, dice={Region.ET: 0.4}, visible=[Region.ET]) for n in range(visible)]
        scores += [case_score(visible + n, dice={Region.ET: 1.0}) for n in range(others)]
        return summarise(scores, split=Split.VALIDATION, seed=0, fewest=3).visible_dice.get(Region.ET)

    found = told(3, 3)
    assert found is not None
    assert (found.value, found.n) == (pytest.approx(0.4), 3)
    assert told(4, 0) is not None
    assert told(2, 4) is None
    assert told(4, 2) is None, "both means together tell that of the two"


def test_a_case_counts_for_what_it_is_labelled_with(network, make_sample) -> None:
    samples = [
        make_sample(0),
        make_sample(1, segmentation=False, codeletion=1.0),
        make_sample(2, idh=math.nan),
        make_sample(3, segmentation=False, idh=math.nan),
    ]
    evaluation = evaluate_network(network, samples, split=Split.TEST, seed=0, precision="fp32")
    assert evaluation.cases == 4
    assert evaluation.dice[Region.WT].n == 2
    assert evaluation.auc[Task.IDH].n == 2
    assert evaluation.auc[Task.IDH].value in (0, 1)
    assert evaluation.auc[Task.CODELETION].value is None
    assert evaluation.auc[Task.CODELETION].n == 1
    assert set(evaluation.loss) == {Task.SEGMENTATION, Task.IDH, Task.CODELETION}


def test_optional_markers_are_judged_where_the_network_has_a_head(definition, network, make_sample) -> None:
    config = definition.network.model_copy(update={"tasks": TASKS})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        extended = GmmasNetwork(config)
    samples = [make_sample(n, grade=float(n > 1), mgmt=math.nan if n else 1.0) for n in range(4)]
    evaluation = evaluate_network(extended, samples, split=Split.TEST, seed=0, precision="fp32")
    assert {task: interval.n for task, interval in evaluation.auc.items()} == {Task.IDH: 4, Task.GRADE: 4, Task.MGMT: 1}
    assert evaluation.auc[Task.GRADE].value is not None
    assert evaluation.auc[Task.MGMT].value is None
    assert set(evaluation.loss) == {Task.SEGMENTATION, Task.IDH, Task.GRADE, Task.MGMT}
    (row,) = [score.row() for score in score_samples(extended, samples[:1])]
    assert (row["grade"], row["mgmt"], row["codeletion"]) == (False, True, None)
    plain = evaluate_network(network, samples, split=Split.TEST, seed=0, precision="fp32")
    assert set(plain.auc) == {Task.IDH}
    assert set(plain.loss) == {Task.SEGMENTATION, Task.IDH}
    assert "p_grade" not in score_samples(network, samples[:1])[0].row()


def test_a_network_of_patches_is_scored_by_windows(network, make_sample) -> None:
    sample = make_sample(1)
    prediction = predict_volume(
        network, torch.from_numpy(sample.image_MXYZ)[None], torch.from_numpy(sample.present_M)[None], patch=(8, 8, 8)
    )
    (score,) = score_samples(network, [sample], patch=(8, 8, 8), precision="fp32")
    (plain,) = score_samples(network, [sample], precision="fp32")
    assert score.probability[Task.IDH] == float(prediction.idh_probability())
    assert score.probability[Task.IDH] != plain.probability[Task.IDH]
    assert all(math.isfinite(loss) for loss in score.loss.values())
    (native,) = score_cases(network, [_case_of(sample)], lambda _: sample, patch=(8, 8, 8))
    assert native.probability == score.probability


def test_no_case_gives_an_empty_evaluation(network) -> None:
    evaluation = evaluate_network(network, [], split=Split.VALIDATION, seed=0)
    assert (evaluation.cases, evaluation.dice, evaluation.auc, evaluation.loss) == (0, {}, {}, {})


def test_only_sequences_that_the_network_reads_are_shown(definition, make_sample) -> None:
    network = GmmasNetwork(definition.network, modalities=(Modality.FLAIR, Modality.T2))
    scores = score_samples(network, [make_sample(1), make_sample(2, modalities=(Modality.T1,))])
    assert [(score.case_id, score.modalities) for score in scores] == [("case-1", (Modality.T2, Modality.FLAIR))]
    (alone,) = score_samples(network, [make_sample(1)], modalities=(Modality.FLAIR, Modality.T1))
    assert alone.modalities == (Modality.FLAIR,)


def test_progress_and_mode_of_the_network(network, make_sample) -> None:
    network.train()
    done: list[tuple[int, int]] = []
    score_samples(network, [make_sample(1), make_sample(2)], on_progress=lambda *at: done.append(at))
    assert done == [(1, 2), (2, 2)]
    assert network.training


def test_summary_is_the_mean_with_an_interval_over_patients() -> None:
    scores = [case_score(n, dice={Region.WT: value}) for n, value in enumerate([0.2, 0.4, 0.9])]
    interval = summarise(scores, split=Split.TEST, seed=0).dice[Region.WT]
    assert interval.value == pytest.approx(0.5)
    assert 0.2 <= interval.low < interval.value < interval.high <= 0.9
    assert interval.n == 3
    same_patient = [replace(score, patient_id="one") for score in scores]
    assert summarise(same_patient, split=Split.TEST, seed=0).dice[Region.WT].n == 1


def test_a_figure_of_too_few_patients_is_left_out_whatever_the_others_rest_on() -> None:
    """Labels are partial: of three patients two have a segmentation, and one of them two scans; one has a marker."""
    dice, loss = {Region.WT: 0.5}, {Task.SEGMENTATION: 1.0}
    scores = [case_score(n, dice=dice if n < 2 else {}, loss=loss if n < 2 else {}) for n in range(3)]
    scores[2] = replace(scores[2], truth={Task.IDH: True}, probability={Task.IDH: 0.9}, loss={Task.IDH: 0.1})
    scores.append(replace(scores[0], case_id="again"))
    told = {fewest: summarise(scores, split=Split.TEST, seed=0, fewest=fewest) for fewest in (1, 2, 3)}
    assert [len(one.dice) for one in told.values()] == [1, 1, 0]
    assert [set(one.auc) for one in told.values()] == [{Task.IDH}, set(), set()]
    assert [set(one.loss) for one in told.values()] == [{Task.SEGMENTATION, Task.IDH}, {Task.SEGMENTATION}, set()]


def test_auc_ranks_patients() -> None:
    scores = [
        case_score(n, truth={Task.IDH: mutant}, probability=p)
        for n, (mutant, p) in enumerate([(True, 0.9), (False, 0.6), (True, 0.5), (False, 0.1)])
    ]
    assert summarise(scores, split=Split.TEST, seed=0).auc[Task.IDH].value == 0.75


def test_row_is_flat_and_says_what_is_unknown() -> None:
    row = case_score(1, dice=dict.fromkeys(REGIONS, 0.5), truth={Task.IDH: True}, probability=0.7).row()
    assert row["case"] == "case-1"
    assert row["modalities"] == "t1+t1ce+t2+flair"
    assert (row["dice_wt"], row["p_idh"], row["idh"], row["codeletion"]) == (0.5, 0.7, True, None)


def test_scores_on_the_scans_own_voxels(network) -> None:
    case = read_case(CASE)
    grid = GridConfig(spacing_mm=8.0, shape=(24, 24, 24))
    (score,) = score_cases(fill(network, 9, -9, -9), [case], lambda one: preprocess_case(one, grid))
    assert 0 < score.dice[Region.WT] < 0.5
    assert score.dice[Region.TC] == score.dice[Region.ET] == 0
    (unlabelled,) = score_cases(network, [replace(case, segmentation=None)], lambda one: preprocess_case(one, grid))
    assert unlabelled.dice == {}


def test_the_truth_itself_scores_high_on_the_scans_own_voxels(network, monkeypatch) -> None:
    case = read_case(CASE)
    sample = preprocess_case(case, GridConfig(spacing_mm=2.0, shape=(96, 112, 96)))
    assert sample.regions_RXYZ is not None

    class Oracle:
        def region_probability(self) -> torch.Tensor:
            return torch.from_numpy(sample.regions_RXYZ).float()[None]

        def marker_probabilities(self) -> dict[Task, torch.Tensor]:
            return {}

    monkeypatch.setattr("gmmas_workflows.evaluation.predict_volume", lambda *_, **__: Oracle())
    (score,) = score_cases(network, [case], lambda _: sample)
    assert min(score.dice.values()) > 0.9


@given(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3))
def test_thresholded_regions_are_nested(probabilities) -> None:
    wt, tc, et = threshold(np.array(probabilities, dtype=np.float32).reshape(3, 1, 1, 1)).ravel()
    assert wt >= tc >= et
    assert wt == (probabilities[0] > 0.5)


@given(st.lists(st.floats(-8, 8, width=32), min_size=3, max_size=3), st.lists(st.floats(0.125, 8), min_size=3, max_size=3))
def test_no_temperature_moves_an_outline(logits, temperatures) -> None:
    assume(all(abs(logit) > 1e-3 for logit in logits))
    hot = torch.tensor(logits).div(torch.tensor(temperatures)).sigmoid().cumprod(0).reshape(3, 1, 1, 1).numpy()
    plain = torch.tensor(logits).sigmoid().cumprod(0).reshape(3, 1, 1, 1).numpy()
    np.testing.assert_array_equal(threshold(hot), threshold(plain))
    assert threshold(plain).ravel().tolist() == np.logical_and.accumulate(np.array(logits) > 0).tolist()


def test_subsets_are_all_fifteen_largest_first() -> None:
    found = subsets(MODALITIES)
    assert len(found) == len(set(found)) == 15
    assert found[0] == MODALITIES
    assert [len(subset) for subset in found] == sorted((len(subset) for subset in found), reverse=True)
    assert subsets((Modality.FLAIR, Modality.T1)) == [(Modality.T1, Modality.FLAIR), (Modality.T1,), (Modality.FLAIR,)]


def scores_of(*values: float, probabilities=None, patients=None) -> list[CaseScore]:
    return [
        CaseScore(
            case_id=f"c{n}",
            patient_id=patients[n] if patients else f"p{n}",
            modalities=(),
            probability={Task.IDH: probabilities[n] if probabilities else 0.5},
            truth={Task.IDH: n % 2 == 0},
            dice={Region.WT: value},
        )
        for n, value in enumerate(values)
    ]


def test_a_difference_on_the_same_cases_is_known_better_than_either_model() -> None:
    """Cases are hard or easy for both models alike: the interval of the difference is narrower than that of either mean."""
    rng = np.random.default_rng(0)
    hard = rng.uniform(0.2, 0.9, 30)
    one, other = scores_of(*(hard + 0.03 + rng.normal(0, 0.01, 30))), scores_of(*hard)
    found = compare_scores(one, other, seed=0)["dice_wt"]
    alone = summarise(one, split=Split.TEST, seed=0).dice[Region.WT]
    assert found.value == pytest.approx(np.mean([a.dice[Region.WT] - b.dice[Region.WT] for a, b in zip(one, other, strict=True)]))
    assert 0 < found.low < found.value < found.high
    assert found.high - found.low < (alone.high - alone.low) / 5
    assert found.n == 30


def test_equal_models_differ_by_nothing_and_cases_that_one_lacks_do_not_count() -> None:
    one = scores_of(0.5, 0.7, 0.9, 0.1, probabilities=(0.9, 0.2, 0.8, 0.1))
    found = compare_scores(one, one[:3], seed=0)
    assert {name: (own.value, own.low, own.high, own.n) for name, own in found.items()} == {
        "dice_wt": (0.0, 0.0, 0.0, 3),
        "auc_idh": (0.0, 0.0, 0.0, 3),
    }
    assert compare_scores(one, [], seed=0) == {}
    assert "auc_idh" not in compare_scores(one[:1], one[:1], seed=0)


def test_an_auc_is_compared_in_the_same_resamples() -> None:
    right = scores_of(*[0.5] * 20, probabilities=[0.9 if n % 2 == 0 else 0.1 for n in range(20)])
    wrong = scores_of(*[0.5] * 20, probabilities=[0.1 if n % 2 == 0 else 0.9 for n in range(20)])
    found = compare_scores(right, wrong, seed=0)["auc_idh"]
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
