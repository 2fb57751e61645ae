"""client.trainer with a stand-in for the cohort and the training; service, channel and process are the real ones, torch is loaded."""

import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

import client.trainer_servicer
from benchmarks.federation.stand_in import train
from client.cohort import SiteCohort
from client.trainer import main
from gmmas_data.cases import Case
from gmmas_runtime.memory import peak_memory_mib
from gmmas_schema.messages import Evaluation, Interval, SiteDescription, SiteReport, TaskRequest
from gmmas_schema.model import ModelDefinition
from gmmas_schema.vocabulary import MODALITIES, REGIONS, Layout, Split, Task
from gmmas_workflows.training import TrainOutcome

PATIENTS = {Split.TRAIN: 20, Split.VALIDATION: 4}
LABELLED = dict.fromkeys((Task.SEGMENTATION, Task.IDH, Task.CODELETION), PATIENTS[Split.TRAIN])


class StandInTrainer:
    """What the service needs of gmmas_workflows.training.LocalTrainer."""

    def __init__(self, definition: ModelDefinition, *_: object, site: str, **__: object) -> None:
        self.definition, self._site = definition, site

    def train(self, tensors: Mapping[str, np.ndarray], request: TaskRequest, **_: object) -> TrainOutcome:
        """Sleep, and return the received values a little moved."""
        train(self._site, round_number=request.round)
        return TrainOutcome({name: value + np.float32(1e-3) for name, value in tensors.items()}, self.report(request))

    def report(self, request: TaskRequest) -> SiteReport:
        """Return a report whose accuracy is made up."""
        dice = {region: Interval(value=0.5, n=PATIENTS[Split.VALIDATION]) for region in REGIONS}
        return SiteReport(
            site=self._site,
            run=request.run,
            round=request.round,
            model_digest=request.model.digest(),
            modalities=MODALITIES,
            cases=PATIENTS[Split.TRAIN],
            labelled=LABELLED,
            losses=dict.fromkeys(LABELLED, 0.5),
            steps=1,
            evaluation=Evaluation(split=request.evaluate or Split.VALIDATION, cases=PATIENTS[Split.VALIDATION], dice=dice),
            peak_memory_mib=peak_memory_mib(),
        )


def open_cohort(*_: object, **__: object) -> SiteCohort:
    """Return patients without files, for a site's policy asks how many it trains on."""
    cases = {
        split: tuple(Case(f"{split}-{number}", f"{split}-{number}", {}, None, Layout.BRATS2021) for number in range(PATIENTS.get(split, 0)))
        for split in Split
    }
    return SiteCohort(cases, 0)


def describe(_: SiteCohort, *, site: str, model: ModelDefinition) -> SiteDescription:
    """Return a site that has everything."""
    return SiteDescription(
        site=site, model_digest=model.digest(), software="benchmark", modalities=MODALITIES, cases=PATIENTS[Split.TRAIN], labelled=LABELLED
    )


def put_in() -> None:
    """Put the stand-ins into the service."""
    servicer: Any = client.trainer_servicer
    servicer.open_cohort = open_cohort
    servicer.describe_cohort = describe
    servicer.prepare_samples = lambda *_, **__: {}
    servicer.LocalTrainer = StandInTrainer
    servicer.report_evaluation = lambda trainer, _tensors, request, **__: trainer.report(request)


if __name__ == "__main__":
    put_in()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
