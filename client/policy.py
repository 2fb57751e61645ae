"""The hospital's policy, enforced: is this request answered here, now, and what of its answer is left out?

    request -> allowed task? -> hours, rounds of the day -> size of the model -> safeguards of the run -> cohort -> Admission | PolicyError

Everything is judged from the request's document and a few numbers, before a tensor is unpacked or a scan is loaded: the executor brings
the document ahead, and unpacks what came with it once it is admitted (client.app). A description is given only for a run that the site
would take part in at that moment. The coordinator learns the reason code; the site's log has the whole reason.

A run that says it aggregates securely is held to that in every round, whatever the policy asks for. In a secure round the terms are
judged by which the site itself masks its update and adds its share of the noise. Without one, differential privacy is what the
coordinator says it does: its word, which the audit log keeps (gmmas_schema.policy.Safeguards). Either way the budget is held against what
so many releases really cost.

An override lets requests pass that a check would refuse, until a moment; who gave it and why stands in the audit log beside each of them.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import prod
from pathlib import Path

from pydantic import Field, ValidationError

from gmmas_runtime.files import write_atomic
from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import PolicyError, ReasonCode
from gmmas_schema.messages import Action, TaskRequest
from gmmas_schema.policy import FewestPatients, PrivacyPolicy, SitePolicy, SiteTask
from gmmas_schema.privacy import PrivacyConfig
from gmmas_schema.vocabulary import Split
from strategies.accountant import keeps_within
from strategies.secure.documents import Terms

_TASK_OF = {Action.DESCRIBE: SiteTask.DESCRIBE, Action.TRAIN: SiteTask.TRAIN, Action.EVALUATE: SiteTask.EVALUATE}

POLICY_CODES = frozenset(code for code in ReasonCode if code.name.startswith("POLICY_"))
"""Reasons that an override can be given for."""


@dataclass(frozen=True)
class Circumstances:
    """What a request is judged by beside itself.

    Attributes:
        moment: with its time zone.
        rounds_today: rounds of training answered since the site's midnight.
        parameters: numbers of the network that the request is about.
        patients: of the cohort, by split.
    """

    moment: datetime
    rounds_today: int = 0
    parameters: int = 0
    patients: Mapping[Split, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Admission:
    """A request that may be run.

    Attributes:
        request: without what the policy leaves out.
        withheld: what that is: `evaluation`, `calibration`.
        overridden: reasons for which it would have been refused.
        fewest: patients behind each figure of the answer, which may rest on fewer than the split has: not all have every label.
    """

    request: TaskRequest
    withheld: tuple[str, ...] = ()
    overridden: tuple[ReasonCode, ...] = ()
    fewest: FewestPatients = field(default_factory=FewestPatients)


class Override(FrozenModel):
    """Leave to pass a check for a while.

    Attributes:
        code: of the check.
        until: when it ends.
        reason: why it was given.
        by: who gave it.
    """

    code: ReasonCode
    until: datetime
    reason: str = Field(min_length=1, max_length=300)
    by: str = Field(min_length=1, max_length=64)


class Overrides(FrozenModel):
    """The overrides of a site, in the order they were given."""

    given: tuple[Override, ...] = ()

    @classmethod
    def read(cls, path: Path) -> "Overrides":
        """Return a site's overrides; none where the file is missing or damaged, for a policy holds in doubt."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return cls()

    def write(self, path: Path) -> None:
        """Replace a site's overrides."""
        write_atomic(path, self.model_dump_json().encode())

    def valid(self, moment: datetime) -> dict[ReasonCode, Override]:
        """Return those that hold at a moment, by the check that they pass."""
        return {override.code: override for override in self.given if moment < override.until}


def admit(
    request: TaskRequest, policy: SitePolicy, circumstances: Circumstances, *, overrides: Collection[ReasonCode] = frozenset()
) -> Admission:
    """Judge a request.

    Args:
        request: as it came.
        policy: of the site.
        circumstances: of the moment.
        overrides: checks that may fail.

    Raises:
        PolicyError: it is refused; its code says by which check.
    """
    passed: list[ReasonCode] = []
    for refusal in _refusals(request, policy, circumstances):
        if refusal.code not in overrides:
            raise refusal
        passed.append(refusal.code)
    admitted, withheld = _without_small_figures(request, policy, circumstances)
    fewest = policy.patients
    if request.action is Action.EVALUATE and ReasonCode.POLICY_COHORT in passed:
        fewest = fewest.model_copy(update={"evaluate": 1})
    return Admission(admitted, withheld, tuple(dict.fromkeys(passed)), fewest)


