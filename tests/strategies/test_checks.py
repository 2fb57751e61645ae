import numpy as np
import pytest

from gmmas_schema.calibration import BINS, CalibrationQuery, CalibrationStatistics, HeadStatistics, Reliability, ReliabilityPair
from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.messages import Action, Evaluation, Interval, SiteDescription, SiteReport, TaskRequest
from gmmas_schema.model import ModelDefinition
from gmmas_schema.vocabulary import MODALITIES, Modality, Region, Split, Task
from strategies.checks import check_description, check_reply

MODEL = ModelDefinition()
HELD = tuple(m for m in MODALITIES if m is not Modality.T1CE)
LABELLED = {Task.SEGMENTATION: 8, Task.IDH: 5}
DESCRIPTION = SiteDescription(site="south", model_digest=MODEL.digest(), software="1", modalities=HELD, cases=10, labelled=LABELLED)
REQUEST = TaskRequest(action=Action.TRAIN, run="r", round=3, rounds=9, seed=0, model=MODEL, evaluate=Split.VALIDATION)
REPORT = SiteReport(
    site="south", run="r", round=3, model_digest=MODEL.digest(), modalities=HELD, cases=10, labelled=LABELLED,
    evaluation=Evaluation(split=Split.VALIDATION, cases=2, dice={Region.WT: Interval(value=0.5, low=0.1, high=0.9, n=2)}),
)  # fmt: skip
REFERENCE = {
    name: np.zeros((2, 3), np.float32)
    for name in ("encoders.t1.a", "encoders.t1.b", "encoders.t1ce.a", "fusion.a", "heads.idh.a", "heads.codeletion.a")
}
SENT = {name: np.ones((2, 3), np.float32) for name in ("encoders.t1.a", "encoders.t1.b", "fusion.a", "heads.idh.a")}


def check(report=REPORT, tensors=SENT, request=REQUEST, description=DESCRIPTION):
    check_reply(report, tensors, request=request, description=description, reference=REFERENCE)


def refusal(**changes):
    with pytest.raises(ProtocolError) as caught:
        check(**changes)
    return caught.value


def test_a_good_reply_passes():
    check()


def test_whole_groups_may_be_left_out():
    check(tensors={"fusion.a": SENT["fusion.a"]})
    check(tensors={})


@pytest.mark.parametrize(
    ("update", "code", "named"),
    [
        ({"protocol": 1}, ReasonCode.PROTOCOL_VERSION, "protocol"),
        ({"model_digest": "other"}, ReasonCode.MODEL_DEFINITION, "model definition"),
        ({"site": "north"}, ReasonCode.REPLY_REFUSED, "site name"),
        ({"run": "an older one"}, ReasonCode.REPLY_REFUSED, "run"),
        ({"round": 2}, ReasonCode.REPLY_REFUSED, "round"),
        ({"cases": 11}, ReasonCode.REPLY_REFUSED, "number of cases"),
        ({"labelled": {Task.IDH: 6}}, ReasonCode.REPLY_REFUSED, "labelled cases for idh"),
        ({"labelled": {Task.CODELETION: 1}}, ReasonCode.REPLY_REFUSED, "labelled cases for codeletion"),
        ({"labelled": {Task.IDH: -1}}, ReasonCode.REPLY_REFUSED, "labelled cases for idh"),
        ({"cases": 4}, ReasonCode.REPLY_REFUSED, "labelled cases for segmentation"),
        ({"modalities": MODALITIES}, ReasonCode.REPLY_REFUSED, "modalities"),
    ],
)
def test_a_report_that_does_not_fit_is_refused_by_name(update, code, named):
    error = refusal(report=REPORT.model_copy(update=update))
    assert error.code is code
    assert named in error.what
    assert "south" in error.where


VALIDATED = REPORT.evaluation
HUGE = 10**400


