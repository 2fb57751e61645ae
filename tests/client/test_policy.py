"""What the policy refuses, withholds and lets pass."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from client.policy import POLICY_CODES, Circumstances, Override, Overrides, admit
from gmmas_schema.calibration import CalibrationQuery
from gmmas_schema.errors import PolicyError, ReasonCode
from gmmas_schema.messages import Action, TaskRequest
from gmmas_schema.policy import Safeguards, SitePolicy
from gmmas_schema.privacy import PrivacyConfig
from gmmas_schema.robustness import FixedClip
from gmmas_schema.secure import SecureConfig, SecureTask
from gmmas_schema.strategy import HoldersStrategy
from gmmas_schema.vocabulary import Split
from strategies.accountant import affordable_releases
from tests.client.sites import make_request

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
COHORT = {Split.TRAIN: 20, Split.VALIDATION: 6, Split.TEST: 8, Split.CALIBRATION: 0}
DESCRIBE, TRAIN, EVALUATE = (make_request(action) for action in (Action.DESCRIBE, Action.TRAIN, Action.EVALUATE))


def judge(request: TaskRequest, policy: dict[str, Any], *, overrides: frozenset[ReasonCode] = frozenset(), **changes: Any) -> Any:
    circumstances = Circumstances(**{"moment": NOON, "parameters": 1000, "patients": COHORT} | changes)
    return admit(request, SitePolicy.model_validate(policy), circumstances, overrides=overrides)


def refusal(request: TaskRequest, policy: dict[str, Any], **changes: Any) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        judge(request, policy, **changes)
    return caught.value


@pytest.mark.parametrize("request_", [DESCRIBE, TRAIN, EVALUATE])
def test_the_default_admits_everything_as_it_came(request_: TaskRequest) -> None:
    admission = judge(request_, {})
    assert admission.request is request_
    assert (admission.withheld, admission.overridden) == ((), ())


@pytest.mark.parametrize(
    ("request_", "policy", "changes", "code"),
    [
        (TRAIN, {"tasks": ["describe", "evaluate"]}, {}, ReasonCode.POLICY_TASK),
        (EVALUATE, {"tasks": ["describe", "train"]}, {}, ReasonCode.POLICY_TASK),
        (DESCRIBE, {"tasks": ["train"]}, {}, ReasonCode.POLICY_TASK),
        (TRAIN, {"heads": ["grade", "mgmt"]}, {}, ReasonCode.POLICY_TASK),
        *((one, {"hours": ["19:00-07:00"]}, {}, ReasonCode.POLICY_HOURS) for one in (DESCRIBE, TRAIN, EVALUATE)),
        *((one, {"rounds_per_day": 3}, {"rounds_today": 3}, ReasonCode.POLICY_ROUNDS) for one in (DESCRIBE, TRAIN)),
        *((one, {"largest_model": {"parameters": 999}}, {}, ReasonCode.POLICY_MODEL) for one in (DESCRIBE, TRAIN, EVALUATE)),
        (TRAIN, {"largest_model": {"voxels": 1727}}, {}, ReasonCode.POLICY_MODEL),
        *((one, {"patients": {"train": 21}}, {}, ReasonCode.POLICY_COHORT) for one in (DESCRIBE, TRAIN)),
        (EVALUATE, {"patients": {"evaluate": 7}}, {}, ReasonCode.POLICY_COHORT),
        *((one, {"privacy": {"secure": True}}, {}, ReasonCode.POLICY_PRIVACY) for one in (DESCRIBE, TRAIN)),
        *((one, {"privacy": {"epsilon": 8}}, {}, ReasonCode.POLICY_PRIVACY) for one in (DESCRIBE, TRAIN)),
        *((one, {"privacy": {"clipped": True}}, {}, ReasonCode.POLICY_PRIVACY) for one in (DESCRIBE, TRAIN)),
    ],
)
def test_what_is_refused_is_told_by_code_and_key(
    request_: TaskRequest, policy: dict[str, Any], changes: dict[str, Any], code: ReasonCode
) -> None:
    error = refusal(request_, policy, **changes)
    assert error.code is code
    assert next(iter(policy)) in error.where
    assert error.got
    assert error.expected
    admission = judge(request_, policy, overrides=frozenset({code}), **changes)
    assert admission.overridden == (code,)
    assert admission.fewest.evaluate == 1, "figures that were let through are not left out again"


def test_bounds_are_reached_and_not_passed() -> None:
    limits = {"rounds_per_day": 3, "patients": {"train": 20, "evaluate": 6}, "largest_model": {"parameters": 1000, "voxels": 1728}}
    judge(TRAIN, limits, rounds_today=2)
    judge(EVALUATE, limits, rounds_today=9)  # rounds are rounds of training


def test_an_override_passes_its_own_check_only() -> None:
    policy = {"hours": ["19:00-07:00"], "largest_model": {"parameters": 10}}
    assert refusal(TRAIN, policy).code is ReasonCode.POLICY_HOURS
    assert refusal(TRAIN, policy, overrides=frozenset({ReasonCode.POLICY_HOURS})).code is ReasonCode.POLICY_MODEL


@pytest.mark.parametrize(
    ("policy", "patients", "withheld"),
    [
        ({"tasks": ["describe", "train"]}, 6, ("evaluation",)),
        ({"patients": {"evaluate": 7}}, 6, ("evaluation",)),
        ({"patients": {"evaluate": 6}}, 6, ()),
        ({"patients": {"evaluate": 6}}, 0, ()),  # figures over nobody say nothing
    ],
)
def test_figures_over_too_few_are_left_out_of_training(policy: dict[str, Any], patients: int, withheld: tuple[str, ...]) -> None:
    admission = judge(TRAIN, policy, patients={**COHORT, Split.VALIDATION: patients})
    assert admission.withheld == withheld
    assert (admission.request.evaluate is None) is bool(withheld)
    assert admission.request.plan == TRAIN.plan
    assert admission.fewest == SitePolicy.model_validate(policy).patients


@pytest.mark.parametrize(
    ("policy", "split", "withheld"),
    [
        ({"tasks": ["describe", "train", "evaluate"]}, Split.TEST, True),
        ({"patients": {"calibrate": 8}}, Split.TEST, False),
        ({"patients": {"calibrate": 9}}, Split.TEST, True),
        ({"patients": {"calibrate": 7}}, Split.CALIBRATION, True),  # validation stands in
        ({"patients": {"calibrate": 6}}, Split.CALIBRATION, False),
    ],
)
def test_sums_over_too_few_are_left_out_of_an_evaluation(policy: dict[str, Any], split: Split, withheld: bool) -> None:
    request = EVALUATE.model_copy(update={"evaluate": split, "calibrate": CalibrationQuery()})
    admission = judge(request, policy)
    assert (admission.request.calibrate is None) is withheld
    assert admission.request.evaluate is split


def with_safeguards(request: TaskRequest, *, terms: str | None = None, **safeguards: Any) -> TaskRequest:
    task = None if terms is None else SecureTask(terms=terms, strategy=HoldersStrategy())
    return request.model_copy(update={"safeguards": Safeguards(**safeguards), "secure": task})


def terms_of(monkeypatch: pytest.MonkeyPatch, holders: int, privacy: PrivacyConfig | None = None) -> str:
    """Return terms that say so many holders; what else they say is the protocol's own concern."""
    monkeypatch.setattr("client.policy.Terms.model_validate_json", lambda _: SimpleNamespace(minimum_holders=holders, privacy=privacy))
    return "{}"


