"""One site's part of a federated round: evaluate the model that came, train it on the site's cases, hand back what the site may change.

A round at a site is a pure function of the received tensors and the request: the optimiser is new each round, every random draw
follows from (seed, run, site, round), and nothing is carried over. So an interrupted run that is resumed gives the same weights as
one that was not, bit for bit on one kind of CPU with the same number of threads.

Groups of tensors that the site receives but does not send (gmmas_schema.groups) are frozen: no gradient, no weight decay.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

import numpy as np
import torch

from gmmas_data.samples import Sample
from gmmas_model.batch import Batch
from gmmas_model.losses import LossTerms
from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import load_tensors
from gmmas_runtime.memory import peak_memory_mib
from gmmas_runtime.stopwatch import Stopwatch
from gmmas_schema.calibration import CalibrationStatistics
from gmmas_schema.errors import DataError, GmmasError, ModelError, ProtocolError, ReasonCode
from gmmas_schema.federation import TrainingPlan
from gmmas_schema.groups import group_of
from gmmas_schema.messages import Evaluation, PseudoLabels, SiteDescription, SiteReport, Target, TaskRequest
from gmmas_schema.model import ModelDefinition
from gmmas_schema.vocabulary import MODALITIES, TASKS, Modality, Split, Task
from gmmas_workflows.anchors import measure_anchors
from gmmas_workflows.batches import count_labels, draw_batches, generators, has_label, restrict
from gmmas_workflows.calibration import FEWEST_TOLD, StatisticsCollector
from gmmas_workflows.evaluation import Observe, evaluate_network
from gmmas_workflows.objective import Objective
from gmmas_workflows.optimisation import learning_rate, make_optimizer
from gmmas_workflows.pseudo_labels import make_pseudo_labels
from strategies.exchange import names_up

Tensors = dict[str, np.ndarray]
Progress = Callable[[int, int], None]
"""Called with (done, total)."""
ShouldStop = Callable[[], bool]


@dataclass(frozen=True)
class TrainOutcome:
    """What a site hands back: new values of the groups it sends (float32), and its report."""

    tensors: Tensors
    report: SiteReport


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turn the allocation errors of torch and Python into one error with a code; a context and a decorator."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise GmmasError(
            "memory ran out",
            where="training or evaluation",
            expected="room for one batch",
            remedy="lower training.batch_size or the grid, or give the trainer more memory",
            code=ReasonCode.OUT_OF_MEMORY,
        ) from error


class LocalTrainer:
    """Trains and evaluates on one site's cases, which it keeps in memory.

    Args:
        definition: the model definition this site is set up for.
        samples: preprocessed cases per split; a missing split is empty.
        modalities: sequences the site offers. Those that no training case has are left out, for their encoder would learn nothing
            (at a site without training cases, which only evaluates: those that no case has).
        site: name of the site.
        device: `auto` is CUDA where present, else CPU.
        threads: CPU threads of torch; set for the whole process.
    """

    def __init__(
        self,
        definition: ModelDefinition,
        samples: Mapping[Split, Sequence[Sample]],
        *,
        modalities: Sequence[Modality],
        site: str,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        threads: int = 2,
    ) -> None:
        self.definition = definition
        self.site = site
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        self._digest = definition.digest()
        self.modalities = _held_modalities(samples.get(Split.TRAIN) or [s for part in samples.values() for s in part], modalities)
        self._samples = {split: restrict(samples.get(split, ()), self.modalities) for split in Split}
        torch.set_num_threads(threads)

    def describe(self) -> SiteDescription:
        """Return what the site holds, in counts of training cases."""
        cases = self._samples[Split.TRAIN]
        return SiteDescription(
            site=self.site,
            model_digest=self._digest,
            software=version("gmmas-fed"),
            modalities=self.modalities,
            cases=len(cases),
            labelled=count_labels(cases, self.definition.network.tasks),
        )

    @_memory_errors()
    def evaluate(self, tensors: Mapping[str, np.ndarray], request: TaskRequest, *, on_progress: Progress | None = None) -> Evaluation:
        """Evaluate the received model on the split `request.evaluate`.

        Raises:
            ProtocolError: the request names no split or another model definition.
            ModelError: the tensors are not those of this site's network.
            GmmasError: code OUT_OF_MEMORY.
        """
        return self.measure(tensors, request, on_progress=on_progress)[0]

    @_memory_errors()
    def measure(
        self, tensors: Mapping[str, np.ndarray], request: TaskRequest, *, on_progress: Progress | None = None
    ) -> tuple[Evaluation, CalibrationStatistics | None]:
        """Evaluate as `evaluate` does, and return beside it the sums that `request.calibrate` asks for, if it does."""
        self._check(request)
        network = self._load(tensors)
        if request.calibrate is None or request.evaluate is None:
            return self._evaluate(network, request, on_progress), None
        collector = StatisticsCollector(request.calibrate, spacing_mm=self.definition.grid.spacing_mm)
        evaluation = self._evaluate(network, request, on_progress, observe=collector.add)
        return evaluation, collector.statistics(split=self.source_of(request.evaluate), fewest=FEWEST_TOLD)

    @_memory_errors()
    def train(
        self,
        tensors: Mapping[str, np.ndarray],
        request: TaskRequest,
        *,
        on_progress: Progress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> TrainOutcome:
        """Run one round: load, evaluate what came, train, return what changed.

        Args:
            tensors: exactly the tensors of groups_received(modalities), float32.
            request: the round, its plan and the split to evaluate on.
            on_progress: called with (steps done, steps of this round).
            should_stop: asked before every step and after every evaluated case.

        Raises:
            ProtocolError: the request has no plan or names another model definition.
            ModelError: the tensors are not those of this site's network, or the loss or a gradient is not finite.
            GmmasError: code CANCELLED after `should_stop` said so; code OUT_OF_MEMORY.
        """
        watch = Stopwatch()
        plan = self._check(request).plan
        if plan is None:
            raise ProtocolError("a training request has no plan", got="none", expected="a TrainingPlan", remedy="update the coordinator")

        # 1. Put the received tensors into the network of this site's modalities.
        with watch.stage("load"):
            network = self._load(tensors)

        # 2. Evaluate the model as it came; the figures belong to the coordinator's previous round.
        evaluation = None
        if request.evaluate is not None:
            with watch.stage("evaluate"):
                evaluation = self._evaluate(
                    network, request, lambda done, _: _check_stop(should_stop, f"round {request.round}, case {done}")
                )

        # 3. Let the model as it came label what nobody labelled, for the targets that the coordinator says are ready.
        pseudo: list[Sample] = []
        ledger: dict[Target, PseudoLabels] = {}
        if request.ready:
            with watch.stage("pseudo_label"):
                pseudo, ledger = self._pseudo_label(network, request, plan, should_stop)

        # 4. Freeze what this site must not change.
        labelled = count_labels(self._samples[Split.TRAIN], self.definition.network.tasks)
        learned = tuple(target for target, counts in ledger.items() if counts.accepted)
        names = names_up(network.state_dict(), modalities=self.modalities, labelled=labelled, pseudo=learned, backbone=plan.backbone)
        sent = frozenset(names)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in sent)

        # 5. Add up the features of complete cases, by which sites that lack a sequence complete theirs; then train.
        anchors: Tensors = {}
        if any(group_of(name) == "anchors" for name in sent):
            with watch.stage("anchors"):
                anchors = self._measure_anchors(network, request, plan, should_stop)
        with watch.stage("train"):
            losses, steps = self._train(network, request, plan, pseudo, on_progress, should_stop) if sent else ({}, 0)

        # 6. Return new values of the groups that were trained, and counts; never anything per patient.
        changed = {n: t.detach().float().cpu().numpy().copy() for n, t in network.state_dict().items() if n in sent}
        changed |= anchors
        report = SiteReport(
            site=self.site,
            run=request.run,
            round=request.round,
            model_digest=self._digest,
            modalities=self.modalities,
            cases=len(self._trainable_cases(pseudo)) + len(pseudo),
            labelled=labelled,
            pseudo_labels=ledger,
            losses=losses,
            steps=steps,
            evaluation=evaluation,
            seconds=watch.seconds,
            cpu_seconds=watch.cpu_seconds,
            peak_memory_mib=peak_memory_mib(),
        )
        return TrainOutcome(changed, report)

    def _pseudo_label(
        self, network: GmmasNetwork, request: TaskRequest, plan: TrainingPlan, should_stop: ShouldStop | None
    ) -> tuple[list[Sample], dict[Target, PseudoLabels]]:
        """Return the training cases that got pseudo-labels, and the ledger."""
        return make_pseudo_labels(
            network,
            self._samples[Split.TRAIN],
            plan,
            ready=request.ready,
            generator=generators(request.seed, request.run, self.site, request.round, "pseudo-labels")[1],
            patch=self.definition.grid.patch,
            on_case=lambda case: _check_stop(should_stop, f"round {request.round}, pseudo-labels of case {case}"),
        )

    def _measure_anchors(self, network: GmmasNetwork, request: TaskRequest, plan: TrainingPlan, should_stop: ShouldStop | None) -> Tensors:
        """Return the site's sums and counts for the adapter's anchors."""
        return measure_anchors(
            network,
            self._samples[Split.TRAIN],
            plan,
            rng=generators(request.seed, request.run, self.site, request.round, "anchors")[0],
            patch=self.definition.grid.patch,
            on_case=lambda case: _check_stop(should_stop, f"round {request.round}, anchors of case {case}"),
        )

    def _train(
        self,
        network: GmmasNetwork,
        request: TaskRequest,
        plan: TrainingPlan,
        pseudo: Sequence[Sample],
        on_progress: Progress | None,
        should_stop: ShouldStop | None,
    ) -> tuple[dict[Task, float], int]:
        """Make the optimiser steps of one round; return the mean loss per task and the number of steps."""
        optimizer = make_optimizer(network, plan)
        first, steps = (request.round - 1) * plan.local_steps, request.rounds * plan.local_steps
        total = dict.fromkeys(TASKS, 0.0)
        counted = dict.fromkeys(TASKS, 0)
        seed = (request.seed, request.run, self.site, request.round)
        batches = draw_batches(self._trainable_cases(pseudo), plan, seed=seed, patch=self.definition.grid.patch, pseudo=pseudo)
        network.train()
        objective = Objective(network, plan, modalities=self.modalities)
        for step, batch in enumerate(batches):
            where = f"round {request.round}, step {step}"
            _check_stop(should_stop, where)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(plan, step=first + step, steps=steps)
            terms = self._step(objective, network, optimizer, batch.to(self.device), plan, where=where)
            for task, loss in terms.per_task.items():
                total[task] += float(loss) * terms.counted[task]
                counted[task] += terms.counted[task]
            if on_progress is not None:
                on_progress(step + 1, plan.local_steps)
        return {task: total[task] / counted[task] for task in TASKS if counted[task]}, plan.local_steps

    def _step(
        self,
        objective: Objective,
        network: GmmasNetwork,
        optimizer: torch.optim.Optimizer,
        batch: Batch,
        plan: TrainingPlan,
        *,
        where: str,
    ) -> LossTerms:
        """Make one optimiser step and return its loss."""
        terms = objective(batch)
        optimizer.zero_grad(set_to_none=True)
        terms.total.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), plan.gradient_clip_norm)
        _check_finite(terms, norm, where=where)
        optimizer.step()
        objective.after_step()
        return terms

    def _trainable_cases(self, pseudo: Sequence[Sample] = ()) -> tuple[Sample, ...]:
        """Return the training cases with at least one label that are not among those with pseudo-labels."""
        others, tasks = {sample.case_id for sample in pseudo}, self.definition.network.tasks
        return tuple(s for s in self._samples[Split.TRAIN] if s.case_id not in others and any(has_label(s, task) for task in tasks))

    def source_of(self, split: Split) -> Split:
        """Return the split whose cases stand for `split`: those of validation where no calibration patients are set aside."""
        return Split.VALIDATION if split is Split.CALIBRATION and not self._samples[split] else split

    def _evaluate(
        self, network: GmmasNetwork, request: TaskRequest, on_progress: Progress | None, *, observe: Observe | None = None
    ) -> Evaluation:
        if request.evaluate is None:
            raise ProtocolError(
                "an evaluation request names no split", got="none", expected=", ".join(Split), remedy="update the coordinator"
            )
        precision = request.plan.precision if request.plan is not None else "auto"
        return evaluate_network(
            network,
            self._samples[self.source_of(request.evaluate)],
            split=request.evaluate,
            seed=request.seed,
            patch=self.definition.grid.patch,
            precision=precision,
            on_progress=on_progress,
            observe=observe,
        )

    def _check(self, request: TaskRequest) -> TaskRequest:
        """Refuse a request for another model definition."""
        if request.model.digest() == self._digest:
            return request
        raise ProtocolError(
            "the request is for another model definition",
            got=request.model.digest()[:12],
            expected=self._digest[:12],
            remedy="use the same software version and model definition on both sides",
            code=ReasonCode.MODEL_DEFINITION,
        )

    def _load(self, tensors: Mapping[str, np.ndarray]) -> GmmasNetwork:
        """Return the site's network holding copies of the received tensors."""
        network = GmmasNetwork(self.definition.network, modalities=self.modalities)
        load_tensors(network, tensors)
        return network.to(self.device)


