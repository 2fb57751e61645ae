import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from gmmas_model.calibration import likelihood_curve
from gmmas_model.temperature_fit import (
    PRIOR,
    choose_threshold,
    fit_heads,
    fit_temperature,
    merge_statistics,
    reasons_to_abstain,
    with_reliability,
    with_test,
)
from gmmas_schema.calibration import (
    BINS,
    TEMPERATURES,
    Abstention,
    Calibration,
    CalibrationPlan,
    CalibrationStatistics,
    HeadCalibration,
    HeadStatistics,
    Reliability,
    ReliabilityPair,
)
from gmmas_schema.vocabulary import Region, Split, Task

PLAN = CalibrationPlan()


def patients(logits, truths, *, head=Task.IDH, split=Split.VALIDATION) -> CalibrationStatistics:
    """The statistics of a site with one decision a patient."""
    curves = [likelihood_curve(torch.tensor([logit]), torch.tensor([t]), TEMPERATURES) for logit, t in zip(logits, truths, strict=True)]
    nll = tuple(np.sum(curves, axis=0).tolist()) if curves else (0.0,) * len(TEMPERATURES)
    heads = {head: HeadStatistics(patients=len(curves), nll=nll)} if curves else {}
    return CalibrationStatistics(split=split, patients=len(curves), heads=heads)


