"""Replies are checked before they count: the right run, round and model, whole groups the site may send, finite numbers, sane counts.

Every refusal is a ProtocolError that names the first fault; one reply's fault never touches another site's reply.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from gmmas_schema.calibration import LARGEST_NATS, CalibrationStatistics, Reliability, bin_edges
from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.groups import by_group, groups_sent
from gmmas_schema.messages import PROTOCOL_VERSION, Action, Evaluation, LabelCounts, SiteDescription, SiteReport, TaskRequest
from gmmas_schema.vocabulary import MODALITIES, REGIONS, Split, Task
from strategies.holders import accepted_targets

Float32 = NDArray[np.float32]

_ROUNDING = 1e-6
"""Slack for sums of binary fractions."""
LARGEST_NUMBER: Final = 2.0**53
"""No count, second, byte or loss is beyond it: sums and products of such numbers are finite, and no whole one is rounded."""
_STAGE: Final = r"[a-z_]{1,40}"
_MOST_STAGES: Final = 20
_LONGEST_VERSION: Final = 100


def check_description(description: SiteDescription, *, model_digest: str) -> None:
    """Refuse a site that speaks another protocol or has another model definition.

    Raises:
        ProtocolError: with code PROTOCOL_VERSION, MODEL_DEFINITION or PROTOCOL (counts that cannot be).
    """
    site = description.site
    if description.protocol != PROTOCOL_VERSION:
        _refuse("protocol version", site, description.protocol, PROTOCOL_VERSION, ReasonCode.PROTOCOL_VERSION)
    if description.model_digest != model_digest:
        _refuse("model definition", site, description.model_digest[:12], model_digest[:12], ReasonCode.MODEL_DEFINITION)
    _check_numbers(description, site, ReasonCode.PROTOCOL)
    if len(description.software) > _LONGEST_VERSION or not description.software.isprintable():
        expected = f"a line of at most {_LONGEST_VERSION} characters"
        _refuse("software version", site, f"{len(description.software)} characters", expected, ReasonCode.PROTOCOL)
    for what, count, limit in _label_counts(description, dict.fromkeys(description.labelled, description.cases)):
        if not 0 <= count <= limit:
            _refuse(what, site, count, f"0 to {limit}", ReasonCode.PROTOCOL)


def check_reply(
    report: SiteReport,
    tensors: Mapping[str, Float32],
    *,
    request: TaskRequest,
    description: SiteDescription,
    reference: Mapping[str, Float32],
) -> None:
    """Refuse a reply that does not answer `request` or whose content cannot be.

    Args:
        report: what the site says it did.
        tensors: what it sent.
        request: what it was asked.
        description: what it holds, from its reply to DESCRIBE.
        reference: the current global model; gives names and shapes.

    Raises:
        ProtocolError: with code REPLY_REFUSED (PROTOCOL_VERSION or MODEL_DEFINITION for those two).
    """
    _check_identity(report, request, description)
    _check_numbers(report, report.site)
    _check_spent(report)
    _check_counts(report, description)
    _check_pseudo_labels(report, request, description)
    if report.evaluation is not None:
        _check_evaluation(report.evaluation, request, report.site)
    _check_subsets(report, request, description)
    if report.personalised is not None:
        if request.action is not Action.TRAIN or request.plan is None or request.plan.personalised == "none":
            _refuse("evaluation of its own model", report.site, "figures", "none, for none were asked for")
        _check_evaluation(report.personalised, request, report.site)
    if report.calibration is not None:
        _check_calibration(report, report.calibration, request)
    backbone = request.plan.backbone if request.plan is not None else "any"
    allowed = groups_sent(description.modalities, description.labelled, pseudo=request.ready, backbone=backbone)
    allowed &= groups_sent(report.modalities, report.labelled, pseudo=accepted_targets(report), backbone=backbone)
    _check_names(tensors, allowed if request.action is Action.TRAIN else (), reference, report.site)
    for name, value in tensors.items():
        _check_tensor(name, value, reference[name].shape, report.site)


def _check_identity(report: SiteReport, request: TaskRequest, description: SiteDescription) -> None:
    site = description.site
    if report.protocol != PROTOCOL_VERSION:
        _refuse("protocol version", site, report.protocol, PROTOCOL_VERSION, ReasonCode.PROTOCOL_VERSION)
    if report.model_digest != request.model.digest():
        _refuse("model definition", site, report.model_digest[:12], request.model.digest()[:12], ReasonCode.MODEL_DEFINITION)
    for what, got, expected in (
        ("site name", report.site, site),
        ("run", report.run, request.run),
        ("round", report.round, request.round),
    ):
        if got != expected:
            _refuse(what, site, got, expected)


def _check_numbers(document: BaseModel, site: str, code: ReasonCode = ReasonCode.REPLY_REFUSED) -> None:
    """Refuse a number that none is: one site's would be everybody's in a mean, and is infinite in a sum."""
    largest = max((abs(number) for number in _numbers(document.model_dump())), default=0)
    if largest > LARGEST_NUMBER:
        _refuse("numbers", site, f"one of {len(str(largest))} digits", f"at most {LARGEST_NUMBER:g}", code)


def _numbers(value: object) -> Iterator[float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, Mapping):
        yield from (number for part in value.values() for number in _numbers(part))
    elif isinstance(value, list | tuple):
        yield from (number for part in value for number in _numbers(part))


def _check_spent(report: SiteReport) -> None:
    """Refuse losses and times below 0, and stages with names that no metric could have."""
    evaluations = (report.evaluation, report.personalised, *report.subsets.values())
    losses = [report.losses, *(found.loss for found in evaluations if found is not None)]
    if any(loss < -_ROUNDING for own in losses for loss in own.values()):
        _refuse("losses", report.site, "one below 0", "0 or more")
    names = report.seconds
    if len(names) > _MOST_STAGES or any(not re.fullmatch(_STAGE, name) or names[name] < 0 for name in names):
        _refuse("seconds", report.site, f"{len(names)} stages", f"at most {_MOST_STAGES} in small letters, 0 or more each")


def _check_counts(report: SiteReport, description: SiteDescription) -> None:
    site = report.site
    if report.cases > description.cases:
        _refuse("number of cases", site, report.cases, f"at most {description.cases}, as described")
    most = {task: min(report.cases, description.labelled.get(task, 0)) for task in report.labelled}
    for what, count, limit in _label_counts(report, most):
        if not 0 <= count <= limit:
            _refuse(what, site, count, f"0 to {limit}")
    foreign = set(report.modalities) - set(description.modalities)
    if foreign:
        _refuse("modalities", site, ", ".join(sorted(foreign)), "only those described")


def _label_counts(counts: LabelCounts, most: Mapping[Task, int]) -> Iterator[tuple[str, int, int]]:
    """Yield what each count of labels is, the count, and the most it can be; `most` has that of each task."""
    for task, count in counts.labelled.items():
        yield f"labelled cases for {task}", count, most[task]
    for modality, shown in counts.shown.items():
        for task, count in shown.items():
            yield f"labelled cases for {task} with {modality}", count, counts.labelled.get(task, 0)
    for region, count in counts.outlined.items():
        yield f"outlines of {region}", count, counts.labelled.get(Task.SEGMENTATION, 0)


def _check_pseudo_labels(report: SiteReport, request: TaskRequest, description: SiteDescription) -> None:
    """Refuse pseudo-labels of a target that is not ready, or of more cases than are unlabelled."""
    for target, ledger in report.pseudo_labels.items():
        if target not in request.ready:
            _refuse("pseudo-labels", report.site, target, ", ".join(request.ready) or "none: nothing is ready")
        unlabelled = description.cases - report.telling(target)
        if not ledger.accepted <= ledger.offered <= unlabelled:
            _refuse(f"pseudo-labelled cases for {target}", report.site, f"{ledger.accepted} of {ledger.offered}", f"at most {unlabelled}")


def _check_evaluation(evaluation: Evaluation, request: TaskRequest, site: str) -> None:
    """Refuse an evaluation of another split, or figures outside their range: Dice and AUC lie in [0, 1]."""
    if evaluation.split != request.evaluate:
        _refuse("evaluated split", site, evaluation.split, request.evaluate)
    for name, interval in (*evaluation.dice.items(), *evaluation.visible_dice.items(), *evaluation.auc.items()):
        if interval.n > evaluation.cases:
            _refuse(f"patients behind {name}", site, interval.n, f"at most {evaluation.cases}")
        if any(bound is not None and not 0 <= bound <= 1 for bound in (interval.value, interval.low, interval.high)):
            _refuse(f"value of {name}", site, interval.value, "0 to 1")
    _check_comparison(evaluation, request, site)


def _check_subsets(report: SiteReport, request: TaskRequest, description: SiteDescription) -> None:
    """Refuse figures by subset that nobody asked for, or of sequences that the site does not hold."""
    if report.subsets and not request.subsets:
        _refuse("figures by subset", report.site, len(report.subsets), "none, for none were asked for")
    held = [str(modality) for modality in MODALITIES if modality in description.modalities]
    for name, evaluation in report.subsets.items():
        parts = name.split("+")
        if parts != [modality for modality in held if modality in parts]:
            _refuse("subset of sequences", report.site, name, f"some of {', '.join(held)}, in this order")
        _check_evaluation(evaluation, request, report.site)


def _check_comparison(evaluation: Evaluation, request: TaskRequest, site: str) -> None:
    """Refuse differences that nobody asked for, of metrics that were not measured, or outside their range."""
    if evaluation.against not in ("", request.against) or (evaluation.paired and not request.against):
        _refuse("comparison", site, evaluation.against or "differences", request.against or "none, for none was asked for")
    known = {f"dice_{region}" for region in evaluation.dice} | {f"auc_{task}" for task in evaluation.auc}
    for metric, interval in evaluation.paired.items():
        if metric not in known or interval.n > evaluation.cases:
            _refuse("difference", site, f"{metric} over {interval.n} patients", f"measured metrics over at most {evaluation.cases}")
        if any(bound is not None and not -1 <= bound <= 1 for bound in (interval.value, interval.low, interval.high)):
            _refuse(f"difference in {metric}", site, interval.value, "-1 to 1")


def _check_calibration(report: SiteReport, calibration: CalibrationStatistics, request: TaskRequest) -> None:
    """Refuse sums that nobody asked for, of another split, of heads the model lacks, or that cannot come from so many patients."""
    site, query = report.site, request.calibrate
    if query is None:
        _refuse("calibration", site, "sums", "none, for none were asked for")
        return
    splits = {request.evaluate} | ({Split.VALIDATION} if request.evaluate is Split.CALIBRATION else set())
    if calibration.split not in splits:
        _refuse("calibrated split", site, calibration.split, " or ".join(sorted(str(split) for split in splits)))
    cases = report.evaluation.cases if report.evaluation is not None else 0
    if calibration.patients > cases:
        _refuse("calibration patients", site, calibration.patients, f"at most the {cases} evaluated cases")
    known = {*REGIONS, *request.model.network.tasks}
    for head, found in calibration.heads.items():
        if head not in known:
            _refuse("calibrated head", site, head, ", ".join(sorted(known)))
        if found.patients > calibration.patients:
            _refuse(f"calibration patients for {head}", site, found.patients, f"at most {calibration.patients}")
        limit = found.patients * LARGEST_NATS
        if len(found.nll) != len(query.grid) or any(not 0 <= value <= limit for value in found.nll):
            _refuse(f"likelihood of {head}", site, f"{len(found.nll)} values", f"{len(query.grid)} from 0 to {limit:g}")
        if found.reliability is not None:
            for bins in (found.reliability.before, found.reliability.after):
                _check_reliability(bins, head, calibration.patients if query.temperatures is not None else 0, site)


def _check_reliability(bins: Reliability, head: str, patients: int, site: str) -> None:
    """Refuse bins with more patients than there are, more right answers than patients, or a confidence outside its bin."""
    if bins.total > patients + _ROUNDING:
        _refuse(f"reliability of {head}", site, f"{bins.total:g} patients", f"at most {patients}")
    edges = bin_edges()
    for low, high, count, confidence, correct in zip(edges, edges[1:], bins.patients, bins.confidence, bins.correct, strict=False):
        if correct > count + _ROUNDING or not count * low - _ROUNDING <= confidence <= count * high + _ROUNDING:
            got = f"{count:g} patients, confidence {confidence:g}, right {correct:g} in the bin from {low:.3f}"
            _refuse(f"reliability of {head}", site, got, "right answers within patients, confidence within the bin")


def _check_names(tensors: Mapping[str, Float32], allowed: Collection[str], reference: Mapping[str, Float32], site: str) -> None:
    """Refuse tensors the model does not have, groups the site may not send, and parts of a group."""
    foreign = sorted(set(tensors) - set(reference))
    if foreign:
        _refuse("tensor name", site, foreign[0], "a tensor of the model")
    whole = by_group(reference)
    for group, names in by_group(tensors).items():
        if group not in allowed:
            _refuse("group of tensors", site, group, ", ".join(sorted(allowed)) or "no tensors at all")
        missing = sorted(set(whole[group]) - set(names))
        if missing:
            _refuse(f"group {group}", site, f"without {missing[0]}", f"all {len(whole[group])} tensors")


def _check_tensor(name: str, value: Float32, shape: tuple[int, ...], site: str) -> None:
    if value.dtype != np.float32 or value.shape != shape:
        _refuse(f"form of {name}", site, f"{value.dtype} {value.shape}", f"float32 {shape}")
    if not np.isfinite(value).all():
        _refuse(f"values of {name}", site, f"{int(np.count_nonzero(~np.isfinite(value)))} not finite", "finite numbers")


def _refuse(what: str, site: str, got: object, expected: object, code: ReasonCode = ReasonCode.REPLY_REFUSED) -> None:
    raise ProtocolError(
        f"refused for its {what}",
        where=f"site {site}",
        got=f"{got!s:.200}",
        expected=expected,
        remedy="compare the software versions and look at the site's log",
        code=code,
    )
