"""What the trainer costs beside the arithmetic: samples per second of LocalTrainer.train against a bare loop, in one run.

Both make the same optimiser steps on the same cases under the same modality dropout, with the same network, loss and precision. The bare
loop has its batches as tensors in memory and does forward, loss, backward and optimiser step; the trainer also loads the received model,
draws, augments and collates, clips gradients, checks every step for divergence and hands the weights back. One call of either is one round.
They alternate, and the figure is the median of the pairwise ratios, so that a busy machine slows both alike.

Images are random in an ellipsoid the size of a brain: what they show does not change the time.
"""

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.software import commit
from gmmas_data.samples import Sample
from gmmas_model.losses import multi_task_loss
from gmmas_model.network import GmmasNetwork
from gmmas_model.precision import autocast
from gmmas_model.weights import load_tensors
from gmmas_schema.federation import FederationConfig
from gmmas_schema.messages import Action, TaskRequest
from gmmas_schema.vocabulary import MODALITIES, Split
from gmmas_workflows.batches import draw_batches
from gmmas_workflows.optimisation import make_optimizer
from gmmas_workflows.training import LocalTrainer
from server.initial_model import make_initial_model

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "trainer_throughput.json"
SITE, RUN, SEED = "north", "throughput", 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", type=Path, default=ROOT / "site_configs" / "federation-demo.yaml", help="network, grid and training plan"
    )
    parser.add_argument("--cases", type=int, default=18)
    parser.add_argument("--pairs", type=int, default=8, help="rounds of each kind")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    config = FederationConfig.from_yaml(options.config)
    samples = [make_sample(number, config.model.grid.shape, config.model.grid.spacing_mm) for number in range(options.cases)]
    rounds = {"trainer": trainer_round(config, samples, threads=options.threads), "bare": bare_round(config, samples)}
    for run in rounds.values():  # the first calls allocate and compile
        run()
    seconds = measure(rounds, pairs=options.pairs)
    result = summarise(config, options, seconds)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(options.out.read_text())


def make_sample(number: int, shape: tuple[int, int, int], spacing_mm: float) -> Sample:
    """Return a fully labelled case of random intensities."""
    rng = np.random.default_rng(number)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius_XYZ = np.sqrt(sum((axis / 0.9) ** 2 for axis in axes))
    image_MXYZ = (rng.normal(size=(len(MODALITIES), *shape)) * (radius_XYZ < 1)).astype(np.float32)
    regions_RXYZ = np.stack([radius_XYZ < size for size in (0.4, 0.3, 0.2)]).astype(np.uint8)
    affine = np.diag([spacing_mm] * 3 + [1.0])
    return Sample(
        case_id=f"c{number}",
        patient_id=f"p{number}",
        image_MXYZ=image_MXYZ,
        present_M=np.ones(len(MODALITIES), dtype=np.bool_),
        regions_RXYZ=regions_RXYZ,
        idh=float(number % 2),
        codeletion=float(number % 4 == 1) if number % 2 else math.nan,
        affine=affine,
        native_affine=affine,
        native_shape=shape,
    )


def trainer_round(config: FederationConfig, samples: list[Sample], *, threads: int) -> Callable[[], None]:
    """Return what trains one round as a hospital does."""
    trainer = LocalTrainer(config.model, {Split.TRAIN: samples}, modalities=MODALITIES, site=SITE, device="cpu", threads=threads)
    start = make_initial_model(config)
    request = TaskRequest(action=Action.TRAIN, run=RUN, round=1, rounds=config.rounds, seed=SEED, model=config.model, plan=config.training)

    def run() -> None:
        trainer.train(start, request)

    return run


def bare_round(config: FederationConfig, samples: list[Sample]) -> Callable[[], None]:
    """Return what makes the same steps on the very batches of the trainer's round, already in memory."""
    network = GmmasNetwork(config.model.network)
    load_tensors(network, make_initial_model(config))
    plan, device = config.training, torch.device("cpu")
    batches = list(draw_batches(samples, plan, seed=(SEED, RUN, SITE, 1)))
    optimizer = make_optimizer(network, plan)
    network.train()

    def run() -> None:
        for batch in batches:
            with autocast(device, plan.precision):
                prediction = network(batch.image_BMXYZ, batch.shown_BM)
            loss = multi_task_loss(network, prediction, batch).total
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return run


def measure(rounds: dict[str, Callable[[], None]], *, pairs: int) -> dict[str, dict[str, list[float]]]:
    """Return wall and processor seconds of every round of each kind; the order within a pair alternates."""
    seconds: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in rounds}
    for pair in range(pairs):
        for name in sorted(rounds, reverse=bool(pair % 2)):
            wall, cpu = time.perf_counter(), time.process_time()
            rounds[name]()
            seconds[name]["wall"].append(time.perf_counter() - wall)
            seconds[name]["cpu"].append(time.process_time() - cpu)
    return seconds


def summarise(config: FederationConfig, options: argparse.Namespace, seconds: dict[str, dict[str, list[float]]]) -> dict[str, object]:
    """Return the result as written."""
    samples = config.training.local_steps * config.training.batch_size

    def ratio(clock: str) -> dict[str, float]:
        ratios = [bare / trainer for bare, trainer in zip(seconds["bare"][clock], seconds["trainer"][clock], strict=True)]
        return {"median": round(statistics.median(ratios), 3), "lowest": round(min(ratios), 3), "highest": round(max(ratios), 3)}

    shown = options.config.resolve()
    return {
        "command": f"python -m benchmarks.trainer_throughput --pairs {options.pairs} --cases {options.cases} --threads {options.threads}",
        "software": commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "config": str(shown.relative_to(ROOT)) if shown.is_relative_to(ROOT) else shown.name,
        "grid": list(config.model.grid.shape),
        "samples_per_round": samples,
        "ratio_wall": ratio("wall"),
        "ratio_processor": ratio("cpu"),
        "samples_per_s": {name: round(samples / statistics.median(values["wall"]), 2) for name, values in seconds.items()},
        "seconds": {name: {clock: [round(s, 3) for s in spent] for clock, spent in values.items()} for name, values in seconds.items()},
    }


if __name__ == "__main__":
    main()
