"""One site's part of a federated round: evaluate the model that came, train it on the site's cases, hand back what the site may change.

A round at a site is a pure function of the received tensors and the request: the optimiser is new each round, every random draw
follows from (seed, run, site, round), and nothing is carried over but, in the personalised mode, the site's norms, which name their run
and round (gmmas_workflows.personalised). So an interrupted run that is resumed gives the same weights as one that was not, bit for bit
on one kind of CPU with the same number of threads; on a GPU as far as PyTorch has deterministic kernels (gmmas_model.determinism).

Groups of tensors that the site receives but does not send (gmmas_schema.groups) are frozen: no gradient, no weight decay.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from gmmas_data.samples import Sample
from gmmas_model.determinism import deterministic
from gmmas_model.network import GmmasNetwork
from gmmas_model.norms import norm_names
from gmmas_runtime.memory import peak_memory_mib
from gmmas_runtime.stopwatch import Stopwatch
from gmmas_schema.errors import ProtocolError
from gmmas_schema.federation import TrainingPlan
from gmmas_schema.groups import group_of
from gmmas_schema.messages import Evaluation, PseudoLabels, SiteReport, Target, TaskRequest
from gmmas_schema.policy import FewestPatients
from gmmas_schema.vocabulary import Split, Task
from gmmas_workflows.anchors import measure_anchors
from gmmas_workflows.batches import draw_batches, generators, has_label
from gmmas_workflows.local_evaluation import ALL_TOLD, LocalEvaluator, Tensors
from gmmas_workflows.local_steps import Progress, ShouldStop, check_stop, make_steps, memory_errors
from gmmas_workflows.pseudo_labels import make_pseudo_labels
from strategies.exchange import names_up


@dataclass(frozen=True)
class TrainOutcome:
    """What a site hands back: new values of the groups it sends (float32), and its report."""

    tensors: Tensors
    report: SiteReport


class LocalTrainer(LocalEvaluator):
    """Trains on one site's cases, and evaluates; arguments as of LocalEvaluator."""

    @memory_errors()
    def train(
        self,
        tensors: Mapping[str, np.ndarray],
        request: TaskRequest,
        *,
        fewest: FewestPatients = ALL_TOLD,
        on_progress: Progress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> TrainOutcome:
        """Run one round: load, evaluate what came, train, return what changed.

        Args:
            tensors: exactly the tensors of groups_received(modalities), float32.
            request: the round, its plan and the split to evaluate on.
            fewest: patients behind each figure of the evaluation.
            on_progress: called with (steps done, steps of this round).
            should_stop: asked before every step and after every evaluated case.

        Raises:
            ProtocolError: the request has no plan or names another model definition.
            ModelError: the tensors are not those of this site's network, or the loss or a gradient is not finite.
            GmmasError: code CANCELLED after `should_stop` said so; code OUT_OF_MEMORY.
        """
        plan = self._check(request).plan
        if plan is None:
            raise ProtocolError("a training request has no plan", got="none", expected="a TrainingPlan", remedy="update the coordinator")
        with deterministic(self.device):
            return self._round(tensors, request, plan, fewest, on_progress, should_stop)

    def _round(
        self,
        tensors: Mapping[str, np.ndarray],
        request: TaskRequest,
        plan: TrainingPlan,
        fewest: FewestPatients,
        on_progress: Progress | None,
        should_stop: ShouldStop | None,
    ) -> TrainOutcome:
        watch = Stopwatch()
        # 1. Put the received tensors into the network of this site's modalities.
        with watch.stage("load"):
            network = self._load(tensors)

        # 2. Evaluate the model as it came; the figures belong to the coordinator's previous round. Personalised: then the site's own.
        with watch.stage("evaluate") if request.evaluate is not None else nullcontext():
            evaluation, personalised = self._judge(network, request, plan, fewest, should_stop)

        # 3. Let the model label what nobody labelled, for the targets that the coordinator says are ready.
        pseudo: list[Sample] = []
        ledger: dict[Target, PseudoLabels] = {}
        if request.ready:
            with watch.stage("pseudo_label"):
                pseudo, ledger = self._pseudo_label(network, request, plan, should_stop)

        # 4. Freeze what this site must not change.
        counts = self._count(self._samples[Split.TRAIN])
        sent = self._freeze(network, plan, counts["labelled"], ledger)

        # 5. Add up the features of complete cases, by which sites that lack a sequence complete theirs; then train.
        anchors: Tensors = {}
        if any(group_of(name) == "anchors" for name in sent):
            with watch.stage("anchors"):
                anchors = self._measure_anchors(network, request, plan, should_stop)
        with watch.stage("train"):
            losses = self._train(network, request, plan, pseudo, on_progress, should_stop) if sent else {}
        if plan.personalised == "norms":
            self._norms.keep(network, trained=sent, run=request.run, round=request.round, counted=request.counted)

        # 6. Return new values of the groups that were trained, and counts; never anything per patient.
        changed = {n: t.detach().float().cpu().numpy().copy() for n, t in network.state_dict().items() if n in sent}
        report = SiteReport(
            site=self.site,
            run=request.run,
            round=request.round,
            model_digest=self._digest,
            modalities=self.modalities,
            **counts | {"cases": sum(map(len, self._pools(pseudo)))},
            pseudo_labels=ledger,
            losses=losses,
            steps=plan.local_steps if sent else 0,
            evaluation=evaluation,
            personalised=personalised,
            seconds=watch.seconds,
            cpu_seconds=watch.cpu_seconds,
            peak_memory_mib=peak_memory_mib(),
        )
        return TrainOutcome(changed | anchors, report)

    def _freeze(
        self, network: GmmasNetwork, plan: TrainingPlan, labelled: Mapping[Task, int], ledger: Mapping[Target, PseudoLabels]
    ) -> frozenset[str]:
        """Freeze the parameters that the site does not send, and return the names of the tensors that it does."""
        learned = tuple(target for target, counts in ledger.items() if counts.accepted)
        names = names_up(network.state_dict(), modalities=self.modalities, labelled=labelled, pseudo=learned, backbone=plan.backbone)
        sent = frozenset(names)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in sent)
        return sent

    def _judge(
        self, network: GmmasNetwork, request: TaskRequest, plan: TrainingPlan, fewest: FewestPatients, should_stop: ShouldStop | None
    ) -> tuple[Evaluation | None, Evaluation | None]:
        """Evaluate the model as it came; in the personalised mode make it the site's own, which stays, and evaluate that too."""

        def check(done: int, _: int) -> None:
            check_stop(should_stop, f"round {request.round}, case {done}")

        scores = None if request.evaluate is None else self._score(network, request, check)
        evaluation = None if scores is None else self._summarise(scores, request, fewest)
        if plan.personalised == "none":
            return evaluation, None
        own = self._norms.put_in(network, run=request.run, round=request.round, counted=request.counted)
        if scores is None:
            return None, None
        if own:
            scores = self._score(network, request, check)
        # What stays at the site is chosen by all that the site knows.
        self._norms.consider(network, self._summarise(scores, request), run=request.run, model_round=request.round - 1)
        return evaluation, self._summarise(scores, request, fewest)

    def _train(
        self,
        network: GmmasNetwork,
        request: TaskRequest,
        plan: TrainingPlan,
        pseudo: Sequence[Sample],
        on_progress: Progress | None,
        should_stop: ShouldStop | None,
    ) -> dict[Task, float]:
        """Make the optimiser steps of one round on the site's cases; return the mean loss per task."""
        seed = (request.seed, request.run, self.site, request.round)
        own, others = self._pools(pseudo)
        return make_steps(
            network,
            draw_batches(own, plan, seed=seed, patch=self.definition.grid.patch, pseudo=others),
            request,
            plan,
            modalities=self.modalities,
            free=norm_names(network) if plan.personalised == "norms" else (),
            on_progress=on_progress,
            should_stop=should_stop,
        )

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
            on_case=lambda case: check_stop(should_stop, f"round {request.round}, pseudo-labels of case {case}"),
        )

    def _measure_anchors(self, network: GmmasNetwork, request: TaskRequest, plan: TrainingPlan, should_stop: ShouldStop | None) -> Tensors:
        """Return the site's sums and counts for the adapter's anchors."""
        return measure_anchors(
            network,
            self._samples[Split.TRAIN],
            plan,
            rng=generators(request.seed, request.run, self.site, request.round, "anchors")[0],
            patch=self.definition.grid.patch,
            on_case=lambda case: check_stop(should_stop, f"round {request.round}, anchors of case {case}"),
        )

    def _pools(self, pseudo: Sequence[Sample] = ()) -> tuple[list[Sample], list[Sample]]:
        """Return the training cases with labels of their own, and those with pseudo-labels and no outline of their own.

        Args:
            pseudo: cases with pseudo-labels; they stand for themselves as they were.
        """
        changed, tasks = {sample.case_id: sample for sample in pseudo}, self.definition.network.tasks
        own: list[Sample] = []
        others: list[Sample] = []
        for sample in self._samples[Split.TRAIN]:
            if sample.case_id in changed and sample.regions_RXYZ is None:
                others.append(changed[sample.case_id])
            elif any(has_label(sample, task) for task in tasks):
                own.append(changed.get(sample.case_id, sample))
        return own, others