def drawn(count: int, *, temperature: float, seed: int) -> tuple[list[float], list[bool]]:
    """Logits that are right at the temperature, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    right = rng.normal(0, 2, count)
    return (right * temperature).tolist(), (rng.random(count) < 1 / (1 + np.exp(-right))).tolist()


def reliability(*bins: tuple[int, float, float]) -> Reliability:
    """Bins as (place, patients, correct)."""
    columns = np.zeros((3, BINS))
    for place, count, correct in bins:
        columns[:, place] = count, count * (0.5 + (place + 0.5) / (2 * BINS)), correct
    return Reliability(patients=tuple(columns[0]), confidence=tuple(columns[1]), correct=tuple(columns[2]))


observations = st.lists(st.tuples(st.floats(-20, 20, width=32), st.booleans(), st.integers(0, 3)), min_size=10, max_size=40)


@settings(max_examples=25)
@given(observations, st.randoms())
def test_merged_sites_give_the_temperature_of_all_patients_in_one_place(rows, random) -> None:
    pooled = patients([x for x, _, _ in rows], [t for _, t, _ in rows])
    sites = [patients([x for x, _, s in rows if s == site], [t for _, t, s in rows if s == site]) for site in range(4)]
    random.shuffle(sites)
    merged, counts = merge_statistics(sites)
    whole, _ = merge_statistics([pooled])
    assert counts == {Split.VALIDATION: len(rows)}
    found, expected = (fit_heads(each, PLAN, grid=TEMPERATURES)[Task.IDH] for each in (merged, whole))
    assert found.patients == expected.patients
    assert math.log(found.temperature) == pytest.approx(math.log(expected.temperature), abs=1e-6)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("prior", [0.0, PRIOR])
def test_the_parabola_finds_the_minimum_between_the_points_of_the_grid(temperature, prior) -> None:
    logits, truths = drawn(400, temperature=temperature, seed=3)
    site = patients(logits, truths)
    found = fit_temperature(site.heads[Task.IDH].nll, TEMPERATURES, prior=prior)
    signed = np.where(truths, -1, 1) * np.array(logits)
    exact = minimize_scalar(lambda s: np.logaddexp(0, signed / math.exp(s)).sum() + prior * s * s, bounds=(-2.1, 2.1), method="bounded")
    assert math.log(found) == pytest.approx(exact.x, abs=0.005)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_many_patients_give_the_temperature_they_were_drawn_with(temperature) -> None:
    site = patients(*drawn(2000, temperature=temperature, seed=1))
    fitted = fit_heads(site.heads, PLAN, grid=TEMPERATURES)[Task.IDH]
    assert fitted.fitted
    assert fitted.temperature == pytest.approx(temperature, rel=0.1)
    p = 1 / (1 + np.exp(-np.array(drawn(2000, temperature=1.0, seed=1)[0])))
    entropy = -(p * np.log(p) + (1 - p) * np.log1p(-p)).mean()
    assert fitted.nll_after == pytest.approx(entropy, abs=0.02)
    assert fitted.nll_after <= fitted.nll_before + 1e-4


def test_patients_who_are_all_right_do_not_make_a_marker_certain() -> None:
    site = patients([2.0, -2.0] * 6, [True, False] * 6)
    assert fit_temperature(site.heads[Task.IDH].nll, TEMPERATURES) == TEMPERATURES[0]
    assert fit_heads(site.heads, PLAN, grid=TEMPERATURES)[Task.IDH].temperature > 0.4


def test_a_worthless_head_ends_at_the_highest_temperature_and_says_so() -> None:
    site = patients([6.0, -6.0] * 100, [True, True, False, False] * 50)
    fitted = fit_heads(site.heads, PLAN, grid=TEMPERATURES)[Task.IDH]
    assert fitted.temperature == TEMPERATURES[-1]
    assert "end of the range" in fitted.note


def test_too_few_patients_keep_temperature_one_and_the_record_says_why() -> None:
    site = patients(*drawn(9, temperature=4.0, seed=0))
    fitted = fit_heads(site.heads, PLAN, grid=TEMPERATURES)[Task.IDH]
    assert (fitted.temperature, fitted.fitted, fitted.patients) == (1.0, False, 9)
    assert fitted.note == "not fitted: 9 labelled patients, fewer than 10"
    assert fit_heads(site.heads, CalibrationPlan(minimum_patients=9), grid=TEMPERATURES)[Task.IDH].fitted


def test_patients_are_counted_by_the_split_they_come_from() -> None:
    sites = [patients([1.0], [True], split=Split.CALIBRATION), patients([1.0, 2.0], [True, True]), patients([], [])]
    assert merge_statistics(sites)[1] == {Split.CALIBRATION: 1, Split.VALIDATION: 2}


def test_the_threshold_is_the_lowest_confidence_with_enough_right_answers() -> None:
    bins = ((0, 6, 3), (5, 8, 6), (9, 8, 8), (14, 10, 10))
    found = choose_threshold(reliability(*bins), PLAN)
    # From bin 1 on 24 of 26 are right, 92 %; from bin 0 on 27 of 32, 84 %.
    assert (found.rule, found.threshold, found.patients) == ("below", pytest.approx(0.5 + 1 / 30), 26)
    assert found.accuracy == pytest.approx(24 / 26)


def test_a_target_that_is_never_met_is_said() -> None:
    found = choose_threshold(reliability((2, 10, 6), (14, 10, 8)), PLAN)
    assert (found.rule, found.threshold) == ("always", None)
    assert found.note == "no confidence reached 90% right answers among 20 patients"


def test_a_lucky_few_at_the_top_make_no_threshold() -> None:
    assert choose_threshold(reliability((2, 10, 6), (14, 9, 9)), PLAN).rule == "always"


def test_too_few_patients_make_no_threshold() -> None:
    found = choose_threshold(reliability((14, 9, 9)), PLAN)
    assert (found.rule, found.note) == ("never", "no threshold: 9 labelled patients are too few to find one")
    assert choose_threshold(Reliability(), PLAN).rule == "never"


def calibration(**heads: HeadCalibration) -> Calibration:
    return Calibration(weights_sha256="0" * 64, heads={Task(name): head for name, head in heads.items()})


def test_a_marker_is_left_open_below_its_threshold_on_either_side() -> None:
    known = calibration(
        idh=HeadCalibration(abstention=Abstention(rule="below", threshold=0.8, note="n")),
        codeletion=HeadCalibration(abstention=Abstention(rule="always", note="never right enough")),
        mgmt=HeadCalibration(abstention=Abstention()),
    )
    for p in (0.21, 0.79, 0.5):
        assert "below 0.80" in reasons_to_abstain(known, {Task.IDH: p})[Task.IDH]
    for p in (0.19, 0.81, 0.0, 1.0):
        assert reasons_to_abstain(known, {Task.IDH: p}) == {}
    assert reasons_to_abstain(known, {Task.CODELETION: 0.999}) == {Task.CODELETION: "never right enough"}
    assert reasons_to_abstain(known, {Task.MGMT: 0.5, Task.GRADE: 0.5}) == {}
    assert reasons_to_abstain(None, {Task.IDH: 0.5}) == {}


def test_a_threshold_comes_from_the_patients_of_the_fit_and_the_test_changes_nothing_but_itself() -> None:
    fitted = {Task.IDH: HeadCalibration(temperature=2.0, fitted=True, patients=20), Region.WT: HeadCalibration(temperature=1.5)}
    pair = ReliabilityPair(before=reliability((14, 20, 15)), after=reliability((7, 20, 19)))
    measured = {Task.IDH: HeadStatistics(reliability=pair), Task.MGMT: HeadStatistics(reliability=pair)}
    heads = with_reliability(fitted, measured, PLAN)
    assert heads[Task.IDH].reliability == pair
    assert heads[Task.IDH].abstention.threshold == 0.5
    assert (heads[Region.WT].temperature, heads[Region.WT].abstention) == (1.5, None)
    assert (heads[Task.MGMT].temperature, heads[Task.MGMT].note) == (1.0, "no labelled patient")
    whole = Calibration(weights_sha256="0" * 64, heads=heads)
    worse = ReliabilityPair(before=reliability((14, 4, 0)), after=reliability((14, 4, 0)))
    tested = with_test(whole, {Task.IDH: HeadStatistics(reliability=worse)})
    assert tested.heads[Task.IDH].test == worse
    assert tested.heads[Task.IDH].abstention == whole.heads[Task.IDH].abstention
    assert tested.heads[Region.WT] == whole.heads[Region.WT]
