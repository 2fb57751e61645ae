"""Training without a federation, from nothing to a tested model: rounds, one checkpoint each, early stop, the best model on test cases.

One round: 1. train on all cohorts' cases together, 2. validate each cohort by itself, as its hospital would in a federation,
3. checkpoint, 4. tell tracker and watcher, 5. stop if the score has stalled. Everything a round does follows from the seed, the round
and the model before it, so a run that was killed anywhere goes on from its last checkpoint to the very weights of an unbroken one (same
device, same number of threads).

Only validation cases choose the best model and the moment to stop. Test cases are looked at once, after the last round.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from itertools import chain
from typing import Literal

import torch

from gmmas_data.samples import Sample
from gmmas_model.determinism import deterministic
from gmmas_model.initialisation import initial_tensors
from gmmas_model.temperature_fit import calibrate_weights, merge_statistics, with_test
from gmmas_model.weights import Weights
from gmmas_runtime.memory import peak_memory_mib
from gmmas_schema.calibration import Calibration, CalibrationQuery, CalibrationStatistics
from gmmas_schema.messages import Action, SiteReport, Target, TaskRequest
from gmmas_schema.vocabulary import MODALITIES, Modality, Split
from gmmas_workflows.cohorts import Cohort
from gmmas_workflows.local_evaluation import Tensors
from gmmas_workflows.local_rounds import local_rounds
from gmmas_workflows.scores import ModelScore, choose_best, has_stalled, score_model
from gmmas_workflows.train_folder import TrainFolder, TrainResult, TrainRound, TrainTracker
from gmmas_workflows.train_watch import TrainWatch
from gmmas_workflows.training import LocalTrainer
from strategies.exchange import tensors_down
from strategies.readiness import targets_ready

LoadCohorts = Callable[[], Sequence[Cohort]]


def run_training(
    folder: TrainFolder, load_cohorts: LoadCohorts, *, tracker: TrainTracker | None = None, watch: TrainWatch | None = None
) -> TrainResult:
    """Run what is left of a training; one that has finished is returned as it is.

    Args:
        folder: the training.
        load_cohorts: returns the cohorts of the configuration, in its order; asked only if something is left to do.
        tracker: is told the rounds, the models and the result; may hear a thing twice after a resume.
        watch: is told steps, evaluations and rounds.

    Raises:
        FederationError: another process is at work on this training.
        DataError: the cohorts cannot be trained on.
        ModelError: the last checkpoint is damaged, or the training diverged.
        KeyboardInterrupt: the finished rounds are safe.
    """
    with folder.hold():
        return _Run(folder, load_cohorts, tracker=tracker, watch=watch or TrainWatch()).finish()


class _Run:
    """A training in progress."""

    def __init__(self, folder: TrainFolder, load_cohorts: LoadCohorts, *, tracker: TrainTracker | None, watch: TrainWatch) -> None:
        self._folder, self._load_cohorts, self._tracker, self._watch = folder, load_cohorts, tracker, watch
        self._config = folder.config
        self._records = folder.read_records()
        self._judges: dict[str, tuple[LocalTrainer, Cohort]] = {}
        self._is_tracked = False

    def finish(self) -> TrainResult:
        """Do what is left and return the result."""
        result = self._folder.read_result()
        if result is None:
            cohorts = self._load_cohorts()
            with self._tracked():
                result = self._train_and_test(cohorts)
                self._folder.write_result(result)
        with self._tracked():
            if self._tracker is not None:
                self._tracker.log_result(result)
                self._tracker.finish("FINISHED")
        return result

    @contextmanager
    def _tracked(self) -> Iterator[None]:
        """Open the run in the tracker, once; tell it of a failure or an interruption inside."""
        if self._tracker is None or self._is_tracked:
            yield
            return
        self._tracker.start(self._config.model_dump(mode="json") | {"run": self._folder.run})
        self._is_tracked = True
        try:
            yield
        except BaseException as error:
            self._tracker.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise

    def _train_and_test(self, cohorts: Sequence[Cohort]) -> TrainResult:
        # Before the trainers, which set the number of threads: a resumed run must sum in the same order.
        if not self._folder.finished_rounds():
            self._folder.write_round(initial_tensors(self._config.model.network, seed=self._config.seed), record=None)
        trainer = self._make_trainer(self._config.site, cohorts)
        # A sequence that no training case has is no help to the cases that have it: its encoder stays as it began.
        self._judges = {each.name: (self._make_trainer(each.name, [each], among=trainer.modalities), each) for each in cohorts}
        self._watch.begin(trainer.describe(), self._records, device=_device_name(trainer.device))
        with deterministic(trainer.device):
            if not self._has_stalled():
                self._train(trainer)
            return self._conclude()

    def _make_trainer(self, site: str, cohorts: Sequence[Cohort], *, among: Collection[Modality] = MODALITIES) -> LocalTrainer:
        offered = {m for cohort in cohorts for m in cohort.modalities} & set(among)
        return LocalTrainer(
            self._config.model,
            {split: tuple(chain.from_iterable(_named_apart(cohort, split) for cohort in cohorts)) for split in Split},
            modalities=tuple(m for m in MODALITIES if m in offered),
            site=site,
            device=self._config.device,
            threads=self._config.threads,
        )

    def _train(self, trainer: LocalTrainer) -> None:
        """Make the rounds that are left, or as many as early stopping lets through."""
        done = self._folder.finished_rounds()[-1]
        tensors = self._folder.load_round(done).tensors
        rounds = local_rounds(
            trainer,
            tensors,
            self._config.training,
            rounds=self._config.rounds,
            seed=self._config.seed,
            run=self._folder.run,
            done=done,
            ready=self._ready,
            on_progress=self._watch.step,
        )
        started_at, start = time.time(), time.perf_counter()
        for made in rounds:
            # Encoders of sequences that nobody has stay as they began, as in a federation.
            tensors = tensors | made.tensors
            validation = self._validate(tensors, made.report.round)
            seconds = time.perf_counter() - start
            self._keep(tensors, self._record(made.report, validation, trainer, started_at=started_at, seconds=seconds))
            if self._has_stalled():
                return
            started_at, start = time.time(), time.perf_counter()

    def _record(
        self, report: SiteReport, validation: ModelScore | None, trainer: LocalTrainer, *, started_at: float, seconds: float
    ) -> TrainRound:
        return TrainRound(
            run=self._folder.run,
            round=report.round,
            rounds=self._config.rounds,
            started_at=started_at,
            seconds=seconds,
            validation=validation,
            model_sha256="",
            peak_memory_mib=peak_memory_mib(),
            training=report,
            samples_per_s=report.steps * self._config.training.batch_size / max(report.seconds.get("train", 0.0), 1e-9),
            device=_device_name(trainer.device),
        )

    def _keep(self, tensors: Tensors, record: TrainRound) -> None:
        """Checkpoint a round, then tell of it, then delete models that nothing needs any more."""
        record = self._folder.write_round(tensors, record=record) or record
        self._records.append(record)
        if self._tracker is not None:
            self._tracker.log_round(record)
        self._watch.round(record)
        self._folder.prune_models(keep={choose_best(self._scores(), fallback=record.round)})

    def _conclude(self) -> TrainResult:
        """Choose the best model, test it, publish and register it and the last one."""
        scores, last = self._scores(), self._records[-1]
        best_round = choose_best(scores, fallback=last.round)
        best = self._folder.load_round(best_round)
        calibration = self._calibrate(best, best_round)
        query = None if calibration is None else CalibrationQuery(temperatures=calibration.temperatures)
        test, sums = self._measure(best.tensors, best_round, Split.TEST, query)
        calibration = None if calibration is None else with_test(calibration, merge_statistics(sums)[0])
        of_last = calibration if best_round == last.round else self._calibrate(self._folder.load_round(last.round), last.round)
        of_round = {score.model_round: score for score in scores}
        self._publish("best", best_round, of_round.get(best_round), calibration)
        self._publish("last", last.round, of_round.get(last.round), of_last)
        return TrainResult(
            run=self._folder.run,
            rounds=last.round,
            best_round=best_round,
            model_digest=self._config.model.digest(),
            best_sha256=best.sha256,
            last_sha256=last.model_sha256,
            validation=of_round.get(best_round),
            last=of_round.get(last.round),
            test=test,
            planned_rounds=self._config.rounds,
            stopped_early=last.round < self._config.rounds,
            seconds=math.fsum(record.seconds for record in self._records),
            steps=sum(record.training.steps for record in self._records),
            device=last.device,
            software=version("gmmas-fed"),
        )

    def _calibrate(self, weights: Weights, number: int) -> Calibration | None:
        """Return the calibration of model `number`, or None where none is planned."""
        plan = self._config.calibration
        if plan is None:
            return None

        def ask(split: Split, query: CalibrationQuery) -> list[CalibrationStatistics]:
            return self._measure(weights.tensors, number, split, query)[1]

        return calibrate_weights(ask, weights_sha256=weights.sha256, plan=plan)

    def _publish(self, kind: Literal["best", "last"], number: int, score: ModelScore | None, calibration: Calibration | None) -> None:
        weights_folder = self._folder.publish_model(kind, round=number, calibration=calibration)
        if self._tracker is not None:
            self._tracker.register(kind, weights_folder, round=number, metrics=score.metrics if score else {})

    def _validate(self, tensors: Tensors, number: int) -> ModelScore | None:
        """Return the validation of model `number` if it is its turn."""
        if number % self._config.validate_every and number < self._config.rounds:
            return None
        return self._score(tensors, number, Split.VALIDATION)

    def _score(self, tensors: Tensors, number: int, split: Split) -> ModelScore | None:
        """Return a model's accuracy on the cohorts that have cases in the split."""
        return self._measure(tensors, number, split, None)[0]

    def _measure(
        self, tensors: Tensors, number: int, split: Split, query: CalibrationQuery | None
    ) -> tuple[ModelScore | None, list[CalibrationStatistics]]:
        """Return a model's accuracy, and the sums a query asks for, on the cohorts with such cases, each measured as at its hospital."""
        request = TaskRequest(
            action=Action.EVALUATE,
            run=self._folder.run,
            round=number,
            rounds=self._config.rounds,
            seed=self._config.seed,
            model=self._config.model,
            plan=self._config.training,
            evaluate=split,
            calibrate=query,
        )
        counts = {name: len(cohort.samples[judge.source_of(split)]) for name, (judge, cohort) in self._judges.items()}
        total, before, evaluations, sums = sum(counts.values()), 0, {}, []
        for name, (judge, _) in self._judges.items():
            if not counts[name]:
                continue

            def report(done: int, _: int, before: int = before) -> None:
                self._watch.evaluate(split, before + done, total)

            received = tensors_down(tensors, modalities=judge.modalities)
            evaluations[name], own = judge.measure(received, request, on_progress=report)
            sums += [own] if own is not None else []
            before += counts[name]
        return score_model(evaluations, model_round=number, split=split) if evaluations else None, sums

    def _scores(self) -> list[ModelScore]:
        return [record.validation for record in self._records if record.validation is not None]

    def _has_stalled(self) -> bool:
        rule = self._config.early_stop
        return rule is not None and has_stalled(self._scores(), patience=rule.patience, min_delta=rule.min_delta)

    def _ready(self) -> Mapping[Target, float]:
        return targets_ready([score.metrics for score in self._scores()], self._config.training.semi_supervised)


def _named_apart(cohort: Cohort, split: Split) -> Iterator[Sample]:
    """Yield a cohort's samples under names that no other cohort has: hospitals may number their cases and patients alike."""
    for sample in cohort.samples[split]:
        yield replace(sample, case_id=f"{cohort.name}/{sample.case_id}", patient_id=f"{cohort.name}/{sample.patient_id}")


def _device_name(device: torch.device) -> str:
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type
