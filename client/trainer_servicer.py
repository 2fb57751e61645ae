"""The trainer's gRPC service: checks a request, runs it in the one working thread, and answers with a result or a reason code.

    request -> protocol version -> policy -> model definition -> queue of one worker -> LocalTrainer -> audit log -> result | reason code

A call ahead of a task brings its document alone and goes as far as the policy. So the executor unpacks no tensor of a request that is not
answered here, and none that has more values than the network it is about. The task itself is judged again: a pause may lie between them.

What an exception says stays in the local log; a gRPC status carries the value of a ReasonCode and nothing else. No answer leaves before
the line that tells of it is on the disk, and none where that line cannot be written.
"""

# ruff: noqa: N802, ARG002 - gRPC gives the methods their names and arguments

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from typing import Final, NoReturn, TypeVar

import grpc

from client.activity import Activity
from client.admission import Docket, Gate
from client.cohort import SiteCohort, describe_cohort, open_cohort, prepare_samples
from client.folder import NodeFolder
from client.policy import Admission
from client.reports import report_evaluation
from client.trainer_channel import LARGEST_MESSAGE_BYTES, pack_tensors, unpack_tensors
from client.trainer_service_pb2 import CancelCall, PauseCall, Progress, ResumeCall, StatusCall, TaskAnswer, TaskCall
from client.trainer_service_pb2_grpc import TrainerServicer
from gmmas_data.cache import SampleCache
from gmmas_model.size import count_values
from gmmas_runtime.disk import disk_fault
from gmmas_runtime.files import write_atomic
from gmmas_runtime.sealed_files import PLAIN, Seal
from gmmas_schema.errors import FederationError, GmmasError, ProtocolError, ReasonCode
from gmmas_schema.messages import TASK, Action, TaskRequest
from gmmas_schema.model import ModelDefinition
from gmmas_schema.site import SiteConfig
from gmmas_workflows.local_evaluation import Tensors
from gmmas_workflows.training import LocalTrainer
from strategies.foreign_documents import parse_document

logger = logging.getLogger(__name__)
ResultT = TypeVar("ResultT")

CALLER_CHECK_S: Final = 0.2
DEFAULT_INTERVAL_S: Final = 0.5
SHORTEST_INTERVAL_S: Final = 0.05
MOST_VALUES: Final = LARGEST_MESSAGE_BYTES // 4


def parse_request(document: str, *, action: Action) -> TaskRequest:
    """Read a request; its versions are looked at first, because another version may have other keys.

    Raises:
        ProtocolError: code PROTOCOL_VERSION, MODEL_DEFINITION, or PROTOCOL for anything else that does not fit.
    """
    request = parse_document(document, TaskRequest, name=TASK)
    if request.action is not action:
        raise ProtocolError("a request came to the wrong method", got=request.action, expected=action)
    return request


def reason_of(error: BaseException) -> ReasonCode:
    """Return the only thing about a failure that may leave this process."""
    if isinstance(error, GmmasError):
        return error.code
    return ReasonCode.OUT_OF_MEMORY if isinstance(error, MemoryError) else ReasonCode.TRAINER