def _refusals(request: TaskRequest, policy: SitePolicy, circumstances: Circumstances) -> Iterator[PolicyError]:
    """Yield every reason to refuse a request, the gravest first."""
    yield from _refuse_task(request, policy)
    yield from _refuse_moment(request, policy, circumstances)
    yield from _refuse_size(request, policy, circumstances.parameters)
    if _is_about_training(request):
        yield from _refuse_broken_promise(request)
        yield from _refuse_safeguards(request, policy.privacy)
    yield from _refuse_cohort(request, policy, circumstances.patients)


def _is_about_training(request: TaskRequest) -> bool:
    """Tell whether an update would leave: a run without rounds only measures."""
    return request.action is Action.TRAIN or (request.action is Action.DESCRIBE and request.rounds > 0)


def _refuse_task(request: TaskRequest, policy: SitePolicy) -> Iterator[PolicyError]:
    task = _TASK_OF[request.action]
    if task not in policy.tasks:
        yield _refuse(ReasonCode.POLICY_TASK, "this kind of request is not allowed here", "tasks", task, ", ".join(policy.tasks))
    if not set(request.model.network.tasks) & set(policy.heads):
        heads = ", ".join(request.model.network.tasks)
        yield _refuse(ReasonCode.POLICY_TASK, "no head of this model is used here", "heads", heads, ", ".join(policy.heads))


def _refuse_moment(request: TaskRequest, policy: SitePolicy, circumstances: Circumstances) -> Iterator[PolicyError]:
    if not policy.is_open(circumstances.moment):
        local = policy.midnight(circumstances.moment).tzinfo
        got = f"{circumstances.moment.astimezone(local):%a %H:%M} ({policy.zone})"
        yield _refuse(ReasonCode.POLICY_HOURS, "the site answers at other hours", "hours", got, ", ".join(policy.hours))
    limit = policy.rounds_per_day
    if limit is not None and _is_about_training(request) and circumstances.rounds_today >= limit:
        got = f"{circumstances.rounds_today} rounds since midnight"
        yield _refuse(ReasonCode.POLICY_ROUNDS, "the rounds of this day are used up", "rounds_per_day", got, f"at most {limit}")


def _refuse_size(request: TaskRequest, policy: SitePolicy, parameters: int) -> Iterator[PolicyError]:
    limits, voxels = policy.largest_model, prod(request.model.grid.shape)
    for name, got, limit in (("parameters", parameters, limits.parameters), ("voxels", voxels, limits.voxels)):
        if limit is not None and got > limit:
            yield _refuse(
                ReasonCode.POLICY_MODEL,
                "the model is larger than the site allows",
                f"largest_model.{name}",
                f"{got:,}",
                f"at most {limit:,}",
            )


def _refuse_broken_promise(request: TaskRequest) -> Iterator[PolicyError]:
    """Refuse to train in the clear for a run that is told to sum unseen, whether or not the policy asks for that."""
    if request.action is Action.TRAIN and request.safeguards.secure is not None and request.secure is None:
        yield PolicyError(
            "a run that aggregates securely asks for an update in the clear",
            where=f"run {request.run:.60}, round {request.round}",
            got="training in the clear, without terms",
            expected="the terms of a secure round, as the request's safeguards say",
            remedy="ask the coordinator; or let it pass for a while: gmmas site allow E_POLICY_PRIVACY",
            code=ReasonCode.POLICY_PRIVACY,
        )


def _refuse_safeguards(request: TaskRequest, asked: PrivacyPolicy) -> Iterator[PolicyError]:
    what, given = "the run lacks a safeguard that the site requires", _safeguards_of(request)
    if asked.secure and given.holders < asked.holders:
        got = f"sums of {given.holders} sites or more" if given.holders else "updates in the clear"
        expected = f"secure aggregation over {asked.holders} sites or more"
        yield _refuse(ReasonCode.POLICY_PRIVACY, what, "privacy.secure", got, expected)
    if asked.epsilon is not None:
        yield from _refuse_budget(given.privacy, max(1, request.round), asked, asked.epsilon)
    if asked.clipped and not given.clipped:
        yield _refuse(ReasonCode.POLICY_PRIVACY, what, "privacy.clipped", "updates without a bound", "a bound on each update")


