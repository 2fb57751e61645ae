"""What the federation is worth: each hospital alone, and all cases pooled in one place, against the federated model.

A hospital alone makes as many steps as it made in the federation; pooled training makes as many as all hospitals together. Plan, batch
size, start and learning-rate schedule are the same. The test is the unseen hospital, on the scans' own voxels.
"""

from collections.abc import Sequence

import torch
from rich.console import Console

from gmmas_cli.demo_deployment import DemoFolder, training_sites
from gmmas_cli.demo_report import accuracy_table, markdown_table
from gmmas_cli.demo_unseen import score_unseen
from gmmas_cli.progress import progress_bar
from gmmas_data.cache import SampleCache
from gmmas_data.layouts import read_cohort
from gmmas_data.samples import Sample
from gmmas_data.splits import split_patients
from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import load_tensors
from gmmas_runtime.files import write_atomic
from gmmas_schema.federation import FederationConfig
from gmmas_schema.messages import Evaluation
from gmmas_schema.phantom import PhantomSpec
from gmmas_schema.site import SiteConfig
from gmmas_schema.vocabulary import MODALITIES, Modality, Split
from gmmas_workflows.evaluation import summarise
from gmmas_workflows.local_rounds import run_local_rounds
from gmmas_workflows.training import LocalTrainer
from server.initial_model import make_initial_model

THREADS = 2
POOLED = "pooled"


def run_baselines(console: Console, folder: DemoFolder, spec: PhantomSpec, config: FederationConfig, federated: Evaluation) -> None:
    """Train the baselines, print the table and write baselines.json and baselines.md."""
    names = [site.name for site in training_sites(spec)]
    train = {name: _training_samples(folder, name, config) for name in names}
    held = {site.name: tuple(site.modalities) for site in training_sites(spec)}
    rows = {"federated": federated}
    for name in names:
        rows[f"{name} alone"] = _train_and_test(console, folder, config, name, train[name], held[name], rounds=config.rounds)
    everything = [sample for name in names for sample in train[name]]
    rows[POOLED] = _train_and_test(console, folder, config, POOLED, everything, MODALITIES, rounds=config.rounds * len(names))
    console.print(accuracy_table(rows, title="unseen hospital: federated against alone and pooled"))
    write_atomic(folder.path / "baselines.md", markdown_table(rows).encode(), mode=0o644)
    text = "{" + ",\n".join(f'"{name}": {evaluation.model_dump_json()}' for name, evaluation in rows.items()) + "}\n"
    write_atomic(folder.path / "baselines.json", text.encode(), mode=0o644)


def _training_samples(folder: DemoFolder, name: str, config: FederationConfig) -> list[Sample]:
    """Return the very cases the hospital trained on in the federation."""
    data = SiteConfig.from_yaml(folder.site_yaml(name)).data
    cases = split_patients(read_cohort(data.root, labels=data.labels, modalities=data.modalities), data.split)[Split.TRAIN]
    cache = SampleCache(folder.cache, config.model.grid)
    return [cache.get(case) for case in cases]


def _train_and_test(
    console: Console,
    folder: DemoFolder,
    config: FederationConfig,
    name: str,
    samples: Sequence[Sample],
    modalities: tuple[Modality, ...],
    *,
    rounds: int,
) -> Evaluation:
    trainer = LocalTrainer(config.model, {Split.TRAIN: samples}, modalities=modalities, site=name, device="auto", threads=THREADS)
    start = make_initial_model(config)
    with progress_bar(console, f"{name}, steps") as update:
        tensors = run_local_rounds(
            trainer, start, config.training, rounds=rounds, seed=config.seed, run=f"baseline-{name}", on_progress=update
        )
    network = GmmasNetwork(config.model.network, modalities=trainer.modalities)
    load_tensors(network, tensors)
    torch.set_num_threads(THREADS)
    return summarise(score_unseen(folder, network), split=Split.TEST, seed=0)
