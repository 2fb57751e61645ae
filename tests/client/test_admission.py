"""Policy and audit log behind the trainer's real socket."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from client.audit_line import AuditKind, AuditLine, AuditOutcome, hash_parts
from client.audit_log import NEWEST, AuditLog
from client.audit_verification import read_lines, verify_log
from client.folder import NodeFolder
from client.policy import Override, Overrides
from client.trainer_channel import TrainerChannel
from gmmas_model.network import GmmasNetwork
from gmmas_model.size import count_parameters
from gmmas_runtime.keys import load_node_key
from gmmas_schema.calibration import CalibrationQuery
from gmmas_schema.errors import FederationError, ReasonCode, TrustError
from gmmas_schema.messages import Action
from gmmas_schema.model import NetworkConfig
from gmmas_schema.policy import SitePolicy
from gmmas_schema.site import SiteConfig, SplitConfig
from gmmas_schema.vocabulary import Region, Task
from tests.client.serving import TIMEOUT_S, make_tensors, serving
from tests.client.sites import PATIENT, TINY, make_request, read_site


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> SiteConfig:
    return read_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def trainer(config: SiteConfig) -> Iterator[TrainerChannel]:
    with serving(config) as channel:
        yield channel


def with_policy(folder: Path, **policy: Any) -> SiteConfig:
    return read_site(folder).model_copy(update={"policy": SitePolicy.model_validate(policy)})


def lines_of(config: SiteConfig) -> list[AuditLine]:
    return list(read_lines(NodeFolder(config.node.state).audit_log))


def ask(trainer: TrainerChannel, action: Action) -> None:
    if action is Action.TRAIN:
        trainer.train(make_request(), make_tensors(), timeout_s=TIMEOUT_S)
    else:
        trainer.describe(make_request(Action.DESCRIBE), timeout_s=TIMEOUT_S)


def refused(trainer: TrainerChannel, action: Action = Action.TRAIN) -> FederationError:
    with pytest.raises(FederationError) as caught:
        ask(trainer, action)
    return caught.value


def closed_now() -> str:
    """Return a window of an hour that is twelve hours away (UTC)."""
    begin = datetime.now(UTC) + timedelta(hours=12)
    return f"{begin:%H}:00-{(begin + timedelta(hours=1)):%H}:00"


def test_every_request_and_its_answer_leave_a_line(config: SiteConfig, trainer: TrainerChannel) -> None:
    description = trainer.describe(make_request(Action.DESCRIBE), timeout_s=TIMEOUT_S)
    _, tensors = trainer.train(make_request(), make_tensors(), timeout_s=TIMEOUT_S)
    trainer.evaluate(make_request(Action.EVALUATE), make_tensors(), timeout_s=TIMEOUT_S)
    described, trained, evaluated = lines_of(config)[-3:]
    assert (described.kind, trained.kind, evaluated.kind) == (AuditKind.DESCRIBE, AuditKind.TRAIN, AuditKind.EVALUATE)
    assert {line.outcome for line in (described, trained, evaluated)} == {AuditOutcome.ANSWERED}
    assert {line.verdict for line in (described, trained, evaluated)} == {"allowed"}
    assert (trained.run, trained.round, described.round) == ("run-1", 1, 0)
    assert described.request == hash_parts(make_request(Action.DESCRIBE).model_dump_json().encode(), b"")
    assert described.answer == hash_parts(description.model_dump_json().encode(), b"")
    assert described.bytes_out == len(description.model_dump_json().encode())
    assert trained.bytes_out > sum(value.nbytes for value in tensors.values())
    verdict = verify_log(NodeFolder(config.node.state).audit_log, load_node_key(config.node.private_key).public_key())
    assert verdict.is_whole


def test_a_start_tells_software_and_policy(config: SiteConfig, trainer: TrainerChannel) -> None:
    first = lines_of(config)[0]
    assert first.kind is AuditKind.STARTED
    assert first.detail["policy"] == "{}"
    assert first.detail["software"]


def test_what_is_not_a_request_is_written_down_too(config: SiteConfig, trainer: TrainerChannel) -> None:
    with pytest.raises(FederationError):
        trainer.describe(make_request(Action.DESCRIBE).model_copy(update={"protocol": 99}), timeout_s=TIMEOUT_S)
    last = lines_of(config)[-1]
    assert (last.outcome, last.code, last.verdict, last.round) == (AuditOutcome.REFUSED, ReasonCode.PROTOCOL_VERSION, "", None)


def test_a_failure_leaves_its_code_alone(config: SiteConfig, trainer: TrainerChannel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"cannot read {PATIENT}")

    monkeypatch.setattr("client.trainer_servicer.report_evaluation", fail)
    with pytest.raises(FederationError):
        trainer.evaluate(make_request(Action.EVALUATE), make_tensors(), timeout_s=TIMEOUT_S)
    last = lines_of(config)[-1]
    assert (last.outcome, last.code, last.verdict, last.reason) == (AuditOutcome.FAILED, ReasonCode.TRAINER, "allowed", "")
    assert PATIENT not in (NodeFolder(config.node.state).audit_log / NEWEST).read_text()


def test_no_answer_leaves_unrecorded(trainer: TrainerChannel, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise TrustError("no room", code=ReasonCode.AUDIT_LOG)

    monkeypatch.setattr(AuditLog, "append", full)
    assert refused(trainer, Action.DESCRIBE).code is ReasonCode.AUDIT_LOG


def test_a_policy_speaks_before_anything_is_loaded_and_tells_the_coordinator_its_code(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = with_policy(tmp_path, hours=[closed_now()])
    with serving(config) as trainer:
        for action in (Action.DESCRIBE, Action.TRAIN):
            assert refused(trainer, action).code is ReasonCode.POLICY_HOURS
        assert trainer.status().cases_cached == 0
    assert "policy.hours in site.yaml" in caplog.text
    last = lines_of(config)[-1]
    assert (last.verdict, last.code, last.outcome) == ("E_POLICY_HOURS", ReasonCode.POLICY_HOURS, AuditOutcome.REFUSED)
    assert "other hours" in last.reason
    assert last.answer == ""


def test_what_is_judged_ahead_leaves_a_line_where_it_is_refused_and_else_with_its_task(tmp_path: Path) -> None:
    config = with_policy(tmp_path, tasks=["describe", "train"])
    evaluation = make_request(Action.EVALUATE)
    with serving(config) as trainer:
        before = len(lines_of(config))
        with pytest.raises(FederationError) as caught:
            trainer.admit(evaluation, timeout_s=TIMEOUT_S)
        assert caught.value.code is ReasonCode.POLICY_TASK
        refusal = lines_of(config)[before]
        assert (refusal.kind, refusal.verdict, refusal.outcome) == (AuditKind.EVALUATE, "E_POLICY_TASK", AuditOutcome.REFUSED)
        assert refusal.request == hash_parts(evaluation.model_dump_json().encode(), b""), "no tensors were looked at"
        trainer.admit(make_request(), timeout_s=TIMEOUT_S)
        assert len(lines_of(config)) == before + 1
        ask(trainer, Action.TRAIN)
        assert [line.outcome for line in lines_of(config)[before:]] == [AuditOutcome.REFUSED, AuditOutcome.ANSWERED]
        trainer.pause()
        with pytest.raises(FederationError) as paused:
            trainer.admit(make_request(), timeout_s=TIMEOUT_S)
        assert paused.value.code is ReasonCode.PAUSED
        trainer.resume()


def test_an_override_lets_pass_and_is_written_beside_the_answer(tmp_path: Path) -> None:
    config = with_policy(tmp_path, hours=[closed_now()])
    override = Override(code=ReasonCode.POLICY_HOURS, until=datetime.now(UTC) + timedelta(hours=1), reason="a holiday", by="kim")
    with serving(config) as trainer:
        Overrides(given=(override,)).write(NodeFolder(config.node.state).overrides)
        trainer.describe(make_request(Action.DESCRIBE), timeout_s=TIMEOUT_S)
    last = lines_of(config)[-1]
    assert (last.verdict, last.outcome, last.reason, last.by) == ("overridden", AuditOutcome.ANSWERED, "a holiday", "kim")


def test_the_rounds_of_a_day_outlast_a_restart(tmp_path: Path) -> None:
    config = with_policy(tmp_path, rounds_per_day=2)
    with serving(config) as trainer:
        trainer.train(make_request(), make_tensors(), timeout_s=TIMEOUT_S)
    with serving(config) as trainer:
        trainer.train(make_request(), make_tensors(), timeout_s=TIMEOUT_S)
        assert refused(trainer).code is ReasonCode.POLICY_ROUNDS
        trainer.evaluate(make_request(Action.EVALUATE), make_tensors(), timeout_s=TIMEOUT_S)


def test_labels_of_other_heads_are_not_used_and_small_figures_are_left_out(tmp_path: Path) -> None:
    config = with_policy(tmp_path, heads=["segmentation"], patients={"evaluate": 2})
    with serving(config) as trainer:
        description = trainer.describe(make_request(Action.DESCRIBE), timeout_s=TIMEOUT_S)
        report, tensors = trainer.train(make_request(), make_tensors(), timeout_s=TIMEOUT_S)
    assert description.labelled[Task.SEGMENTATION] > 0
    assert description.labelled[Task.IDH] == description.labelled[Task.CODELETION] == 0
    assert report.evaluation is None
    assert not any(name.startswith("heads.idh") for name in tensors)
    assert lines_of(config)[-1].withheld == ("evaluation",)


def test_figures_over_few_of_a_large_split_are_left_out(tmp_path: Path) -> None:
    """Of four validation patients all have a segmentation; the table has a row of two patients at most."""
    config = with_policy(tmp_path, patients={"evaluate": 4, "calibrate": 4})
    config = config.model_copy(update={"data": config.data.model_copy(update={"split": SplitConfig(validation=0.7, test=0.0)})})
    few = config.data.labels
    few.write_text("".join(few.read_text().splitlines(keepends=True)[:3]))
    with serving(config) as trainer:
        report, _ = trainer.train(make_request(), make_tensors(), timeout_s=TIMEOUT_S)
        request = make_request(Action.EVALUATE).model_copy(update={"calibrate": CalibrationQuery(temperatures={})})
        evaluated = trainer.evaluate(request, make_tensors(), timeout_s=TIMEOUT_S)
    for evaluation in (report.evaluation, evaluated.evaluation):
        assert evaluation.cases == 4
        assert set(evaluation.dice) == set(Region)
        assert evaluation.auc == {}
        assert set(evaluation.loss) == {Task.SEGMENTATION}
    assert set(evaluated.calibration.heads) == set(Region)


def test_a_model_is_measured_before_it_is_made(tmp_path: Path) -> None:
    config = with_policy(tmp_path, largest_model={"parameters": 100_000})
    huge = TINY.model_copy(update={"network": NetworkConfig(channels=(64, 4096), blocks=(1, 100_000), transformer_layers=0)})
    with serving(config) as trainer:
        trainer.describe(make_request(Action.DESCRIBE), timeout_s=TIMEOUT_S)
        with pytest.raises(FederationError) as caught:
            trainer.describe(make_request(Action.DESCRIBE, run="run-2", model=huge), timeout_s=TIMEOUT_S)
    assert caught.value.code is ReasonCode.POLICY_MODEL


def test_parameters_are_counted_without_memory() -> None:
    for network in (TINY.network, NetworkConfig(), NetworkConfig(prototypes=2, tasks=tuple(Task))):
        assert count_parameters(network) == sum(value.numel() for value in GmmasNetwork(network).parameters())
    assert count_parameters(NetworkConfig(channels=(2**15, 2**16), blocks=(1, 1), transformer_layers=0)) > 10**11


def test_a_node_whose_log_was_changed_does_not_start(tmp_path: Path) -> None:
    config = with_policy(tmp_path)
    with serving(config):
        pass
    log = NodeFolder(config.node.state).audit_log / NEWEST
    log.write_bytes(log.read_bytes().replace(b"started", b"resumed"))
    with pytest.raises(TrustError, match="not as this node left it") as caught, serving(config):
        pass
    assert "gmmas site audit verify" in caught.value.remedy