@dataclass(frozen=True)
class _Given:
    """The safeguards of a request.

    Attributes:
        holders: sites behind every sum; 0 where an update would leave in the clear.
        privacy: differential privacy.
        clipped: whether an update is bounded.
    """

    holders: int
    privacy: PrivacyConfig | None
    clipped: bool


def _safeguards_of(request: TaskRequest) -> _Given:
    """Return what holds for a request: in training by its terms, as the site itself masks and adds noise by them, not by what is told."""
    told = request.safeguards
    if request.action is not Action.TRAIN:
        holders = told.secure.minimum_holders if told.secure is not None else 0
        return _Given(holders, told.privacy, (told.secure, told.privacy, told.clip) != (None, None, None))
    if request.secure is None:
        return _Given(0, told.privacy, (told.privacy, told.clip) != (None, None))
    try:
        terms = Terms.model_validate_json(request.secure.terms)
    except ValidationError:
        return _Given(0, None, clipped=False)
    return _Given(terms.minimum_holders, terms.privacy, clipped=True)


def _refuse_budget(promised: PrivacyConfig | None, releases: int, asked: PrivacyPolicy, epsilon: float) -> Iterator[PolicyError]:
    """Refuse a run without differential privacy, with too large a budget, or whose noise does not keep to it over so many rounds."""
    what, expected = "the run's differential privacy is not what the site requires", f"epsilon at most {epsilon:g} at delta {asked.delta:g}"
    if promised is None:
        got = "none"
    elif promised.epsilon > epsilon or promised.delta > asked.delta:
        got = f"epsilon {promised.epsilon:g} at delta {promised.delta:g}"
    elif not keeps_within(releases, noise_multiplier=promised.noise_multiplier, epsilon=promised.epsilon, delta=promised.delta):
        got = f"noise of multiplier {promised.noise_multiplier:g}, which spends more by round {releases}"
    else:
        return
    yield _refuse(ReasonCode.POLICY_PRIVACY, what, "privacy.epsilon", got, expected)


def _refuse_cohort(request: TaskRequest, policy: SitePolicy, patients: Mapping[Split, int]) -> Iterator[PolicyError]:
    if _is_about_training(request) and patients.get(Split.TRAIN, 0) < policy.patients.train:
        got = f"{patients.get(Split.TRAIN, 0)} patients to train on"
        yield _refuse(ReasonCode.POLICY_COHORT, "the cohort is too small", "patients.train", got, f"at least {policy.patients.train}")
    if request.action is Action.EVALUATE and _is_small(_measured(request, patients), policy.patients.evaluate):
        got, least = f"{_measured(request, patients)} patients to measure on", policy.patients.evaluate
        yield _refuse(ReasonCode.POLICY_COHORT, "the cohort is too small", "patients.evaluate", got, f"at least {least}")


def _without_small_figures(request: TaskRequest, policy: SitePolicy, circumstances: Circumstances) -> tuple[TaskRequest, tuple[str, ...]]:
    """Return a request without the figures that the policy withholds, and their names."""
    changes: dict[str, None] = {}
    measured = _measured(request, circumstances.patients)
    untold = SiteTask.EVALUATE not in policy.tasks or _is_small(measured, policy.patients.evaluate)
    unsummed = SiteTask.CALIBRATE not in policy.tasks or _is_small(measured, policy.patients.calibrate)
    if request.action is Action.TRAIN and request.evaluate is not None and untold:
        changes["evaluate"] = None
    if request.calibrate is not None and unsummed:
        changes["calibrate"] = None
    names = {"evaluate": "evaluation", "calibrate": "calibration"}
    return (request.model_copy(update=changes) if changes else request), tuple(names[key] for key in changes)


def _measured(request: TaskRequest, patients: Mapping[Split, int]) -> int:
    """Return the patients that figures would be over: validation stands in where no calibration patients are set aside."""
    if request.evaluate is None:
        return 0
    stands_in = request.evaluate is Split.CALIBRATION and not patients.get(Split.CALIBRATION, 0)
    return patients.get(Split.VALIDATION if stands_in else request.evaluate, 0)


def _is_small(patients: int, fewest: int) -> bool:
    """Tell whether figures would be over too few; those over nobody say nothing."""
    return 0 < patients < fewest


def _refuse(code: ReasonCode, what: str, key: str, got: str, expected: str) -> PolicyError:
    return PolicyError(
        what,
        where=f"policy.{key} in site.yaml",
        got=got,
        expected=expected,
        remedy=f"change the policy and start the node again, or let it pass for a while: gmmas site allow {code}",
        code=code,
    )
