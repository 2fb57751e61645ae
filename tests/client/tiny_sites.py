"""Real trainers with tiny networks and cases, in the true round loop of the coordinator."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from client.in_process import InProcessSite
from gmmas_data.samples import Sample
from gmmas_schema.federation import FederationConfig, QuorumConfig, TrainingPlan
from gmmas_schema.model import GridConfig, ModelDefinition, NetworkConfig
from gmmas_schema.strategy import FedAvgStrategy
from gmmas_schema.vocabulary import MODALITIES, Modality, Split
from gmmas_workflows.training import LocalTrainer
from server.checkpoint import RunFolder
from server.events import EventLog
from server.local_grid import LocalGrid
from server.rounds import run_federation
from tests.server.simulated_sites import RecordingTracker

SIDE = 8
TINY = ModelDefinition(
    network=NetworkConfig(channels=(2, 4), blocks=(1, 1), transformer_layers=1, transformer_heads=2),
    grid=GridConfig(spacing_mm=8.0, shape=(SIDE, SIDE, SIDE)),
)
FLAIR_ONLY = (Modality.FLAIR,)


def make_sample(number: int, modalities=MODALITIES, **changes: object) -> Sample:
    rng = np.random.default_rng(number)
    regions_RXYZ = np.zeros((3, SIDE, SIDE, SIDE), np.uint8)
    regions_RXYZ[:, 2:6, 2:6, 2:6] = 1
    present_M = np.array([m in modalities for m in MODALITIES])
    image_MXYZ = rng.normal(size=(4, SIDE, SIDE, SIDE)).astype(np.float32) * present_M[:, None, None, None]
    affine = np.diag([8.0, 8, 8, 1])
    idh, codeletion = float(number % 2), math.nan
    sample = Sample(f"c{number}", f"p{number}", image_MXYZ, present_M, regions_RXYZ, idh, codeletion, affine, affine, (8, 8, 8))
    return replace(sample, **changes)


def make_trainer(
    site: str,
    modalities=MODALITIES,
    *,
    first: int = 0,
    model: ModelDefinition = TINY,
    folder: Path | None = None,
    **changes: object,
) -> LocalTrainer:
    samples = {
        Split.TRAIN: [make_sample(first + n, modalities, **changes) for n in range(3)],
        Split.VALIDATION: [make_sample(first + 3, modalities, **changes)],
        Split.TEST: [make_sample(first + 4, modalities, **changes)],
    }
    return LocalTrainer(model, samples, modalities=modalities, site=site, device="cpu", threads=1, folder=folder)


def make_config(sites: int, model: ModelDefinition = TINY) -> FederationConfig:
    quorum = QuorumConfig(sites=sites, replies=sites, round_attempts=1)
    plan = TrainingPlan(local_steps=2, warmup_steps=1, precision="fp32")
    return FederationConfig(name="t", seed=3, rounds=2, model=model, training=plan, strategy=FedAvgStrategy(), quorum=quorum)


def run(trainers, folder: RunFolder):
    grid = LocalGrid({node: InProcessSite(trainer) for node, trainer in enumerate(trainers, start=10)})
    return run_federation(grid, folder, tracker=RecordingTracker(), events=EventLog(folder.events_path))
