"""What the members of a run are asked, each time with a quorum: to train a round, to evaluate a model."""

import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from gmmas_runtime.stopwatch import Stopwatch
from gmmas_schema.calibration import CalibrationQuery
from gmmas_schema.errors import FederationError, ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.messages import Action, Evaluation, SiteReport, Target, TaskRequest
from gmmas_schema.policy import Safeguards
from gmmas_schema.vocabulary import Split, Task
from gmmas_workflows.scores import ModelScore, score_model
from server.checkpoint import RunFolder
from server.courier import Courier
from server.events import EventLog
from server.judgement import Judge
from server.membership import Member, Roster
from server.records import Outcome, SiteRecord
from server.replies import Count, Enquiry
from server.secure_round import SecureReplies
from strategies.aggregation import Aggregate
from strategies.anchors import counts_fit
from strategies.unlabelled import pseudo_terms
from strategies.weighting import as_averaged, choose_weighting
from strategies.wire import Holdings

logger = logging.getLogger(__name__)

Float32 = NDArray[np.float32]
Tensors = Mapping[str, Float32]


class Questions:
    """Asks the members of one run.

    Args:
        folder: the run's folder.
        courier: the way to the nodes.
        judge: knows how many rounds there will be, and what refused sites are to hear.
        events: is told the outcome of each answer, and of each question that too few answered.
        watch: is told the time that asking takes.
    """

    def __init__(self, folder: RunFolder, courier: Courier, *, judge: Judge, events: EventLog, watch: Stopwatch) -> None:
        self._run, self._config = folder.run, folder.config
        self._courier, self._judge, self._events, self._watch = courier, judge, events, watch
        self._holdings = Holdings()
        self._roster = Roster(courier, request=self._request(Action.DESCRIBE, 0), events=events)

    def wait_for_sites(self) -> None:
        """Wait for the members that a run needs to begin.

        Raises:
            FederationError: fewer by the deadline (code QUORUM).
        """
        self._members(self._config.quorum.sites)

    def members(self, *, wanted: int = 0, among: Collection[str] | None = None) -> tuple[Member, ...]:
        """Return the members, by name, once there are as many as a round needs.

        Args:
            wanted: so many are waited for as well, and done without if they do not come.
            among: of these names; None for any.

        Raises:
            FederationError: fewer than a round needs by the deadline (code QUORUM).
        """
        members = self._members(self._config.quorum.replies)
        if wanted == 0:
            return members
        with self._watch.stage("wait"), suppress(FederationError):
            self._roster.wait_for(wanted, timeout_s=self._config.quorum.join_deadline_s, among=among)
        return self._roster.members

    def train(
        self,
        members: tuple[Member, ...],
        number: int,
        tensors: Tensors,
        *,
        replies: Aggregate,
        ready: Mapping[Target, float],
    ) -> tuple[SiteRecord, ...]:
        """Ask for a round of training; what comes back goes into `replies`.

        Args:
            members: who is asked.
            number: of the round.
            tensors: the global model.
            replies: plain, robust or private aggregate, or a secure one, which is given reports alone.
            ready: ramp of the pseudo-labels per target that is ready.
        """
        pseudo = pseudo_terms(ready, self._config.training, self._config.strategy, [member.description for member in members])
        weigh = choose_weighting(self._config.strategy, plan=self._config.training, pseudo=pseudo)
        request = self._request(Action.TRAIN, number, split=Split.VALIDATION, ready=ready)
        if isinstance(replies, SecureReplies):
            request = request.model_copy(update={"secure": replies.task(request, pseudo=pseudo)})

        def count(report: SiteReport, received: Tensors) -> None:
            if isinstance(replies, SecureReplies):
                replies.admit(report, weights=weigh(report))
                return
            weights = weigh(report)
            if not counts_fit(received, patients=report.labelled.get(Task.SEGMENTATION, 0)):
                logger.warning("round %d: the anchors of %s stand on patients it cannot have; they do not count", number, report.site)
                weights.pop("anchors", None)
            replies.fold(report.site, as_averaged(received, self._config.strategy), weights=weights)

        return self._ask(members, request, tensors, count=count)

    def evaluate(
        self, tensors: Tensors, model_round: int, split: Split, *, calibrate: CalibrationQuery | None = None, subsets: bool = False
    ) -> tuple[ModelScore, tuple[SiteRecord, ...]]:
        """Return a model's accuracy on a split, and what the asking cost.

        Raises:
            FederationError: too few good answers in every attempt (code QUORUM).
        """
        request = self._request(Action.EVALUATE, model_round, split=split)
        request = request.model_copy(update={"calibrate": calibrate, "subsets": subsets})
        for attempt in range(1, self._config.quorum.round_attempts + 1):
            sites = self._ask(self.members(), request, tensors, count=lambda _report, _tensors: None)
            if self.enough(sites, model_round, attempt):
                return score_model(evaluations(sites), model_round=model_round, split=split), sites
        raise self.failed(f"evaluation of model {model_round} on {split}")

    def enough(self, sites: tuple[SiteRecord, ...], number: int, attempt: int) -> bool:
        """Return whether enough replies were good; says so where they were not."""
        good = sum(site.outcome is Outcome.ACCEPTED for site in sites)
        needed = self._config.quorum.replies
        if good < needed:
            detail = {"attempt": attempt, "good": good, "needed": needed, "sites": {site.site: site.code for site in sites}}
            self._events.emit(EventKind.ROUND_FAILED, round=number, code=ReasonCode.QUORUM, detail=detail)
        return good >= needed

    def trained(self, shares: Mapping[str, Mapping[str, float]], number: int, attempt: int) -> bool:
        """Return whether any site has a share in the next model; says so where none has.

        The replies of hospitals without labels are good ones, but a round of nothing else leaves the model as it is.
        """
        moved = any(shares.values())
        if not moved:
            message, detail = "no reply that counts trained anything", {"attempt": attempt}
            self._events.emit(EventKind.ROUND_FAILED, round=number, code=ReasonCode.QUORUM, message=message, detail=detail)
        return moved

    def unfit(self, error: FederationError, number: int, attempt: int) -> FederationError:
        """Say why an attempt could not be begun with the sites that are there; returns that."""
        self._events.emit(EventKind.ROUND_FAILED, round=number, code=error.code, message=error.explain(), detail={"attempt": attempt})
        return error

    def failed(self, where: str) -> FederationError:
        """Return the error that ends a run for want of answers."""
        quorum = self._config.quorum
        return FederationError(
            "too few good replies",
            where=where,
            got=f"fewer than {quorum.replies}, or none that trained anything, in each of {quorum.round_attempts} attempts",
            expected=f"at least {quorum.replies} within {quorum.round_deadline_s:g} s",
            remedy="see the refused and missing replies (`gmmas status RUN --events`), mend those sites and resume the run",
            code=ReasonCode.QUORUM,
        )

    def _members(self, count: int) -> tuple[Member, ...]:
        with self._watch.stage("wait"):
            return self._roster.wait_for(count, timeout_s=self._config.quorum.join_deadline_s)

    def _ask(self, members: tuple[Member, ...], request: TaskRequest, tensors: Tensors, *, count: Count) -> tuple[SiteRecord, ...]:
        """Send one request to the members and settle their answers."""
        enquiry = Enquiry(
            self._courier,
            events=self._events,
            request=request,
            tensors=tensors,
            timeout_s=self._config.quorum.round_deadline_s,
            holdings=self._holdings,
            notices=self._judge.notices,
            counted=self._judge.counted,
        )
        with self._watch.stage("ask"):
            records = enquiry.ask(members, count=count)
        for record in records:
            if record.outcome is Outcome.FAILED and record.code is not None:
                self._roster.hear(record.site, record.code)
        return records

    def _request(
        self, action: Action, number: int, *, split: Split | None = None, ready: Mapping[Target, float] = MappingProxyType({})
    ) -> TaskRequest:
        return TaskRequest(
            action=action,
            run=self._run,
            round=number,
            rounds=self._judge.rounds,
            seed=self._config.seed,
            model=self._config.model,
            plan=self._config.training if action is not Action.DESCRIBE else None,
            evaluate=split,
            ready=dict(ready),
            safeguards=Safeguards(privacy=self._config.privacy, secure=self._config.secure, clip=self._config.robustness.clip),
            wire=self._config.wire,
        )


def evaluations(sites: tuple[SiteRecord, ...]) -> dict[str, Evaluation]:
    """Return the figures of the sites that sent some, by site."""
    return {site.site: site.evaluation for site in sites if site.evaluation is not None}
