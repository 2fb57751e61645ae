"""The end of a run: the best model is chosen and calibrated, tested, published and registered, and the last one beside it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gmmas_model.weights import Weights
from gmmas_schema.calibration import Calibration, CalibrationQuery
from gmmas_schema.errors import ModelError, ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.privacy import PrivacySpent
from gmmas_schema.vocabulary import Split
from gmmas_workflows.scores import ModelScore, choose_best, score_subsets
from server.calibration import add_test, calibrate_model, calibration_detail, query_for_test, without_sums
from server.checkpoint import RunFolder
from server.events import EventLog
from server.model_card import ModelEvidence
from server.publishing import card_documents, signer_for_run
from server.questions import Questions
from server.records import RunResult, SiteRecord, Tracker

logger = logging.getLogger(__name__)

Float32 = NDArray[np.float32]


class Conclusion:
    """Concludes one run.

    Args:
        folder: the run's folder, with every round finished.
        questions: to the members.
        tracker: is given the models.
        events: is told of each registered model, and of a best one that is lost.
    """

    def __init__(self, folder: RunFolder, questions: Questions, *, tracker: Tracker, events: EventLog) -> None:
        self._folder, self._questions, self._tracker, self._events = folder, questions, tracker, events

    def reach(
        self, tensors: Mapping[str, Float32], rounds: int, *, scores: Sequence[ModelScore], privacy: PrivacySpent | None
    ) -> RunResult:
        """Evaluate the last model, choose the best, calibrate both, test the best, publish and register both.

        Args:
            tensors: the last model, that of round `rounds`.
            rounds: finished rounds.
            scores: validation of the models before it.
            privacy: what the rounds have spent.

        Raises:
            FederationError: too few good answers (code QUORUM).
        """
        last, ledger = self._questions.evaluate(tensors, rounds, Split.VALIDATION)
        scores = [*scores, last]
        best_round = self._choose(scores, rounds)
        best = self._folder.load_round(best_round)
        calibration, asked = self._calibrate(best, best_round)
        wanted = self._folder.config.measure_subsets
        query = query_for_test(calibration)
        test, tests = self._questions.evaluate(best.tensors, best_round, Split.TEST, calibrate=query, subsets=wanted)
        subsets = score_subsets({site.site: site.subsets for site in tests}, model_round=best_round, split=Split.TEST)
        calibration = add_test(calibration, tests)
        # The same model is calibrated once.
        of_last, asked_last = (calibration, ()) if best_round == rounds else self._calibrate(self._folder.load_round(rounds), rounds)
        validation = last if best_round == rounds else self._validation(best_round, scores)
        result = RunResult(
            run=self._folder.run,
            rounds=rounds,
            best_round=best_round,
            model_digest=self._folder.config.model.digest(),
            best_sha256=best.sha256,
            last_sha256=self._folder.load_round(rounds).sha256,
            validation=validation,
            last=last,
            test=test,
            subsets=subsets,
            ledger=(*ledger, *asked, *without_sums(tests), *asked_last),
            privacy=privacy,
        )
        self._register(ModelEvidence("best", replace(best, calibration=calibration), best_round, validation, test, subsets, privacy))
        final = replace(self._folder.load_round(rounds), calibration=of_last)
        if best_round == rounds:
            self._register(ModelEvidence("last", final, rounds, last, test, subsets, privacy))
        else:
            self._register(ModelEvidence("last", final, rounds, last, privacy=privacy))
        return result

    def _choose(self, scores: Sequence[ModelScore], rounds: int) -> int:
        """Return the round of the best model that is there, and say so where a better one is not."""
        best, there = (choose_best(each, fallback=rounds) for each in (scores, self._folder.kept(scores)))
        if best != there:
            message = f"the best model, of round {best}, is not in the run's folder any more; that of round {there} is taken for it"
            logger.warning("%s", message)
            self._events.emit(EventKind.MODEL_UNREADABLE, round=best, code=ReasonCode.MODEL, message=message)
        return there

    def _validation(self, model_round: int, scores: Sequence[ModelScore]) -> ModelScore | None:
        """Return the validation of a model from the record of the round after; where that is lost, the means, which are remembered."""
        try:
            return self._folder.read_record(model_round + 1).validation
        except ModelError as error:
            logger.warning("of the best model's validation the means alone are left: %s", error)
            return next((score for score in scores if score.model_round == model_round), None)

    def _calibrate(self, weights: Weights, model_round: int) -> tuple[Calibration | None, tuple[SiteRecord, ...]]:
        """Return a model's calibration, or None where the run plans none, and what the asking cost."""
        plan = self._folder.config.calibration
        if plan is None:
            return None, ()

        def ask(split: Split, query: CalibrationQuery) -> tuple[SiteRecord, ...]:
            return self._questions.evaluate(weights.tensors, model_round, split, calibrate=query)[1]

        return calibrate_model(ask, weights_sha256=weights.sha256, plan=plan)

    def _register(self, model: ModelEvidence) -> None:
        """Publish a model with its card, register it and tell of it."""
        weights_folder = self._folder.publish_model(
            model.kind,
            round=model.round,
            calibration=model.weights.calibration,
            documents=card_documents(self._folder, model),
            signer=signer_for_run(self._folder.path),
        )
        metrics = model.validation.metrics if model.validation else {}
        version = self._tracker.register(model.kind, weights_folder, round=model.round, metrics=metrics)
        detail = {"kind": model.kind, "version": version, "calibration": calibration_detail(model.weights.calibration)}
        self._events.emit(EventKind.MODEL_REGISTERED, round=model.round, detail=detail)
