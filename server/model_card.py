"""Making the model card of a run's model from what the run has on disk: records of rounds, events, ledger, calibration, scores.

gmmas_schema.model_card says what a card is. Everything here is read, nothing assumed: what the run did not measure is left out of the card.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Literal

from gmmas_model.weights import Weights
from gmmas_schema.errors import ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.federation import FederationConfig
from gmmas_schema.manifest import CARD_FILE
from gmmas_schema.messages import Evaluation
from gmmas_schema.model_card import CostCard, DataCard, ModelCard, PrivacyCard, SiteCard, SplitAccuracy, TrainingCard
from gmmas_schema.privacy import PrivacySpent
from gmmas_schema.vocabulary import Modality, Split, Task
from gmmas_workflows.scores import ModelScore
from server.card_counts import SiteCounts, ToldCounts, told_counts
from server.card_figures import describe_accuracy, describe_calibration, intervals_of, order_of, rounded, tell_count
from server.card_limits import known_limits, unmeasured
from server.checkpoint import RunFolder
from server.events import read_events
from server.ledger import add_up, read_ledger
from server.records import Outcome, RoundRecord

LABELS: Final = {
    Task.SEGMENTATION: "nested regions WT, TC, ET after BraTS (Menze et al. 2015); label maps of every public convention are translated",
    Task.IDH: "IDH mutant or wildtype",
    Task.CODELETION: "1p/19q codeleted or not",
    Task.GRADE: "WHO grade 2 against 3 and 4",
    Task.MGMT: "MGMT promoter methylated or not",
}

_PACKAGES: Final = ("gmmas-fed", "flwr", "mlflow", "numpy", "safetensors")


@dataclass(frozen=True)
class ModelEvidence:
    """What is known of one model of a run beside what its folder tells.

    Attributes:
        weights: with the calibration, if there is one.
        round: that made them.
        validation: of these weights.
        test: of these weights; None where they were not tested.
        subsets: the same by the sequences shown; empty where the run did not measure that.
        privacy: what the whole run spent.
    """

    kind: Literal["best", "last"]
    weights: Weights
    round: int
    validation: ModelScore | None = None
    test: ModelScore | None = None
    subsets: Mapping[str, ModelScore] = field(default_factory=dict)
    privacy: PrivacySpent | None = None


@dataclass
class _Part:
    """One site's part in the run, gathered over its rounds."""

    modalities: tuple[Modality, ...] = ()
    cases: int = 0
    labelled: dict[Task, int] = field(default_factory=dict)
    rounds: int = 0
    asked: int = 0
    refused: Counter[ReasonCode] = field(default_factory=Counter)
    software: set[str] = field(default_factory=set)


def make_card(folder: RunFolder, evidence: ModelEvidence, *, pseudonyms: Mapping[str, str]) -> ModelCard:
    """Return the card of a model.

    Args:
        folder: of the run.
        evidence: the model and its scores.
        pseudonyms: of every site that took part, by name.
    """
    config, weights = folder.config, evidence.weights
    parts, seconds = _gather(folder)
    named = {pseudonyms[site]: part for site, part in sorted(parts.items(), key=lambda entry: order_of(pseudonyms[entry[0]]))}
    tested = {} if evidence.test is None else {pseudonyms[site]: own for site, own in evidence.test.sites.items()}
    told = told_counts({site: _counts(part, tested.get(site)) for site, part in named.items() if part.rounds})
    validation = test = None
    if evidence.validation is not None:
        validation = SplitAccuracy(split=Split.VALIDATION, mean=rounded(evidence.validation.metrics))
    if evidence.test is not None:
        held = {site: part.modalities for site, part in named.items()}
        shown = {name: {pseudonyms[site]: own for site, own in score.sites.items()} for name, score in evidence.subsets.items()}
        test = describe_accuracy(evidence.test.metrics, tested, held, told, subsets=shown)
    card = ModelCard(
        name=config.tracking.registered_model,
        kind=evidence.kind,
        round=evidence.round,
        weights=weights.sha256,
        model_digest=weights.definition.digest(),
        definition=weights.definition,
        parameters=sum(int(value.size) for value in weights.tensors.values()),
        made_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        software={name: found for name in _PACKAGES if (found := _installed(name))},
        training=_training(folder, config, evidence.privacy),
        data=_data(named, told, config),
        validation=validation,
        test=test,
        calibration=describe_calibration(weights.calibration),
        calibration_patients={} if weights.calibration is None else {s: tell_count(n) for s, n in weights.calibration.patients.items()},
        cost=_cost(folder, seconds),
    )
    return card.model_copy(update={"limits": known_limits(card, trained=weights.trained), "not_measured": unmeasured(card)})


def read_card(folder: Path) -> ModelCard | None:
    """Return the card beside a model, or None where there is none.

    Raises:
        ConfigError: it is damaged.
    """
    path = folder / CARD_FILE
    return ModelCard.from_yaml(path) if path.exists() else None


