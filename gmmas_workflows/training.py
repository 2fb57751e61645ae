"""One site's part of a federated round: evaluate the model that came, train it on the site's cases, hand back what the site may change.

A round at a site is a pure function of the received tensors and the request: the optimiser is new each round, every random draw
follows from (seed, run, site, round), and nothing is carried over but, in the personalised mode, the site's norms, which name their run
and round (gmmas_workflows.personalised). So an interrupted run that is resumed gives the same weights as one that was not, bit for bit
on one kind of CPU with the same number of threads.

Groups of tensors that the site receives but does not send (gmmas_schema.groups) are frozen: no gradient, no weight decay.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from gmmas_data.samples import Sample
from gmmas_model.network import GmmasNetwork
from gmmas_model.norms import norm_names
from gmmas_model.weights import load_tensors
from gmmas_runtime.memory import peak_memory_mib
from gmmas_runtime.sealed_files import PLAIN, Seal
from gmmas_runtime.stopwatch import Stopwatch
from gmmas_schema.calibration import CalibrationStatistics
from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.federation import TrainingPlan
from gmmas_schema.groups import group_of
from gmmas_schema.messages import Evaluation, PseudoLabels, SiteDescription, SiteReport, Target, TaskRequest
from gmmas_schema.model import ModelDefinition
from gmmas_schema.policy import FewestPatients
from gmmas_schema.vocabulary import Modality, Split, Task
from gmmas_workflows.anchors import measure_anchors
from gmmas_workflows.batches import count_labels, draw_batches, generators, has_label, held_modalities, restrict
from gmmas_workflows.calibration import StatisticsCollector
from gmmas_workflows.earlier_scores import EarlierScores
from gmmas_workflows.evaluation import CaseScore, Observe, score_samples, summarise
from gmmas_workflows.local_steps import Progress, ShouldStop, check_stop, make_steps, memory_errors
from gmmas_workflows.personalised import PersonalNorms
from gmmas_workflows.pseudo_labels import make_pseudo_labels
from gmmas_workflows.subset_evaluation import FEWEST_PATIENTS, evaluate_subsets
from strategies.exchange import names_up

Tensors = dict[str, np.ndarray]

ALL_TOLD = FewestPatients()
"""What leaves where a site's policy says nothing else: figures over any number of patients, sums for calibration over two or more."""