def test_required_masks_are_those_of_this_very_round(monkeypatch: pytest.MonkeyPatch) -> None:
    required, secure = {"privacy": {"secure": True, "holders": 4}}, SecureConfig(minimum_holders=4)
    judge(with_safeguards(DESCRIBE, secure=secure), required)
    promised = with_safeguards(TRAIN, secure=secure)  # and then asks for the update in the clear
    assert "in the clear" in refusal(promised, required).got
    assert "in the clear" in refusal(with_safeguards(TRAIN, terms="no terms", secure=secure), required).got
    judge(with_safeguards(TRAIN, terms=terms_of(monkeypatch, 4), secure=secure), required)
    assert "sums of 3" in refusal(with_safeguards(TRAIN, terms=terms_of(monkeypatch, 3), secure=secure), required).got
    judge(EVALUATE, required)


def test_a_promise_of_masks_that_training_does_not_keep_is_refused_without_any_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    secure = SecureConfig()
    error = refusal(with_safeguards(TRAIN, secure=secure), {})
    assert (error.code, error.where) == (ReasonCode.POLICY_PRIVACY, "run run-1, round 1")
    assert "in the clear" in error.got
    for request in (DESCRIBE, EVALUATE):
        judge(with_safeguards(request, secure=secure), {})
    judge(with_safeguards(TRAIN, terms=terms_of(monkeypatch, 3), secure=secure), {})
    judge(TRAIN, {})