def _held_modalities(samples: Sequence[Sample], offered: Sequence[Modality]) -> tuple[Modality, ...]:
    """Return the offered modalities that at least one of the samples has."""
    held = {m for sample in samples for m, present in zip(MODALITIES, sample.present_M, strict=True) if present}
    if not held & set(offered):
        raise DataError(
            "no case has a sequence that this site offers",
            got=f"{len(samples)} cases",
            expected=f"at least one with {' or '.join(offered)}",
            remedy="check data.root and data.modalities in site.yaml",
        )
    return tuple(m for m in MODALITIES if m in held and m in offered)


def _check_stop(should_stop: ShouldStop | None, where: str) -> None:
    if should_stop is not None and should_stop():
        raise GmmasError("training was cancelled", where=where, code=ReasonCode.CANCELLED)


def _check_finite(terms: LossTerms, gradient_norm: torch.Tensor, *, where: str) -> None:
    """Refuse a step whose loss or gradient is not finite, before it reaches the weights."""
    loss, norm = float(terms.total.detach()), float(gradient_norm.detach())
    if math.isfinite(loss) and math.isfinite(norm):
        return
    raise ModelError(
        "training diverged",
        where=where,
        got=f"loss {loss}, gradient norm {norm}",
        expected="finite values",
        remedy="lower training.learning_rate or training.gradient_clip_norm; check the scans with `gmmas data check`",
    )