@pytest.mark.parametrize(
    ("update", "named"),
    [
        ({"losses": {Task.SEGMENTATION: -5.0}}, "losses"),
        ({"losses": {Task.SEGMENTATION: 1e308}}, "numbers"),
        ({"evaluation": VALIDATED.model_copy(update={"loss": {Task.IDH: 1e308}})}, "numbers"),
        ({"evaluation": VALIDATED.model_copy(update={"loss": {Task.IDH: -1.0}})}, "losses"),
        ({"evaluation": VALIDATED.model_copy(update={"cases": HUGE})}, "numbers"),
        ({"steps": HUGE}, "numbers"),
        ({"cpu_seconds": 1e308}, "numbers"),
        ({"seconds": {"train": 1e308}}, "numbers"),
        ({"seconds": {"train": -1.0}}, "seconds"),
        ({"seconds": {"train$": 1.0}}, "seconds"),
        ({"seconds": {f"stage_{letter}": 1.0 for letter in "abcdefghijklmnopqrstu"}}, "seconds"),
    ],
)
def test_figures_that_would_spoil_a_mean_a_sum_or_a_metric_are_refused(update, named):
    assert named in refusal(report=REPORT.model_copy(update=update)).what


def test_what_rounding_leaves_of_a_loss_of_nothing_passes():
    check(report=REPORT.model_copy(update={"losses": {Task.SEGMENTATION: -6e-8}, "seconds": {"pseudo_label": 0.0}}))


@pytest.mark.parametrize(
    "evaluation",
    [
        Evaluation(split=Split.TEST, cases=2),
        Evaluation(split=Split.VALIDATION, cases=2, dice={Region.WT: Interval(value=1.5, n=2)}),
        Evaluation(split=Split.VALIDATION, cases=2, auc={Task.IDH: Interval(value=0.5, low=-0.1, high=0.9, n=2)}),
        Evaluation(split=Split.VALIDATION, cases=2, dice={Region.WT: Interval(value=0.5, n=3)}),
    ],
)
def test_an_impossible_evaluation_is_refused(evaluation):
    assert refusal(report=REPORT.model_copy(update={"evaluation": evaluation})).code is ReasonCode.REPLY_REFUSED


