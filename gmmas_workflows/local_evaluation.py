"""What a received model does on one site's cases: the half of a round that changes no weight.

Figures over few patients, and sums that a calibration asks for, are left out below what the site's policy wants behind them.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from gmmas_data.samples import Sample
from gmmas_model.determinism import reserve_workspace
from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import load_tensors
from gmmas_runtime.sealed_files import PLAIN, Seal
from gmmas_schema.calibration import CalibrationStatistics
from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.messages import Evaluation, SiteDescription, TaskRequest
from gmmas_schema.model import ModelDefinition
from gmmas_schema.policy import FewestPatients
from gmmas_schema.vocabulary import Modality, Split
from gmmas_workflows.batches import count_labels, held_modalities, restrict
from gmmas_workflows.calibration import StatisticsCollector
from gmmas_workflows.earlier_scores import EarlierScores
from gmmas_workflows.evaluation import CaseScore, Observe, score_samples, summarise
from gmmas_workflows.local_steps import Progress, memory_errors
from gmmas_workflows.personalised import PersonalNorms
from gmmas_workflows.subset_evaluation import FEWEST_PATIENTS, evaluate_subsets

Tensors = dict[str, np.ndarray]

ALL_TOLD = FewestPatients()
"""What leaves where a site's policy says nothing else: figures over any number of patients, sums for calibration over two or more."""


class LocalEvaluator:
    """Evaluates what the coordinator sends on one site's cases, which it keeps in memory.

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
        reserve_workspace(self.device)

    def describe(self) -> SiteDescription:
        """Return what the site holds, in counts of training cases."""
        cases = self._samples[Split.TRAIN]
        return SiteDescription(
            site=self.site,
            model_digest=self._digest,
            software=version("gmmas-fed"),
            modalities=self.modalities,
            **self._count(cases),
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

    def _count(self, cases: Sequence[Sample]) -> dict[str, Any]:
        """Return what the site's labels are, as the fields of a description and of a report."""
        return dict(count_labels(cases, self.definition.network.tasks, modalities=self.modalities))

    def _consider_last(self, network: GmmasNetwork, request: TaskRequest) -> None:
        """Judge the site's own form of the last model too, where the run is personalised; its figures stay at the site.

        Of no other model is an evaluation on validation patients asked for; which round is the last, a spent budget may decide.
        """
        if request.evaluate is Split.VALIDATION and self._norms.put_in(network, run=request.run, round=request.round + 1):
            evaluation = self._summarise(self._score(network, request, None), request)
            self._norms.consider(network, evaluation, run=request.run, model_round=request.round)

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
