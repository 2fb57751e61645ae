"""What the federation is worth: each hospital alone, and all cases pooled in one place, against the federated model.

A hospital alone makes as many steps as it made in the federation; pooled training makes as many as all hospitals together. Plan, batch
size, start and learning-rate schedule are the same, but every label trains whatever it can: what a hospital leaves to others in the
federation it must learn by itself alone. The test is the unseen hospital, on the scans' own voxels. A baseline is the last
model of its training; the federated model is the run's best by validation.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from rich.console import Console

from gmmas_cli.accuracy_report import accuracy_table, markdown_table
from gmmas_cli.demo_deployment import DemoFolder, training_sites
from gmmas_cli.demo_unseen import sample_cache, score_unseen
from gmmas_cli.progress import progress_bar
from gmmas_data.layouts import read_cases
from gmmas_data.parallel import map_in_processes
from gmmas_data.samples import Sample
from gmmas_data.splits import split_patients
from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import load_tensors
from gmmas_runtime.files import write_atomic
from gmmas_schema.federation import FederationConfig
from gmmas_schema.messages import Evaluation
from gmmas_schema.phantom import PhantomSpec
from gmmas_schema.site import DataConfig, SiteConfig
from gmmas_schema.vocabulary import Modality, Split
from gmmas_workflows.evaluation import summarise
from gmmas_workflows.local_rounds import local_rounds
from gmmas_workflows.training import LocalTrainer
from server.initial_model import make_initial_model


@dataclass(frozen=True)
class Baseline:
    """One training without a federation: whose cases, and for how many rounds."""

    name: str
    hospitals: tuple[str, ...]
    rounds: int


def run_baselines(console: Console, folder: DemoFolder, spec: PhantomSpec, config: FederationConfig, federated: Evaluation) -> None:
    """Train the baselines side by side, print the table and write baselines.json and baselines.md."""
    names = tuple(site.name for site in training_sites(spec))
    # The longest first, so that the cores end together.
    baselines = [
        Baseline("pooled", names, config.rounds * len(names)),
        *(Baseline(f"{name} alone", (name,), config.rounds) for name in names),
    ]
    with progress_bar(console, "   baselines") as update:
        processes = len(os.sched_getaffinity(0))
        measured = map_in_processes(partial(_train_and_test, folder, config), baselines, processes=processes, on_progress=update)
    rows = {"federated": federated} | {baseline.name: result for baseline, result in zip(baselines, measured, strict=True)}
    console.print(accuracy_table(rows, title="unseen hospital: federated against pooled and alone", first="model"))
    write_atomic(folder.path / "baselines.md", markdown_table(rows).encode(), mode=0o644)
    content = {name: evaluation.model_dump(mode="json") for name, evaluation in rows.items()}
    write_atomic(folder.path / "baselines.json", json.dumps(content, indent=1).encode() + b"\n", mode=0o644)


def _train_and_test(folder: DemoFolder, config: FederationConfig, baseline: Baseline) -> Evaluation:
    """Train one baseline and test it on the unseen hospital; runs in a worker process."""
    torch.set_num_threads(1)
    samples: list[Sample] = []
    offered: set[Modality] = set()
    for name in baseline.hospitals:
        data = SiteConfig.from_yaml(folder.site_yaml(name)).data
        samples += _training_samples(folder, data)
        offered |= set(data.modalities)
    trainer = LocalTrainer(config.model, {Split.TRAIN: samples}, modalities=tuple(offered), site=baseline.name, threads=1)
    start, run = make_initial_model(config), f"baseline-{baseline.name}"
    plan = config.training.model_copy(update={"backbone": "any", "enhancing_needs_t1ce": "never"})
    *_, last = local_rounds(trainer, start, plan, rounds=baseline.rounds, seed=config.seed, run=run)
    network = GmmasNetwork(config.model.network, modalities=trainer.modalities)
    load_tensors(network, last.tensors)
    return summarise(score_unseen(folder, network), split=Split.TEST, seed=0)


def _training_samples(folder: DemoFolder, data: DataConfig) -> Sequence[Sample]:
    """Return the very cases a hospital trained on in the federation."""
    cases = split_patients(read_cases(data), data.split)[Split.TRAIN]
    cache = sample_cache(folder)
    return [cache.get(case) for case in cases]