class SiteTrainer(TrainerServicer):
    """Serves one site's cohort. Tasks run one after the other in one thread, which also opens the cohort.

    Args:
        config: the site.
        activity: what the service is doing, for those that watch.
    """

    def __init__(self, config: SiteConfig, activity: Activity) -> None:
        self._config, self._activity, self._folder = config, activity, NodeFolder(config.node.state)
        self._gate = Gate(config)
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="task")
        self._trainer: LocalTrainer | None = None
        self._definition_of_run: dict[str, str] = {}
        self.cohort: Future[SiteCohort] = self._worker.submit(self._open)

    def Describe(self, call: TaskCall, context: grpc.ServicerContext) -> TaskAnswer:
        """Answer with counts; preprocessing for the model's grid begins meanwhile."""

        def answer(docket: Docket) -> TaskAnswer:
            request = parse_request(call.document, action=Action.DESCRIBE)
            docket.read(request)
            self._activity.admit()
            cohort = self._await(self.cohort, context)
            self._gate.admit(request, cohort, docket)
            self._check_definition(request)
            self._worker.submit(self._prepare_early, request.model)
            return TaskAnswer(document=describe_cohort(cohort, site=self._config.site, model=request.model).model_dump_json())

        return self._answer(call, Action.DESCRIBE, answer, context)

    def Train(self, call: TaskCall, context: grpc.ServicerContext) -> TaskAnswer:
        """Run one round of local training."""
        return self._answer(call, Action.TRAIN, lambda docket: self._task(call, docket, self._train, context), context)

    def Evaluate(self, call: TaskCall, context: grpc.ServicerContext) -> TaskAnswer:
        """Evaluate the tensors that came."""
        return self._answer(call, Action.EVALUATE, lambda docket: self._task(call, docket, self._evaluate, context), context)

    def Cancel(self, call: CancelCall, context: grpc.ServicerContext) -> Progress:
        """End the running task."""
        self._activity.stop_task()
        return self._activity.snapshot()

    def Pause(self, call: PauseCall, context: grpc.ServicerContext) -> Progress:
        """Refuse tasks, hold or end the running one; the file keeps the site paused across restarts."""
        if not self._folder.paused.exists():  # else it says who and why
            write_atomic(self._folder.paused, b"")
        self._activity.pause(abandon=call.abandon)
        return self._activity.snapshot()

    def Resume(self, call: ResumeCall, context: grpc.ServicerContext) -> Progress:
        """Accept tasks again."""
        self._folder.paused.unlink(missing_ok=True)
        self._activity.resume()
        return self._activity.snapshot()

    def Status(self, call: StatusCall, context: grpc.ServicerContext) -> Iterator[Progress]:
        """Stream the state."""
        if not call.follow:
            yield self._activity.snapshot()
            return
        for progress in self._activity.watch(interval_s=max(call.interval_s or DEFAULT_INTERVAL_S, SHORTEST_INTERVAL_S)):
            if not context.is_active():
                return
            yield progress

    def close(self) -> None:
        """End the running task and take no other."""
        self._activity.close()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _answer(self, call: TaskCall, action: Action, work: Callable[[Docket], TaskAnswer], context: grpc.ServicerContext) -> TaskAnswer:
        """Run the work of one call; every failure becomes a reason code, and everything a line of the audit log."""
        docket = Docket(action, call)
        code, answer = ReasonCode.TRAINER, None
        try:
            answer = work(docket)
        except GmmasError as error:
            logger.warning("a task ends with %s", error)
            code = error.code
        except Exception as error:
            fault = disk_fault(error, where=self._folder.root)
            if fault is None:
                logger.exception("a task failed")
            else:
                logger.error("a task ends with %s", fault)
            code = reason_of(fault or error)
        if call.ahead and answer is not None:
            return answer  # nothing of the cohort; the line is that of the task, which follows
        try:
            self._gate.note(docket, answer=answer, code=code)
        except GmmasError as error:
            logger.error("an answer is withheld, for nothing may leave unrecorded: %s", error)
            code, answer = error.code, None
        if answer is not None:
            return answer
        self._activity.fail(code)
        return _abort(context, code)

    def _task(
        self, call: TaskCall, docket: Docket, work: Callable[[Admission, Tensors], TaskAnswer], context: grpc.ServicerContext
    ) -> TaskAnswer:
        """Check a call and, unless it is one ahead, run it in the worker."""
        request = parse_request(call.document, action=docket.action)
        docket.read(request)
        if request.notice is not None and not call.ahead:
            logger.warning("round %d: the coordinator refused this site's answer: %s", request.notice.round, request.notice.reason)
        self._activity.admit()
        admitted = self._gate.admit(request, self._await(self.cohort, context), docket)
        if call.ahead:
            return TaskAnswer(values=min(count_values(request.model.network), MOST_VALUES))
        tensors = unpack_tensors(call.tensors)

        def run() -> TaskAnswer:
            self._check_definition(request)
            with self._activity.task(request):
                return work(admitted, tensors)

        return self._await(self._worker.submit(run), context)

    def _await(self, future: Future[ResultT], context: grpc.ServicerContext) -> ResultT:
        """Wait for the worker; a caller that has gone away, or whose time is over, takes its task along, but not the cohort.

        Raises:
            FederationError: code CANCELLED, nobody waits for the answer any more.
        """
        while True:
            try:
                return future.result(timeout=CALLER_CHECK_S)
            except NotYet:
                if future.done():
                    raise
                if context.is_active():
                    continue
                # The cohort is everybody's, and reading it may take hours: who waits for it in vain must leave its thread to others.
                if future is self.cohort or future.cancel():
                    raise FederationError("nobody waits for the answer any more", code=ReasonCode.CANCELLED) from None
                self._activity.stop_task()

    def _train(self, admitted: Admission, tensors: Tensors) -> TaskAnswer:
        trainer = self._trainer_for(admitted.request.model)
        outcome = trainer.train(
            tensors, admitted.request, fewest=admitted.fewest, on_progress=self._activity.step, should_stop=self._should_stop
        )
        losses = outcome.report.losses.values()
        self._activity.succeed(loss=sum(losses) / len(losses) if losses else None)
        return TaskAnswer(document=outcome.report.model_dump_json(), tensors=pack_tensors(outcome.tensors))

    def _evaluate(self, admitted: Admission, tensors: Tensors) -> TaskAnswer:
        trainer = self._trainer_for(admitted.request.model)
        report = report_evaluation(trainer, tensors, admitted.request, fewest=admitted.fewest, on_progress=self._evaluated)
        self._activity.succeed(loss=None)
        return TaskAnswer(document=report.model_dump_json())

    def _should_stop(self) -> bool:
        self._activity.check()
        return False

    def _evaluated(self, done: int, total: int) -> None:
        self._activity.step(done, total)
        self._activity.check()

    def _open(self) -> SiteCohort:
        def checked(done: int, total: int) -> None:
            self._activity.require_open()
            self._activity.count(cases=done, to_cache=total)

        with self._activity.preparing():
            cohort = open_cohort(self._config, on_progress=checked)
            self._activity.count(cases=cohort.size, left_out=cohort.left_out, cached=0, to_cache=0)
        return cohort

    def _check_definition(self, request: TaskRequest) -> None:
        """Refuse a run that changes its model definition on the way."""
        digest = request.model.digest()
        known = self._definition_of_run.setdefault(request.run, digest)
        if known != digest:
            raise ProtocolError(
                "the model definition changed within a run",
                where=f"run {request.run}",
                got=digest[:12],
                expected=known[:12],
                remedy="start a new run for a new model definition",
                code=ReasonCode.MODEL_DEFINITION,
            )

    def _prepare_early(self, definition: ModelDefinition) -> None:
        """Fill the cache before the first round asks for it; a failure shows again, with its code, when a task needs the samples."""
        try:
            self._trainer_for(definition)
        except Exception:
            logger.exception("preprocessing failed")

    def _trainer_for(self, definition: ModelDefinition) -> LocalTrainer:
        """Return the trainer of a model definition, preprocessing the cohort for its grid at the first use. Worker thread only."""
        if self._trainer is not None and self._trainer.definition == definition:
            return self._trainer
        self._trainer = None  # the samples of the other grid are let go before those of this one come
        config = self._config
        seal = PLAIN if config.encryption is None else Seal(config.encryption.key_file)

        def cached(done: int, total: int) -> None:
            self._activity.require_open()
            self._activity.count(cached=done, to_cache=total)

        with self._activity.preparing():
            cache = SampleCache(self._folder.cache, definition.grid, seal=seal)
            samples = prepare_samples(self.cohort.result(), cache, processes=config.node.threads, on_progress=cached)
        self._trainer = LocalTrainer(
            definition,
            samples,
            modalities=config.data.modalities,
            site=config.site,
            device=config.node.device,
            threads=config.node.threads,
            folder=self._folder.training,
            seal=seal,
        )
        return self._trainer


def _abort(context: grpc.ServicerContext, code: ReasonCode) -> NoReturn:
    """End the call with the reason code alone."""
    status = grpc.StatusCode.RESOURCE_EXHAUSTED if code is ReasonCode.OUT_OF_MEMORY else grpc.StatusCode.ABORTED
    context.abort(status, code.value)
    raise AssertionError("abort raises")
