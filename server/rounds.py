"""The run: rounds of training, one checkpoint each, then the best model on the sites' test cases. Resuming is running again.

One round: 1. wait for members, 2. send each the groups it holds, 3. check and fold replies as they come, 4. with a quorum make the
next model, 5. checkpoint, 6. tell the tracker. Everything a round does follows from the seed, the round and the model before it, so a
run that was killed anywhere goes on from its last checkpoint to the very weights of an unbroken one (same replies, same sites).
"""

import logging
import time
from collections.abc import Mapping
from contextlib import closing
from types import MappingProxyType
from typing import Literal

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from gmmas_model.weights import Weights
from gmmas_runtime.memory import peak_memory_mib
from gmmas_runtime.stopwatch import Stopwatch
from gmmas_schema.calibration import Calibration, CalibrationQuery
from gmmas_schema.errors import FederationError, ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.messages import Action, Evaluation, SiteReport, Target, TaskRequest
from gmmas_schema.vocabulary import Split
from gmmas_workflows.scores import ModelScore, choose_best, score_model
from server.calibration import add_test, calibrate_model, calibration_detail, query_for_test, without_sums
from server.checkpoint import RunFolder
from server.courier import Courier, Timing
from server.events import EventLog, read_events
from server.initial_model import make_initial_model
from server.judgement import Judge
from server.membership import Member, Roster
from server.records import Outcome, RoundRecord, RunResult, SiteRecord, Tracker
from server.replies import Enquiry
from server.secure_round import SecureReplies
from strategies.aggregation import Aggregate
from strategies.anchors import settle_anchors
from strategies.readiness import pseudo_weights, targets_ready
from strategies.rows import join_rows, split_rows
from strategies.server_step import Step, make_step
from strategies.uncertainty import closed_form_tensors
from strategies.weighting import choose_weighting, splits_rows
from strategies.wire import Holdings

logger = logging.getLogger(__name__)

Float32 = NDArray[np.float32]
Tensors = Mapping[str, Float32]


def run_federation(grid: Grid, folder: RunFolder, *, tracker: Tracker, events: EventLog, timing: Timing | None = None) -> RunResult:
    """Run a federated run to its end, from wherever its folder says it is.

    Args:
        grid: the way to the nodes.
        folder: the run's folder; a finished run is returned as it is.
        tracker: is told every round, the models and the result; may hear a thing twice after a resume.
        events: the run's event log.
        timing: clock and polling.

    Raises:
        FederationError: too few sites, or too few good replies in every attempt (code QUORUM). Run again to resume.
        ModelError: the last checkpoint is damaged.
    """
    return _Run(grid, folder, tracker=tracker, events=events, timing=timing or Timing()).finish()