def dp(**changes: Any) -> PrivacyConfig:
    return PrivacyConfig(**{"clip_norm": 1.0, "noise_multiplier": 4.0, "delta": 1e-5, "epsilon": 8.0} | changes)


def test_a_budget_is_held_against_the_policy_and_the_noise_against_the_budget() -> None:
    required = {"privacy": {"epsilon": 8, "delta": 1e-5}}
    judge(with_safeguards(TRAIN, privacy=dp()), required)
    assert "epsilon 9" in refusal(with_safeguards(TRAIN, privacy=dp(epsilon=9.0)), required).got
    assert "delta 0.001" in refusal(with_safeguards(TRAIN, privacy=dp(delta=1e-3)), required).got
    assert "multiplier 0.01" in refusal(with_safeguards(TRAIN, privacy=dp(noise_multiplier=0.01)), required).got
    last = affordable_releases(noise_multiplier=4.0, delta=1e-5, epsilon=8.0)
    request = with_safeguards(TRAIN, privacy=dp())
    judge(request.model_copy(update={"round": last}), required)
    assert f"by round {last + 1}" in refusal(request.model_copy(update={"round": last + 1}), required).got


def test_in_a_secure_round_the_noise_is_that_of_its_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    required, told = {"privacy": {"epsilon": 8, "delta": 1e-5}}, {"secure": SecureConfig(), "privacy": dp()}
    judge(with_safeguards(DESCRIBE, **told), required)
    judge(with_safeguards(TRAIN, terms=terms_of(monkeypatch, 3, dp()), **told), required)
    assert refusal(with_safeguards(TRAIN, terms=terms_of(monkeypatch, 3), **told), required).got == "none"
    weak = terms_of(monkeypatch, 3, dp(noise_multiplier=0.01))
    assert "multiplier 0.01" in refusal(with_safeguards(TRAIN, terms=weak, **told), required).got


@pytest.mark.parametrize("safeguards", [{"clip": FixedClip(norm=1.0)}, {"secure": SecureConfig()}, {"privacy": dp()}])
def test_any_bound_on_an_update_is_a_clip(safeguards: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    required = {"privacy": {"clipped": True}}
    judge(with_safeguards(DESCRIBE, **safeguards), required)
    if "secure" in safeguards:  # told, but this round would leave in the clear
        refusal(with_safeguards(TRAIN, **safeguards), required)
        safeguards |= {"terms": terms_of(monkeypatch, 3)}
    judge(with_safeguards(TRAIN, **safeguards), required)


def test_a_run_that_only_measures_needs_no_safeguards_of_updates() -> None:
    strict = {"privacy": {"secure": True, "epsilon": 1, "clipped": True}, "patients": {"train": 1000}}
    judge(DESCRIBE.model_copy(update={"rounds": 0}), strict)
    judge(EVALUATE, strict)


def test_overrides_end_and_survive_a_restart(tmp_path: Path) -> None:
    override = Override(code=ReasonCode.POLICY_HOURS, until=NOON, reason="holiday", by="kim")
    Overrides(given=(override,)).write(tmp_path / "overrides.json")
    kept = Overrides.read(tmp_path / "overrides.json")
    assert kept.valid(NOON - timedelta(seconds=1)) == {ReasonCode.POLICY_HOURS: override}
    assert kept.valid(NOON) == {}
    (tmp_path / "overrides.json").write_text("{")
    assert Overrides.read(tmp_path / "overrides.json") == Overrides.read(tmp_path / "none") == Overrides()


def test_overrides_are_for_checks_of_the_policy() -> None:
    assert len(POLICY_CODES) == 6
    assert ReasonCode.PAUSED not in POLICY_CODES
