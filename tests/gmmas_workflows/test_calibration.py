import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmas_model.prediction import Prediction
from gmmas_model.temperature_fit import fit_heads, merge_statistics
from gmmas_schema.calibration import TEMPERATURES, CalibrationPlan, CalibrationQuery
from gmmas_schema.messages import Action
from gmmas_schema.vocabulary import MODALITIES, REGIONS, Region, Split, Task
from gmmas_workflows.calibration import StatisticsCollector, reliability_of
from gmmas_workflows.training import LocalTrainer
from tests.gmmas_workflows.conftest import SIDE

CURVES = CalibrationQuery(grid=TEMPERATURES)
NAN = math.nan


def answer(sample, *, sureness=1.0, idh=0.0, codeletion=0.0, mgmt=None) -> Prediction:
    """A prediction that has the sample's regions nearly right."""
    noise = torch.randn(1, 3, SIDE, SIDE, SIDE, generator=torch.Generator().manual_seed(len(sample.case_id)))
    truth = torch.zeros(3, SIDE, SIDE, SIDE) if sample.regions_RXYZ is None else torch.from_numpy(sample.regions_RXYZ).float()
    logits = (4 * truth - 2 + noise) * sureness
    return Prediction(logits, torch.tensor([idh]), torch.tensor([codeletion]), mgmt_logit_B=None if mgmt is None else torch.tensor([mgmt]))


def collect(pairs, query=CURVES, *, split=Split.VALIDATION):
    collector = StatisticsCollector(query, spacing_mm=8.0)
    for sample, prediction in pairs:
        collector.add(sample, prediction)
    return collector.statistics(split=split)


places = st.lists(st.tuples(st.integers(0, 2), st.floats(-4, 4), st.booleans()), min_size=3, max_size=8)


@settings(max_examples=8)
@given(places)
def test_sites_added_up_are_all_cases_in_one_place(make_sample, rows) -> None:
    pairs = [
        (site, make_sample(number, segmentation=segmented), answer(make_sample(number), idh=logit))
        for number, (site, logit, segmented) in enumerate(rows)
    ]
    pooled = collect([(sample, prediction) for _, sample, prediction in pairs])
    sites = [collect([(sample, prediction) for at, sample, prediction in pairs if at == site]) for site in range(3)]
    plan = CalibrationPlan(minimum_patients=1)
    merged, whole = (merge_statistics(each)[0] for each in (sites, [pooled]))
    assert merged.keys() == whole.keys()
    for head, fitted in fit_heads(whole, plan, grid=TEMPERATURES).items():
        assert merged[head].patients == whole[head].patients
        np.testing.assert_allclose(merged[head].nll, whole[head].nll, rtol=1e-12)
        found = fit_heads(merged, plan, grid=TEMPERATURES)[head].temperature
        assert math.log(found) == pytest.approx(math.log(fitted.temperature), abs=1e-6)


def test_a_network_that_is_twice_too_sure_is_found_out(make_sample) -> None:
    samples = [make_sample(number) for number in range(3)]
    plan = CalibrationPlan(minimum_patients=1)
    plain, sure = (
        fit_heads(collect([(sample, answer(sample, sureness=by)) for sample in samples]).heads, plan, grid=TEMPERATURES) for by in (1, 2)
    )
    for region in REGIONS:
        assert sure[region].temperature == pytest.approx(2 * plain[region].temperature, rel=0.01)


def test_every_patient_weighs_one_whatever_the_number_of_scans(make_sample) -> None:
    first, second, other = (make_sample(number) for number in range(3))
    second = replace(second, patient_id=first.patient_id, idh=first.idh)
    query = CalibrationQuery(grid=TEMPERATURES, temperatures={Task.IDH: 2.0})
    twice = collect([(first, answer(first, idh=1.0)), (second, answer(second, idh=3.0)), (other, answer(other, idh=-1.0))], query)
    assert twice.patients == 2
    assert twice.heads[Task.IDH].patients == twice.heads[Region.WT].patients == 2
    parts = [collect([(first, answer(first, idh=x))], query).heads[Task.IDH] for x in (1.0, 3.0)]
    rest = collect([(other, answer(other, idh=-1.0))], query).heads[Task.IDH]
    expected = np.mean([part.nll for part in parts], axis=0) + rest.nll
    np.testing.assert_allclose(twice.heads[Task.IDH].nll, expected)
    for head in twice.heads.values():
        assert head.reliability.before.total == pytest.approx(2)
        assert head.reliability.after.total == pytest.approx(2)