@dataclass(frozen=True)
class TrainOutcome:
    """What a site hands back: new values of the groups it sends (float32), and its report."""

    tensors: Tensors
    report: SiteReport


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
        folder: where the personalised mode keeps what is the site's own; None keeps it in memory, for as long as this object lives.
        seal: how that lies on the disk.
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
        folder: Path | None = None,
        seal: Seal = PLAIN,
    ) -> None:
        self.definition = definition
        self.site = site
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        self._digest = definition.digest()
        self.modalities = held_modalities(samples.get(Split.TRAIN) or [s for part in samples.values() for s in part], modalities)
        self._samples = {split: restrict(samples.get(split, ()), self.modalities) for split in Split}
        self._measured = EarlierScores()
        self._norms = PersonalNorms(site, definition, folder=folder, seal=seal)
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

    @memory_errors()
    def evaluate(self, tensors: Mapping[str, np.ndarray], request: TaskRequest, *, on_progress: Progress | None = None) -> Evaluation:
        """Evaluate the received model on the split `request.evaluate`.

        Raises:
            ProtocolError: the request names no split or another model definition.
            ModelError: the tensors are not those of this site's network.
            GmmasError: code OUT_OF_MEMORY.
        """
        return self.measure(tensors, request, on_progress=on_progress)[0]

    @memory_errors()
    def measure(
        self,
        tensors: Mapping[str, np.ndarray],
        request: TaskRequest,
        *,
        fewest: FewestPatients = ALL_TOLD,
        on_progress: Progress | None = None,
    ) -> tuple[Evaluation, CalibrationStatistics | None]:
        """Evaluate as `evaluate` does, and return beside it the sums that `request.calibrate` asks for, if it does.

        A figure or sum that fewer patients than `fewest` stand behind is left out.
        """
        self._check(request)
        network = self._load(tensors)
        if request.calibrate is None or request.evaluate is None:
            scores = self._score(network, request, on_progress)
            self._consider_last(network, request)
            return self._summarise(scores, request, fewest), None
        collector = StatisticsCollector(request.calibrate, spacing_mm=self.definition.grid.spacing_mm)
        scores = self._score(network, request, on_progress, observe=collector.add)
        sums = collector.statistics(split=self.source_of(request.evaluate), fewest=fewest.calibrate)
        return self._summarise(scores, request, fewest), sums

    @memory_errors()
    def measure_subsets(
        self,
        tensors: Mapping[str, np.ndarray],
        request: TaskRequest,
        *,
        fewest: FewestPatients = ALL_TOLD,
        on_progress: Progress | None = None,
    ) -> dict[str, Evaluation]:
        """Evaluate the received model for every subset of the site's sequences that enough patients have; errors as of `evaluate`."""
        self._check(request)
        split = request.evaluate or Split.TEST
        return evaluate_subsets(
            self._load(tensors),
            self._samples[self.source_of(split)],
            split=split,
            seed=request.seed,
            patch=self.definition.grid.patch,
            fewest=max(fewest.evaluate, FEWEST_PATIENTS),
            on_progress=on_progress,
        )

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
        watch = Stopwatch()
        plan = self._check(request).plan
        if plan is None:
            raise ProtocolError("a training request has no plan", got="none", expected="a TrainingPlan", remedy="update the coordinator")

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
        labelled = count_labels(self._samples[Split.TRAIN], self.definition.network.tasks)
        sent = self._freeze(network, plan, labelled, ledger)

        # 5. Add up the features of complete cases, by which sites that lack a sequence complete theirs; then train.
        anchors: Tensors = {}
        if any(group_of(name) == "anchors" for name in sent):
            with watch.stage("anchors"):
                anchors = self._measure_anchors(network, request, plan, should_stop)
        with watch.stage("train"):
            losses = self._train(network, request, plan, pseudo, on_progress, should_stop) if sent else {}
        if plan.personalised == "norms":
            self._norms.keep(network, trained=sent, run=request.run, round=request.round)

        # 6. Return new values of the groups that were trained, and counts; never anything per patient.
        changed = {n: t.detach().float().cpu().numpy().copy() for n, t in network.state_dict().items() if n in sent}
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
        own = self._norms.put_in(network, run=request.run, round=request.round)
        if scores is None:
            return None, None
        if own:
            scores = self._score(network, request, check)
        # What stays at the site is chosen by all that the site knows.
        self._norms.consider(network, self._summarise(scores, request), run=request.run, model_round=request.round - 1)
        return evaluation, self._summarise(scores, request, fewest)

    def _consider_last(self, network: GmmasNetwork, request: TaskRequest) -> None:
        """Judge the site's own form of the last model too, where the run is personalised; its figures stay at the site."""
        last = request.evaluate is Split.VALIDATION and request.round == request.rounds
        if last and self._norms.put_in(network, run=request.run, round=request.round + 1):
            evaluation = self._summarise(self._score(network, request, None), request)
            self._norms.consider(network, evaluation, run=request.run, model_round=request.round)

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
        return make_steps(
            network,
            draw_batches(self._trainable_cases(pseudo), plan, seed=seed, patch=self.definition.grid.patch, pseudo=pseudo),
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

    def _trainable_cases(self, pseudo: Sequence[Sample] = ()) -> tuple[Sample, ...]:
        """Return the training cases with at least one label that are not among those with pseudo-labels."""
        others, tasks = {sample.case_id for sample in pseudo}, self.definition.network.tasks
        return tuple(s for s in self._samples[Split.TRAIN] if s.case_id not in others and any(has_label(s, task) for task in tasks))

    def source_of(self, split: Split) -> Split:
        """Return the split whose cases stand for `split`: those of validation where no calibration patients are set aside."""
        return Split.VALIDATION if split is Split.CALIBRATION and not self._samples[split] else split

    def _score(
        self, network: GmmasNetwork, request: TaskRequest, on_progress: Progress | None, *, observe: Observe | None = None
    ) -> list[CaseScore]:
        if request.evaluate is None:
            raise ProtocolError(
                "an evaluation request names no split", got="none", expected=", ".join(Split), remedy="update the coordinator"
            )
        precision = request.plan.precision if request.plan is not None else "auto"
        return score_samples(
            network,
            self._samples[self.source_of(request.evaluate)],
            patch=self.definition.grid.patch,
            precision=precision,
            on_progress=on_progress,
            observe=observe,
        )

    def _summarise(self, scores: Sequence[CaseScore], request: TaskRequest, fewest: FewestPatients = ALL_TOLD) -> Evaluation:
        assert request.evaluate is not None, "cases were scored"
        evaluation = summarise(scores, split=request.evaluate, seed=request.seed, fewest=fewest.evaluate)
        return self._measured.compare(evaluation, scores, request, fewest=fewest.evaluate)

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
