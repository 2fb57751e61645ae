"""What a scan of full size costs: seconds and largest memory of `gmmas predict` with the paper-size network at 1 mm, by windows.

    python benchmarks/whole_volume.py

Each size of window is a process of its own, which reads four NIfTI files of 240 x 240 x 155 voxels, predicts and writes the result's
folder. Weights are random, and the images are noise in an ellipsoid the size of a brain: what they show changes neither time nor memory.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import Weights
from gmmas_schema.inference import MONTE_CARLO_PASSES, InferencePlan
from gmmas_schema.model import SIZES, GridConfig, ModelDefinition
from gmmas_schema.vocabulary import MODALITIES
from gmmas_workflows.inference import predict_case
from gmmas_workflows.prediction_files import write_prediction

RESULT = Path(__file__).parent / "results" / "whole_volume.json"
BRAIN_SHARE = (0.58, 0.72, 0.95)
"""Axes of the brain as shares of the scan's: about 140 x 173 x 147 mm."""


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=list(SIZES), default="paper")
    parser.add_argument("--scan", type=int, nargs=3, default=(240, 240, 155), help="voxels of 1 mm")
    parser.add_argument("--box", type=int, nargs=3, default=(160, 200, 176), help="voxels of the grid")
    parser.add_argument("--patches", type=int, nargs="+", default=(96, 128))
    parser.add_argument("--uncertainty", action="store_true")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    result: dict[str, Any] = {
        "command": " ".join(("python benchmarks/whole_volume.py", *(sys.argv[1:] if arguments is None else arguments))),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        **{name: value for name, value in vars(options).items() if name not in {"out", "patches"}},
        "windows": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        write_scans(Path(folder) / "case", tuple(options.scan))
        for patch in options.patches:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                result["windows"][str(patch)] = found = pool.apply(measure, (Path(folder), options, patch))
            print(patch, found, flush=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def measure(folder: Path, options: argparse.Namespace, patch: int) -> dict[str, float]:
    """Predict the case once and return what that took; runs in a process of its own, whose largest memory is the figure."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    grid = GridConfig(spacing_mm=1.0, shape=tuple(options.box), patch=(patch, patch, patch))
    definition = ModelDefinition(network=SIZES[options.network], grid=grid)
    tensors = {name: tensor.numpy() for name, tensor in GmmasNetwork(definition.network).state_dict().items()}
    windows: list[int] = []
    wall, processor = time.perf_counter(), time.process_time()
    prediction = predict_case(
        folder / "case",
        Weights(tensors, definition, sha256="0" * 64),
        plan=InferencePlan(passes=MONTE_CARLO_PASSES if options.uncertainty else 0),
        device="cpu",
        on_progress=lambda _, total: windows.append(total),
    )
    write_prediction(prediction, folder / f"out-{patch}")
    return {
        "windows": windows[-1],
        "wall_s": round(time.perf_counter() - wall, 1),
        "processor_s": round(time.process_time() - processor, 1),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def write_scans(folder: Path, shape: tuple[int, ...]) -> None:
    """Write one file per sequence: noise in an ellipsoid, zero outside."""
    folder.mkdir()
    places = np.meshgrid(*(np.linspace(-1, 1, n) / share for n, share in zip(shape, BRAIN_SHARE, strict=True)), indexing="ij", sparse=True)
    brain = sum(place**2 for place in places) < 1
    for number, modality in enumerate(MODALITIES):
        values = np.random.default_rng(number).integers(200, 1000, shape, dtype=np.int16) * brain
        nib.save(nib.Nifti1Image(values.astype(np.int16), np.diag([-1.0, -1, 1, 1])), folder / f"case_{modality}.nii.gz")


if __name__ == "__main__":
    main()
