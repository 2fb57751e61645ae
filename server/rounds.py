"""The run: rounds of training, one checkpoint each, then the best model on the sites' test cases. Resuming is running again.

One round: 1. wait for members, 2. send each the groups it holds, 3. check and fold replies as they come, 4. with a quorum make the
next model, 5. checkpoint, 6. tell the tracker. Everything a round does follows from the seed, the round and the model before it, so a
run that was killed anywhere goes on from its last checkpoint to the very weights of an unbroken one (same replies, same sites).
"""

import logging
import time
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from types import MappingProxyType

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from gmmas_runtime.memory import peak_memory_mib
from gmmas_runtime.stopwatch import Stopwatch
from gmmas_schema.errors import FederationError, GmmasError, ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.strategy import MomentumStep
from gmmas_schema.vocabulary import Split
from gmmas_workflows.scores import ModelScore, choose_best, score_model
from server.checkpoint import RunFolder
from server.conclusion import Conclusion
from server.courier import Courier, Timing
from server.events import EventLog, read_events
from server.initial_model import make_initial_model
from server.judgement import Judge
from server.membership import Member
from server.questions import Questions, evaluations
from server.records import Outcome, RoundRecord, RunResult, SiteRecord, Tracker
from server.secure_company import Companies
from server.secure_round import SecureReplies
from strategies.aggregation import Aggregate
from strategies.anchors import settle_anchors
from strategies.readiness import targets_ready
from strategies.rows import join_rows
from strategies.server_step import Step, make_step
from strategies.uncertainty import closed_form_tensors
from strategies.weighting import as_averaged

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
        self._courier, self._watch = Courier(grid, timing), Stopwatch()
        self._judge = Judge(folder, events=events)
        self._questions = Questions(folder, self._courier, judge=self._judge, events=events, watch=self._watch)
        self._companies = Companies(folder.path, folder.config)
        self._scores: list[ModelScore] = []
        self._state: Tensors = {}

    def finish(self) -> RunResult:
        """Do what is left of the run and return its result."""
        self._tracker.start(self._config.model_dump(mode="json") | {"run": self._folder.run})
        result = self._folder.read_result()
        if result is None:
            result = self._train_and_evaluate()
            self._folder.write_result(result)
        self._tracker.log_result(result)
        self._tracker.finish("FINISHED")
        # The last thing of a run: whoever reads it may stop this process.
        if not read_events(self._folder.events_path, kinds={EventKind.RUN_FINISHED}):
            self._events.emit(EventKind.RUN_FINISHED, round=result.rounds, detail=_summary(result) | self._cost())
        return result

    def _train_and_evaluate(self) -> RunResult:
        done = self._begin()
        self._questions.wait_for_sites()
        tensors: Tensors = self._folder.load_round(done).tensors
        self._folder.require_room(tensors)
        previous = self._model_before(done)
        self._state = self._folder.load_state(done)
        for number in range(done + 1, self._judge.rounds + 1):
            if not self._judge.affords(number):
                break
            previous, tensors = tensors, self._train_round(number, tensors, previous)
            done = number
        conclusion = Conclusion(self._folder, self._questions, tracker=self._tracker, events=self._events)
        return conclusion.reach(tensors, done, scores=self._scores, privacy=self._judge.spent())

    def _model_before(self, done: int) -> Tensors | None:
        """Return the model before that of round `done` where the next step goes by it; None where it is lost: one step without momentum."""
        if done == 0 or not isinstance(self._config.server_step, MomentumStep):
            return None
        try:
            return self._folder.load_round(done - 1).tensors
        except (GmmasError, OSError) as error:
            message = f"round {done + 1} goes without momentum, for the model of round {done - 1} is missing or damaged"
            logger.warning("%s: %s", message, error)
            self._events.emit(EventKind.MODEL_UNREADABLE, round=done - 1, code=ReasonCode.MODEL, message=message)
            return None

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
        ready = targets_ready([score.metrics for score in self._scores], self._config.training.semi_supervised)
        unfit: FederationError | None = None
        for attempt in range(1, self._config.quorum.round_attempts + 1):
            wanted, among = self._companies.wanted(number)
            members = self._questions.members(wanted=wanted, among=among)
            try:
                secure, unfit = self._begin_secure(number, tensors, members, attempt), None
            except FederationError as error:
                unfit = self._questions.unfit(error, number, attempt)
                continue
            members = secure.members if secure else members
            started_at, start = time.time(), self._timing.clock()
            self._events.emit(
                EventKind.ROUND_STARTED,
                round=number,
                detail={"attempt": attempt, "sites": [member.site for member in members], "ready": ready},
            )
            descriptions = [member.description for member in members]
            replies = secure or self._judge.begin(self._averaged(tensors), number=number, descriptions=descriptions, ready=ready)
            with closing(replies):
                sites = self._questions.train(members, number, tensors, replies=replies, ready=ready)
                with self._watch.stage("judge"):
                    sites, verdict = self._judge.decide(replies, sites, number=number)
                if not self._questions.enough(sites, number, attempt):
                    continue
                if not (secure and secure.is_spent) and not self._questions.trained(replies.shares(), number, attempt):
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
                validation=score_model(evaluations(sites), model_round=number - 1, split=Split.VALIDATION),
                personalised=_personalised(sites, model_round=number - 1),
                model_sha256="",
                cpu_seconds=self._watch.cpu_seconds,
                peak_memory_mib=peak_memory_mib(),
            )
            self._keep(step, record)
            self._state = step.state
            return step.tensors
        raise unfit or self._questions.failed(f"round {number}")

    def _begin_secure(self, number: int, tensors: Tensors, members: tuple[Member, ...], attempt: int) -> SecureReplies | None:
        """Return what sums the replies of an attempt unseen, where the run asks for that.

        Raises:
            FederationError: these sites cannot add up (code QUORUM).
        """
        if self._config.secure is None:
            return None
        return SecureReplies(
            tensors,
            config=self._config,
            courier=self._courier,
            events=self._events,
            members=members,
            companies=self._companies,
            number=number,
            attempt=attempt,
            book=partial(self._judge.book, number),
        )

    def _step(self, replies: Aggregate, tensors: Tensors, previous: Tensors | None, sites: tuple[SiteRecord, ...]) -> Step:
        """Return the next global model, and what the next step must know, from the joint model of the replies."""
        shares, averaged = replies.shares(), replies.result()
        moved = {group for own in shares.values() for group in own}
        current, before = self._averaged(tensors), None if previous is None else self._averaged(previous)
        step = make_step(self._config.server_step, mean=averaged, current=current, previous=before, moved=moved, state=self._state)
        following = join_rows(step.tensors)
        following |= settle_anchors(mean=averaged, current=tensors, sites=sum("anchors" in own for own in shares.values()))
        if self._config.training.uncertainty_weighting == "closed_form":
            good = [(site.losses, site.labelled) for site in sites if site.outcome is Outcome.ACCEPTED]
            following |= {name: value for name, value in closed_form_tensors(good).items() if name in following}
        return Step(following, step.state)

    def _averaged(self, tensors: Tensors) -> Tensors:
        return as_averaged(tensors, self._config.strategy)

    def _keep(self, step: Step, record: RoundRecord) -> None:
        """Checkpoint a round, then tell of it, then delete models that nothing needs any more."""
        with self._watch.stage("checkpoint"):
            record = self._folder.write_round(step.tensors, record=record, state=step.state) or record
        self._note(record)
        self._announce(record, cost=self._cost())
        self._folder.prune_models(keep={choose_best(self._folder.kept(self._scores), fallback=record.round)})

    def _note(self, record: RoundRecord) -> None:
        """Remember what later rounds are judged by, and the validation of a trained model: the seeded start is no candidate."""
        self._judge.remember(record)
        if record.validation is not None and record.validation.model_round > 0:
            # Of a thousand sites over a hundred rounds, what each measured would fill the memory; the records have it.
            self._scores.append(record.validation.model_copy(update={"sites": {}}))

    def _announce(self, record: RoundRecord, *, emit: bool = True, cost: Mapping[str, object] = MappingProxyType({})) -> None:
        """Tell the event log and the tracker of a finished round; `cost` is the coordinator's, unknown after a crash."""
        if emit:
            message = "" if record.privacy is None else record.privacy.explain()
            self._events.emit(EventKind.ROUND_FINISHED, round=record.round, message=message, detail=_round_detail(record) | dict(cost))
        with self._watch.stage("track"):
            self._tracker.log_round(record)

    def _cost(self) -> dict[str, object]:
        """Return what the coordinator's process spent since it was asked last, for the ledger."""
        seconds, cpu_seconds = self._watch.restart()
        return {"coordinator": {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_memory_mib": peak_memory_mib()}}

    def _spent(self) -> dict[str, object] | None:
        spent = self._judge.spent()
        return None if spent is None else spent.model_dump(mode="json")


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
        "privacy": record.privacy.model_dump(mode="json") if record.privacy else None,
        "validation": record.validation.model_dump(mode="json", exclude={"sites"}) if record.validation else None,
    }


def _summary(result: RunResult) -> dict[str, object]:
    """Return what displays show of a finished run."""
    scores = {"validation": result.validation, "test": result.test}
    return {"best_round": result.best_round} | {name: score.metrics if score else None for name, score in scores.items()}