@pytest.mark.parametrize(
    ("tensors", "named"),
    [
        (SENT | {"encoders.t1ce.a": np.ones((2, 3), np.float32)}, "group of tensors"),
        (SENT | {"heads.codeletion.a": np.ones((2, 3), np.float32)}, "group of tensors"),
        (SENT | {"heads.idh.extra": np.ones((2, 3), np.float32)}, "tensor name"),
        (SENT | {"backdoor": np.ones((2, 3), np.float32)}, "tensor name"),
        ({"encoders.t1.a": SENT["encoders.t1.a"]}, "group encoder.t1"),
        (SENT | {"fusion.a": np.ones((3, 2), np.float32)}, "form of fusion.a"),
        (SENT | {"fusion.a": np.ones(6, np.float32)}, "form of fusion.a"),
        (SENT | {"fusion.a": np.ones((2, 3))}, "form of fusion.a"),
        (SENT | {"fusion.a": np.array([[1, 2, 3], [4, np.nan, 6]], np.float32)}, "values of fusion.a"),
        (SENT | {"fusion.a": np.full((2, 3), np.inf, np.float32)}, "values of fusion.a"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(tensors, named):
    error = refusal(tensors=tensors)
    assert error.code is ReasonCode.REPLY_REFUSED
    assert named in error.what


def test_a_group_without_labels_in_the_report_is_refused_even_if_the_site_described_some():
    error = refusal(report=REPORT.model_copy(update={"labelled": {Task.SEGMENTATION: 8}}))
    assert error.got == "head.idh"


NAN = float("nan")


def bins(count=2.0, *, confidence=0.95, correct=1.0, place=-2):
    columns = np.zeros((3, BINS))
    columns[:, place] = count, count * confidence, correct
    return Reliability(patients=tuple(columns[0]), confidence=tuple(columns[1]), correct=tuple(columns[2]))


CURVES = CalibrationQuery(grid=(0.5, 1.0, 2.0))
MEASURE = CalibrationQuery(temperatures={Task.IDH: 2.0})
CURVE = HeadStatistics(patients=2, nll=(1.0, 0.5, 0.7))
PAIR = HeadStatistics(reliability=ReliabilityPair(before=bins(), after=bins(confidence=0.96)))


def statistics(*, split=Split.VALIDATION, patients=2, **heads):
    return CalibrationStatistics(split=split, patients=patients, heads=heads)


def check_sums(calibration, *, query=CURVES, asked=Split.CALIBRATION):
    request = REQUEST.model_copy(update={"action": Action.EVALUATE, "evaluate": asked, "calibrate": query})
    evaluation = REPORT.evaluation.model_copy(update={"split": asked})
    check(report=REPORT.model_copy(update={"evaluation": evaluation, "calibration": calibration}), request=request, tensors={})


def test_sums_for_calibration_pass():
    check_sums(statistics(wt=CURVE, idh=CURVE))
    check_sums(statistics(split=Split.CALIBRATION, idh=PAIR), query=MEASURE)
    check_sums(statistics(patients=0))
    check_sums(None)
    check_sums(statistics(split=Split.TEST, idh=PAIR), query=MEASURE, asked=Split.TEST)


@pytest.mark.parametrize(
    ("calibration", "options", "named"),
    [
        (statistics(idh=CURVE), {"query": None}, "calibration"),
        (statistics(split=Split.TRAIN, idh=CURVE), {}, "calibrated split"),
        (statistics(split=Split.VALIDATION, idh=PAIR), {"query": MEASURE, "asked": Split.TEST}, "calibrated split"),
        (statistics(patients=3), {}, "calibration patients"),
        (statistics(idh=CURVE.model_copy(update={"patients": 3})), {}, "calibration patients for idh"),
        (statistics(mgmt=CURVE), {}, "calibrated head"),
        (statistics(idh=CURVE.model_copy(update={"nll": (1.0, 2.0)})), {}, "likelihood of idh"),
        (statistics(idh=CURVE.model_copy(update={"nll": (1.0, 2.0, 3e4)})), {}, "likelihood of idh"),
        (
            statistics(idh=HeadStatistics.model_construct(patients=2, nll=(1.0, 2.0, float("nan")), reliability=None)),
            {},
            "likelihood of idh",
        ),
        (statistics(idh=HeadStatistics.model_construct(patients=2, nll=(1.0, 2.0, -1.0), reliability=None)), {}, "likelihood of idh"),
        (statistics(idh=CURVE), {"query": MEASURE}, "likelihood of idh"),
        (statistics(idh=PAIR.model_copy(update={"nll": (0.0, 0.0, 0.0)})), {}, "reliability of idh"),
        (statistics(idh=HeadStatistics(reliability=ReliabilityPair(after=bins(3.0)))), {"query": MEASURE}, "reliability of idh"),
        (statistics(idh=HeadStatistics(reliability=ReliabilityPair(after=bins(correct=2.5)))), {"query": MEASURE}, "reliability of idh"),
        (statistics(idh=HeadStatistics(reliability=ReliabilityPair(after=bins(confidence=0.6)))), {"query": MEASURE}, "reliability of idh"),
    ],
)
def test_sums_that_cannot_be_are_refused_by_name(calibration, options, named):
    with pytest.raises(ProtocolError) as caught:
        check_sums(calibration, **options)
    assert caught.value.code is ReasonCode.REPLY_REFUSED
    assert caught.value.what == f"refused for its {named}"


def test_an_evaluation_request_wants_no_tensors():
    request = REQUEST.model_copy(update={"action": Action.EVALUATE})
    check(request=request, tensors={})
    assert "group of tensors" in refusal(request=request).what


def test_a_foreign_name_is_not_quoted_at_length():
    assert len(refusal(tensors=SENT | {"x" * 100_000: SENT["fusion.a"]}).explain()) < 1000


@pytest.mark.parametrize(
    ("update", "code"),
    [
        ({"protocol": 1}, ReasonCode.PROTOCOL_VERSION),
        ({"model_digest": "other"}, ReasonCode.MODEL_DEFINITION),
        ({"labelled": {Task.IDH: 11}}, ReasonCode.PROTOCOL),
        ({"labelled": {Task.IDH: -1}}, ReasonCode.PROTOCOL),
        ({"cases": HUGE}, ReasonCode.PROTOCOL),
        ({"software": "1" * 101}, ReasonCode.PROTOCOL),
        ({"software": "\x1b[2J"}, ReasonCode.PROTOCOL),
    ],
)
def test_a_description_that_does_not_fit_is_refused(update, code):
    check_description(DESCRIPTION, model_digest=MODEL.digest())
    with pytest.raises(ProtocolError) as caught:
        check_description(DESCRIPTION.model_copy(update=update), model_digest=MODEL.digest())
    assert caught.value.code is code