def _gather(folder: RunFolder) -> tuple[dict[str, _Part], float]:
    """Return each site's part, and the seconds of all finished rounds; one record is held at a time."""
    parts: dict[str, _Part] = {}
    seconds = 0.0
    for number in folder.finished_rounds():
        if number > 0:
            record: RoundRecord = folder.read_record(number)
            seconds += record.seconds
            _add_round(parts, record)
    for event in read_events(folder.events_path, kinds={EventKind.SITE_JOINED, EventKind.SITE_REFUSED}):
        if event.site is None:
            continue
        part = parts.setdefault(event.site, _Part())
        if event.kind is EventKind.SITE_REFUSED and event.code is not None:
            part.refused[event.code] += 1
        elif software := event.detail.get("software"):
            part.software.add(str(software))
    return parts, seconds


def _add_round(parts: dict[str, _Part], record: RoundRecord) -> None:
    for site in record.sites:
        part = parts.setdefault(site.site, _Part())
        part.asked += 1
        if site.outcome is not Outcome.ACCEPTED:
            part.refused[site.code or ReasonCode.INTERNAL] += 1
            continue
        part.rounds += 1
        part.modalities, part.cases, part.labelled = site.modalities, site.cases, dict(site.labelled)


def _counts(part: _Part, evaluation: Evaluation | None) -> SiteCounts:
    tested = {} if evaluation is None else {name: interval.n for name, interval in intervals_of(evaluation).items() if interval.n}
    return SiteCounts(part.modalities, part.cases, part.labelled, tested)


def _training(folder: RunFolder, config: FederationConfig, spent: PrivacySpent | None) -> TrainingCard:
    robustness = config.robustness.model_dump(mode="json", exclude_none=True)
    wire = config.wire
    return TrainingCard(
        run=folder.run,
        rounds=max(folder.finished_rounds(), default=0),
        planned_rounds=config.rounds,
        seed=config.seed,
        configuration=config.digest(),
        strategy=_worded(config.strategy.model_dump(mode="json")),
        server_step=_worded(config.server_step.model_dump(mode="json")),
        robustness=_worded(robustness),
        wire=f"down {wire.down}, up {wire.up}" + (f", the largest {wire.top_k:g} of the changes" if wire.top_k is not None else ""),
        secure=config.secure is not None,
        privacy=None
        if spent is None
        else PrivacyCard.model_validate(spent.model_dump(include={"epsilon", "delta", "noise_multiplier", "clip_norm", "releases"})),
        personalised=config.training.personalised != "none",
        semi_supervised=config.training.semi_supervised is not None,
    )


def _worded(settings: Mapping[str, object]) -> str:
    """Return settings as `kind, key value, key value`."""
    words = [str(settings["kind"])] if "kind" in settings else []
    for key, value in settings.items():
        if key != "kind":
            words.append(f"{key} ({_worded(value)})" if isinstance(value, Mapping) else f"{key} {value}")
    return ", ".join(words)


def _data(named: Mapping[str, _Part], told: ToldCounts, config: FederationConfig) -> DataCard:
    took_part = {site: part for site, part in named.items() if part.rounds}
    listed = {
        site: SiteCard(
            modalities=part.modalities,
            cases=told.site_cases.get(site),
            labelled=told.site_labelled.get(site, {}),
            rounds=part.rounds,
            asked=part.asked,
            refused=dict(sorted(part.refused.items())),
            software=tuple(sorted(part.software)),
        )
        for site, part in took_part.items()
        if site in told.site_cases
    }
    return DataCard(
        sites=len(took_part),
        cases=told.cases if took_part else None,
        labelled=told.labelled,
        coverage=told.coverage,
        by_site=listed,
        labels={task: LABELS[task] for task in config.model.network.tasks},
        exclusions=tuple(_exclusions(named)),
    )


def _exclusions(named: Mapping[str, _Part]) -> Iterable[str]:
    """Yield what was left out of the model, in words."""
    for site, part in named.items():
        if not part.rounds:
            codes = ", ".join(sorted(part.refused)) or "no reason told"
            yield f"{site} took no part: none of its answers counted ({codes})"
        elif missed := part.asked - part.rounds:
            codes = ", ".join(f"{code} {count}" for code, count in sorted(part.refused.items()))
            yield f"{site}: {missed} of {part.asked} rounds without it ({codes})"


def _cost(folder: RunFolder, round_seconds: float) -> CostCard:
    """Return what the ledger says of the run so far."""
    entries = read_ledger(folder.events_path)
    started = read_events(folder.events_path, kinds={EventKind.RUN_STARTED})
    ended = read_events(folder.events_path, kinds={EventKind.RUN_FINISHED})
    until = ended[0].time if ended else datetime.now(UTC).timestamp()
    sites, own = add_up(e for e in entries if e.site is not None), add_up(e for e in entries if e.site is None)
    return CostCard(
        hours=round((until - started[0].time) / 3600, 3) if started else None,
        round_hours=round(round_seconds / 3600, 3),
        bytes_down=sites.bytes_down if entries else None,
        bytes_up=sites.bytes_up if entries else None,
        site_cpu_hours=round(sites.cpu_seconds / 3600, 3) if sites.cpu_seconds else None,
        coordinator_cpu_hours=round(own.cpu_seconds / 3600, 3) if own.cpu_seconds else None,
        site_peak_memory_mib=round(sites.peak_memory_mib) if sites.peak_memory_mib else None,
        coordinator_peak_memory_mib=round(own.peak_memory_mib) if own.peak_memory_mib else None,
    )


def _installed(package: str) -> str:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return ""
