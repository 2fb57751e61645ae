"""Promoting a registered version: the gate's findings, the alias in MLflow, and a record of both that stays.

The record is an artifact of the run that made the version (`promotions/`), short in the version's tags (`promoted/<alias>`,
`override/<alias>`), and an event in that run's own feed, as far as its folder is on this machine.
"""

import getpass
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gmmas_runtime.manifest import Standing
from gmmas_schema.errors import ConfigError, GmmasError, ModelError, TrustError
from gmmas_schema.events import EventKind
from gmmas_schema.promotion import GateFinding, GateRules, Promotion, Verdict
from gmmas_schema.validation import ValidationMatrix
from server.checkpoint import RunFolder
from server.events import EventLog
from server.gate import judge
from server.publishing import coordinator_of
from server.registry import ModelVersion, Registry

RESERVED: Final = frozenset({"best", "last"})
"""Aliases that runs set."""


@dataclass(frozen=True)
class Assessment:
    """What the gate says of a promotion before it is made.

    Attributes:
        candidate: the version in question; `champion` the present holder, None for the first.
        matrix: what the findings rest on; None for the first.
    """

    candidate: ModelVersion
    champion: ModelVersion | None
    matrix: ValidationMatrix | None
    findings: tuple[GateFinding, ...]

    @property
    def holds(self) -> bool:
        """Whether no check failed."""
        return not any(found.verdict is Verdict.FAILS for found in self.findings)


def assess(
    registry: Registry,
    candidate: ModelVersion,
    alias: str,
    *,
    rules: GateRules,
    authority: Path | None = None,
    evidence: ValidationMatrix | None = None,
) -> Assessment:
    """Judge whether a version may take an alias.

    Args:
        registry: the store.
        candidate: the version.
        alias: in question.
        rules: margins.
        authority: certificate under which it must be signed; by default that of the coordinator which made it, where its folder is here.
        evidence: a validation that measured both; by default the newest in the store.

    Raises:
        ConfigError: the alias is one that runs set, or no validation measured both.
    """
    if alias in RESERVED:
        raise ConfigError(
            "this alias is set by runs themselves",
            where="gmmas model promote",
            got=alias,
            expected="another name, for instance champion",
            remedy="choose another alias",
        )
    champion = registry.holder(candidate.name, alias)
    signature = _judge_signature(registry, candidate, authority)
    if champion is None:
        return Assessment(candidate, None, None, (signature,))
    if champion.weights == candidate.weights:
        return Assessment(
            candidate, champion, None, (signature, GateFinding(subject="weights", verdict=Verdict.HOLDS, note="the same weights"))
        )
    matrix = evidence or next(registry.matrices([champion.weights, candidate.weights]), None)
    rows = (None, None) if matrix is None else (matrix.row_of(champion.weights), matrix.row_of(candidate.weights))
    if matrix is None or rows[0] is None or rows[1] is None:
        raise _no_evidence(champion, candidate)
    return Assessment(candidate, champion, matrix, (signature, *judge(rows[0], rows[1], rules, reference=matrix.rows[0])))


def promote(
    registry: Registry, assessment: Assessment, alias: str, *, rules: GateRules, override: str = "", by: str | None = None
) -> Promotion:
    """Give the alias, and keep the record.

    Args:
        registry: the store.
        assessment: of this promotion.
        alias: to give.
        rules: that were judged by.
        override: why, where the gate does not hold.
        by: who; by default the account of this process.

    Raises:
        ModelError: the gate does not hold and there is no override.
    """
    candidate, champion = assessment.candidate, assessment.champion
    if not assessment.holds and not override.strip():
        raise _refused(assessment, alias)
    record = Promotion(
        model=candidate.name,
        alias=alias,
        version=candidate.version,
        replaced="" if champion is None else champion.version,
        weights=candidate.weights,
        rules=rules,
        findings=assessment.findings,
        evidence="" if assessment.matrix is None else assessment.matrix.validation,
        override="" if assessment.holds else override.strip(),
        by=by or getpass.getuser(),
        at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    # The record first: an alias without a record would be worse than a record of an alias that was not given.
    registry.log(candidate.run, record.model_dump(mode="json"), f"promotions/{alias}-{record.at.replace(':', '')}.json")
    tags = {f"promoted/{alias}": f"{record.at} by {record.by}, evidence {record.evidence or 'none: the first'}"}
    if record.override:
        tags[f"override/{alias}"] = f"{record.at} by {record.by}: {record.override}"
    registry.give_alias(candidate, alias, tags=tags)
    _tell(candidate, record)
    return record


def _tell(candidate: ModelVersion, record: Promotion) -> None:
    """Note the promotion in the feed of the run that made the model."""
    if candidate.folder is None:
        return
    failed = ", ".join(f"{found.subject} {found.site}".strip() for found in record.failed)
    message = f"{candidate.address} is {record.alias} now" + (f", although {failed} failed: {record.override}" if record.override else "")
    events = EventLog(RunFolder.open(candidate.folder).events_path)
    try:
        detail = record.model_dump(mode="json", exclude={"findings", "rules"}) | {
            "failed": [f.model_dump(mode="json") for f in record.failed]
        }
        events.emit(EventKind.MODEL_PROMOTED, round=candidate.round, message=message, detail=detail)
    finally:
        events.close()


def _judge_signature(registry: Registry, candidate: ModelVersion, authority: Path | None) -> GateFinding:
    """Return whether the version's artifact is the one that its coordinator signed."""
    from gmmas_workflows.model_source import open_model

    if authority is None and candidate.folder is not None:
        coordinator = coordinator_of(candidate.folder)
        authority = None if coordinator is None else coordinator.authority_certificate
    try:
        opened = open_model(candidate.address, tracking_uri=registry.uri, authority=authority)
    except TrustError as error:
        return GateFinding(subject="signature", verdict=Verdict.FAILS, note=error.brief())
    except GmmasError as error:
        return GateFinding(subject="signature", verdict=Verdict.FAILS, note=f"the artifact cannot be read: {error.what}")
    if opened.weights.sha256 != candidate.weights:
        return GateFinding(subject="signature", verdict=Verdict.FAILS, note="the artifact holds other weights than its version says")
    if opened.origin.standing in (Standing.SIGNED, Standing.VOUCHED):
        note = opened.origin.standing + (f" ({opened.origin.signer})" if opened.origin.signer else "")
        if opened.origin.standing is Standing.SIGNED:
            note += ", by whom no authority was at hand to tell"
        return GateFinding(subject="signature", verdict=Verdict.HOLDS, note=note)
    return GateFinding(subject="signature", verdict=Verdict.FAILS, note=str(opened.origin.standing))


def _no_evidence(champion: ModelVersion, candidate: ModelVersion) -> ConfigError:
    return ConfigError(
        "no validation has measured both models",
        where=candidate.address,
        got="no matrix with both in the store",
        expected=f"a cross-site validation of {champion.address} and {candidate.address}",
        remedy=f"gmmas validate {champion.address} {candidate.address} --out FOLDER --tracking-uri STORE, or name one by --evidence",
    )


def _refused(assessment: Assessment, alias: str) -> ModelError:
    failed = [found for found in assessment.findings if found.verdict is Verdict.FAILS]
    first = "; ".join(" ".join(filter(None, [found.subject, found.site and f"at {found.site}", found.note])) for found in failed[:3])
    return ModelError(
        f"the gate does not let this model become {alias}",
        where=assessment.candidate.address,
        got=f"{len(failed)} checks failed: {first}",
        expected="no check that fails",
        remedy="train on, or override with a reason that stays in the registry: --override REASON",
    )