class _Run:
    """A run in progress."""

    def __init__(self, grid: Grid, folder: RunFolder, *, tracker: Tracker, events: EventLog, timing: Timing) -> None:
        self._folder, self._tracker, self._events, self._timing = folder, tracker, events, timing
        self._config = folder.config
        self._courier = Courier(grid, timing)
        self._holdings = Holdings()
        self._judge = Judge(folder, events=events)
        self._roster = Roster(self._courier, request=self._request(Action.DESCRIBE, 0), events=events)
        self._scores: list[ModelScore] = []
        self._watch = Stopwatch()
        self._state: Tensors = {}

    def finish(self) -> RunResult:
        """Do what is left of the run and return its result."""
        self._tracker.start(self._config.model_dump(mode="json") | {"run": self._folder.run})
        result = self._folder.read_result()
        if result is None:
            result = self._train_and_evaluate()
            self._folder.write_result(result)
        self._tracker.log_result(result)
        if not read_events(self._folder.events_path, kinds={EventKind.RUN_FINISHED}):
            self._events.emit(EventKind.RUN_FINISHED, round=result.rounds, detail=_summary(result) | self._cost())
        self._tracker.finish("FINISHED")
        return result

    def _train_and_evaluate(self) -> RunResult:
        done = self._begin()
        quorum = self._config.quorum
        self._roster.wait_for(quorum.sites, timeout_s=quorum.join_deadline_s)
        tensors: Tensors = self._folder.load_round(done).tensors
        previous: Tensors | None = self._folder.load_round(done - 1).tensors if done > 0 else None
        self._state = self._folder.load_state(done)
        for number in range(done + 1, self._judge.rounds + 1):
            if not self._judge.affords(number):
                break
            previous, tensors = tensors, self._train_round(number, tensors, previous)
            done = number
        return self._conclude(tensors, done)

    def _begin(self) -> int:
        """Return the last finished round: 0 for a new run, whose start is made here."""
        finished = self._folder.finished_rounds()
        self._judge.plan(finished=max(finished, default=0))
        detail = {"run": self._folder.run, "name": self._config.name, "rounds": self._judge.rounds, "privacy": self._spent()}
        if not finished:
            self._folder.write_round(make_initial_model(self._config), record=None)
            self._events.emit(EventKind.RUN_STARTED, round=0, detail=detail)
            return 0
        # The crash may have come after a checkpoint and before the event log or the tracker heard of it.
        told = {event.round for event in read_events(self._folder.events_path, kinds={EventKind.ROUND_FINISHED})}
        for record in (self._folder.read_record(number) for number in finished if number > 0):
            self._note(record)
            self._announce(record, emit=record.round not in told)
        self._events.emit(EventKind.RUN_RESUMED, round=finished[-1], detail=detail)
        return finished[-1]

    def _train_round(self, number: int, tensors: Tensors, previous: Tensors | None) -> Tensors:
        """Run one round until it counts, write it down and return the next model."""
        quorum = self._config.quorum
        ready = targets_ready([score.metrics for score in self._scores], self._config.training.semi_supervised)
        for attempt in range(1, quorum.round_attempts + 1):
            with self._watch.stage("wait"):
                members = self._roster.wait_for(quorum.replies, timeout_s=quorum.join_deadline_s)
            started_at, start = time.time(), self._timing.clock()
            self._events.emit(
                EventKind.ROUND_STARTED,
                round=number,
                detail={"attempt": attempt, "sites": [member.site for member in members], "ready": ready},
            )
            descriptions = [member.description for member in members]
            secure = self._begin_secure(tensors, members, attempt)
            replies = secure or self._judge.begin(self._rows(tensors), number=number, descriptions=descriptions, ready=ready)
            with closing(replies):
                with self._watch.stage("ask"):
                    sites = self._ask(members, Action.TRAIN, number, tensors, split=Split.VALIDATION, replies=replies, ready=ready)
                with self._watch.stage("judge"):
                    sites, verdict = self._judge.decide(replies, sites, number=number)
                if not self._enough(sites, number, attempt):
                    continue
                with self._watch.stage("step"):
                    self._judge.book(number)
                    step, shares = self._step(replies, tensors, previous, sites), replies.shares()
            record = RoundRecord(
                run=self._folder.run,
                round=number,
                rounds=self._judge.rounds,
                attempt=attempt,
                started_at=started_at,
                seconds=self._timing.clock() - start,
                sites=tuple(site.model_copy(update={"shares": shares.get(site.site, {})}) for site in sites),
                ready=ready,
                combined=dict(verdict.combined),
                privacy=self._judge.spent(),
                validation=score_model(_evaluations(sites), model_round=number - 1, split=Split.VALIDATION),
                personalised=_personalised(sites, model_round=number - 1),
                model_sha256="",
                cpu_seconds=self._watch.cpu_seconds,
                peak_memory_mib=peak_memory_mib(),
            )
            self._keep(step, record)
            self._state = step.state
            return step.tensors
        raise self._failed(f"round {number}")

    def _begin_secure(self, tensors: Tensors, members: tuple[Member, ...], attempt: int) -> SecureReplies | None:
        """Return what sums the replies of an attempt unseen, where the run asks for that."""
        if self._config.secure is None:
            return None
        return SecureReplies(
            self._rows(tensors),
            config=self._config.secure,
            strategy=self._config.strategy,
            courier=self._courier,
            members=members,
            attempt=attempt,
        )

    def _step(self, replies: Aggregate, tensors: Tensors, previous: Tensors | None, sites: tuple[SiteRecord, ...]) -> Step:
        """Return the next global model, and what the next step must know, from the joint model of the replies."""
        shares, averaged = replies.shares(), replies.result()
        moved = {group for own in shares.values() for group in own}
        current, before = self._rows(tensors), None if previous is None else self._rows(previous)
        step = make_step(self._config.server_step, mean=averaged, current=current, previous=before, moved=moved, state=self._state)
        following = join_rows(step.tensors)
        following |= settle_anchors(mean=averaged, current=tensors, sites=sum("anchors" in own for own in shares.values()))
        if self._config.training.uncertainty_weighting == "closed_form":
            good = [(site.losses, site.labelled) for site in sites if site.outcome is Outcome.ACCEPTED]
            following |= closed_form_tensors(good)
        return Step(following, step.state)

    def _rows(self, tensors: Tensors) -> Tensors:
        """Return the tensors as the strategy averages them: the segmentation head whole or row by row."""
        return split_rows(tensors) if splits_rows(self._config.strategy) else tensors

    def _keep(self, step: Step, record: RoundRecord) -> None:
        """Checkpoint a round, then tell of it, then delete models that nothing needs any more."""
        with self._watch.stage("checkpoint"):
            record = self._folder.write_round(step.tensors, record=record, state=step.state) or record
        self._note(record)
        self._announce(record, cost=self._cost())
        self._folder.prune_models(keep={choose_best(self._scores, fallback=record.round)})

    def _note(self, record: RoundRecord) -> None:
        """Remember what later rounds are judged by, and the validation of a trained model: the seeded start is no candidate."""
        self._judge.remember(record)
        if record.validation is not None and record.validation.model_round > 0:
            # Of a thousand sites over a hundred rounds, what each measured would fill the memory; the records have it.
            self._scores.append(record.validation.model_copy(update={"sites": {}}))

    def _announce(self, record: RoundRecord, *, emit: bool = True, cost: Mapping[str, object] = MappingProxyType({})) -> None:
        """Tell the event log and the tracker of a finished round; `cost` is the coordinator's, unknown after a crash."""
        if emit:
            self._events.emit(EventKind.ROUND_FINISHED, round=record.round, detail=_round_detail(record) | dict(cost))
        with self._watch.stage("track"):
            self._tracker.log_round(record)

    def _cost(self) -> dict[str, object]:
        """Return what the coordinator's process spent since it was asked last, for the ledger."""
        watch, self._watch = self._watch, Stopwatch()
        return {"coordinator": {"seconds": watch.seconds, "cpu_seconds": watch.cpu_seconds, "peak_memory_mib": peak_memory_mib()}}

    def _spent(self) -> dict[str, object] | None:
        spent = self._judge.spent()
        return None if spent is None else spent.model_dump(mode="json")

    def _conclude(self, tensors: Tensors, rounds: int) -> RunResult:
        """Evaluate the last model, that of `rounds`, choose the best, calibrate both, test the best, publish and register both."""
        last, ledger = self._evaluate(tensors, rounds, Split.VALIDATION)
        scores = [*self._scores, last]
        best_round = choose_best(scores, fallback=rounds)
        best = self._folder.load_round(best_round)
        calibration, asked = self._calibrate(best, best_round)
        test, tests = self._evaluate(best.tensors, best_round, Split.TEST, calibrate=query_for_test(calibration))
        calibration = add_test(calibration, tests)
        # The same model is calibrated once.
        of_last, asked_last = (calibration, ()) if best_round == rounds else self._calibrate(self._folder.load_round(rounds), rounds)
        # The record of a round has the validation of the model before.
        validation = last if best_round == rounds else self._folder.read_record(best_round + 1).validation
        self._register("best", best_round, validation, calibration)
        self._register("last", rounds, last, of_last)
        return RunResult(
            run=self._folder.run,
            rounds=rounds,
            best_round=best_round,
            model_digest=self._config.model.digest(),
            best_sha256=best.sha256,
            last_sha256=self._folder.load_round(rounds).sha256,
            validation=validation,
            last=last,
            test=test,
            ledger=(*ledger, *asked, *without_sums(tests), *asked_last),
            privacy=self._judge.spent(),
        )

    def _calibrate(self, weights: Weights, model_round: int) -> tuple[Calibration | None, tuple[SiteRecord, ...]]:
        """Return a model's calibration, or None where the run plans none, and what the asking cost."""
        plan = self._config.calibration
        if plan is None:
            return None, ()

        def ask(split: Split, query: CalibrationQuery) -> tuple[SiteRecord, ...]:
            return self._evaluate(weights.tensors, model_round, split, calibrate=query)[1]

        return calibrate_model(ask, weights_sha256=weights.sha256, plan=plan)

    def _evaluate(
        self, tensors: Tensors, model_round: int, split: Split, *, calibrate: CalibrationQuery | None = None
    ) -> tuple[ModelScore, tuple[SiteRecord, ...]]:
        """Return a model's accuracy on a split, and what the asking cost."""
        quorum = self._config.quorum
        for attempt in range(1, quorum.round_attempts + 1):
            members = self._roster.wait_for(quorum.replies, timeout_s=quorum.join_deadline_s)
            with self._watch.stage("ask"):
                sites = self._ask(members, Action.EVALUATE, model_round, tensors, split=split, calibrate=calibrate)
            if self._enough(sites, model_round, attempt):
                return score_model(_evaluations(sites), model_round=model_round, split=split), sites
        raise self._failed(f"evaluation of model {model_round} on {split}")

    def _ask(
        self,
        members: tuple[Member, ...],
        action: Action,
        number: int,
        tensors: Tensors,
        *,
        split: Split,
        replies: Aggregate | None = None,
        calibrate: CalibrationQuery | None = None,
        ready: Mapping[Target, float] = MappingProxyType({}),
    ) -> tuple[SiteRecord, ...]:
        """Send one request to the members and settle their answers; tensors go into `replies`."""
        pseudo = pseudo_weights(ready, self._config.training.semi_supervised, [member.description for member in members])
        rule = self._config.training.enhancing_needs_t1ce
        weigh = choose_weighting(self._config.strategy, pseudo=pseudo, enhancing_needs_t1ce=rule)

        def count(report: SiteReport, received: Tensors) -> None:
            if isinstance(replies, SecureReplies):
                replies.admit(report, weights=weigh(report))
            elif replies is not None:
                replies.fold(report.site, self._rows(received), weights=weigh(report))

        request = self._request(action, number, split=split, ready=ready).model_copy(update={"calibrate": calibrate})
        if isinstance(replies, SecureReplies):
            request = request.model_copy(update={"secure": replies.task(request, pseudo=pseudo)})
        timeout_s = self._config.quorum.round_deadline_s
        enquiry = Enquiry(
            self._courier,
            events=self._events,
            request=request,
            tensors=tensors,
            timeout_s=timeout_s,
            holdings=self._holdings,
            notices=self._judge.notices,
        )
        return enquiry.ask(members, count=count)

    def _request(
        self, action: Action, number: int, *, split: Split | None = None, ready: Mapping[Target, float] = MappingProxyType({})
    ) -> TaskRequest:
        return TaskRequest(
            action=action,
            run=self._folder.run,
            round=number,
            rounds=self._judge.rounds,
            seed=self._config.seed,
            model=self._config.model,
            plan=self._config.training if action is Action.TRAIN else None,
            evaluate=split,
            ready=dict(ready),
            wire=self._config.wire,
        )

    def _enough(self, sites: tuple[SiteRecord, ...], number: int, attempt: int) -> bool:
        """Return whether enough replies were good; says so where they were not."""
        good = sum(site.outcome is Outcome.ACCEPTED for site in sites)
        needed = self._config.quorum.replies
        if good < needed:
            detail = {"attempt": attempt, "good": good, "needed": needed, "sites": {site.site: site.code for site in sites}}
            self._events.emit(EventKind.ROUND_FAILED, round=number, code=ReasonCode.QUORUM, detail=detail)
        return good >= needed

    def _failed(self, where: str) -> FederationError:
        quorum = self._config.quorum
        return FederationError(
            "too few good replies",
            where=where,
            got=f"fewer than {quorum.replies} in each of {quorum.round_attempts} attempts",
            expected=f"at least {quorum.replies} within {quorum.round_deadline_s:g} s",
            remedy="see the refused and missing replies (`gmmas status RUN --events`), mend those sites and resume the run",
            code=ReasonCode.QUORUM,
        )

    def _register(self, kind: Literal["best", "last"], number: int, score: ModelScore | None, calibration: Calibration | None) -> None:
        weights_folder = self._folder.publish_model(kind, round=number, calibration=calibration)
        version = self._tracker.register(kind, weights_folder, round=number, metrics=score.metrics if score else {})
        detail = {"kind": kind, "version": version, "calibration": calibration_detail(calibration)}
        self._events.emit(EventKind.MODEL_REGISTERED, round=number, detail=detail)


def _evaluations(sites: tuple[SiteRecord, ...]) -> dict[str, Evaluation]:
    return {site.site: site.evaluation for site in sites if site.evaluation is not None}


def _personalised(sites: tuple[SiteRecord, ...], *, model_round: int) -> ModelScore | None:
    own = {site.site: site.personalised for site in sites if site.personalised is not None}
    return score_model(own, model_round=model_round, split=Split.VALIDATION) if own else None


def _round_detail(record: RoundRecord) -> dict[str, object]:
    """Return what displays show of a finished round."""
    fields = {"outcome", "code", "bytes_down", "bytes_up", "round_trip_s", "seconds"}
    return {
        "seconds": record.seconds,
        "bytes_down": record.bytes_down,
        "bytes_up": record.bytes_up,
        "sites": {site.site: site.model_dump(mode="json", include=fields) for site in record.sites},
        "validation": record.validation.model_dump(mode="json", exclude={"sites"}) if record.validation else None,
    }


def _summary(result: RunResult) -> dict[str, object]:
    """Return what displays show of a finished run."""
    scores = {"validation": result.validation, "test": result.test}
    return {"best_round": result.best_round} | {name: score.metrics if score else None for name, score in scores.items()}