def test_a_conditional_marker_is_fitted_to_mutants_and_its_reliability_is_that_of_what_is_shown(make_sample) -> None:
    query = CalibrationQuery(grid=(1.0,), temperatures={Task.IDH: 2.0, Task.CODELETION: 4.0})
    labels = [(1.0, 1.0), (0.0, 0.0), (NAN, 1.0), (1.0, NAN)]
    samples = [make_sample(number, idh=idh, codeletion=codeletion) for number, (idh, codeletion) in enumerate(labels)]
    found = collect([(sample, answer(sample, idh=2.0, codeletion=2.0)) for sample in samples], query).heads
    assert (found[Task.IDH].patients, found[Task.CODELETION].patients) == (3, 1)
    assert found[Task.CODELETION].nll == (pytest.approx(math.log1p(math.exp(-2))),)
    pair = found[Task.CODELETION].reliability
    assert pair.before.total == 3
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    assert sum(pair.before.confidence) == pytest.approx(3 * sigmoid(2) ** 2)
    after = sigmoid(1) * sigmoid(0.5)
    assert sum(pair.after.confidence) == pytest.approx(3 * max(after, 1 - after))


def test_a_head_the_network_lacks_and_a_label_nobody_has_are_left_out(make_sample) -> None:
    sample = replace(make_sample(1, segmentation=False, idh=NAN), mgmt=1.0)
    assert collect([(sample, answer(sample))]).heads == {}
    assert set(collect([(sample, answer(sample, mgmt=1.0))]).heads) == {Task.MGMT}


def test_what_was_not_asked_for_is_not_told(make_sample) -> None:
    sample = make_sample(1)
    curves, bins = (collect([(sample, answer(sample))], query) for query in (CURVES, CalibrationQuery(temperatures={})))
    assert all(head.reliability is None and len(head.nll) == 41 for head in curves.heads.values())
    assert all(head.nll == () and head.patients == 0 for head in bins.heads.values())
    assert reliability_of(bins).keys() == {*REGIONS, Task.IDH}
    assert reliability_of(curves) == {}
    # Without temperatures nothing changes.
    assert all(pair.before == pair.after for pair in reliability_of(bins).values())


@pytest.mark.parametrize("own", [True, False])
def test_a_site_answers_from_its_calibration_split_or_else_from_validation(definition, make_sample, make_request, start, own) -> None:
    samples = {Split.TRAIN: [make_sample(1)], Split.VALIDATION: [make_sample(2), make_sample(3)]}
    samples |= {Split.CALIBRATION: [make_sample(n) for n in (4, 5, 6)]} if own else {}
    trainer = LocalTrainer(definition, samples, modalities=MODALITIES, site="north", threads=1)
    request = make_request(evaluate=Split.CALIBRATION).model_copy(update={"action": Action.EVALUATE, "calibrate": CURVES})
    evaluation, statistics = trainer.measure(start, request)
    assert evaluation.split is Split.CALIBRATION
    assert (statistics.split, statistics.patients) == ((Split.CALIBRATION, 3) if own else (Split.VALIDATION, 2))
    assert evaluation.cases == statistics.patients
    assert statistics.heads[Region.WT].patients == statistics.patients
    assert trainer.measure(start, request)[1] == statistics
    assert trainer.measure(start, request.model_copy(update={"calibrate": None}))[1] is None


def test_a_site_does_not_answer_for_a_single_patient(definition, make_sample, make_request, start) -> None:
    alone = [make_sample(2), make_sample(3, segmentation=False, idh=NAN), replace(make_sample(4, idh=NAN), patient_id="patient-2")]
    trainer = LocalTrainer(definition, {Split.TRAIN: [make_sample(1)], Split.TEST: alone}, modalities=MODALITIES, site="north", threads=1)
    query = CalibrationQuery(temperatures={})
    request = make_request(evaluate=Split.TEST).model_copy(update={"action": Action.EVALUATE, "calibrate": query})
    _, statistics = trainer.measure(start, request)
    assert (statistics.patients, statistics.heads) == (2, {})


def test_a_site_without_such_cases_answers_with_nobody(definition, make_sample, make_request, start) -> None:
    trainer = LocalTrainer(definition, {Split.TRAIN: [make_sample(1)]}, modalities=MODALITIES, site="north", threads=1)
    request = make_request(evaluate=Split.CALIBRATION).model_copy(update={"action": Action.EVALUATE, "calibrate": CURVES})
    evaluation, statistics = trainer.measure(start, request)
    assert (evaluation.cases, statistics.patients, statistics.heads) == (0, 0, {})
