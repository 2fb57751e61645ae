"""Tiny cohorts on disk, and a simulation over them."""

from pathlib import Path

import yaml

from gmmas_schema.model import GridConfig
from gmmas_schema.vocabulary import MODALITIES, Modality
from tests.client.tiny_sites import TINY
from tests.gmmas_data.scans import write_case

GRID = GridConfig(spacing_mm=8.0, shape=(8, 8, 8))
COHORTS = {"north": MODALITIES, "east": (Modality.T2, Modality.FLAIR)}
FEDERATION = {
    "name": "tiny",
    "seed": 3,
    "rounds": 2,
    "model": {"network": TINY.network.model_dump(mode="json"), "grid": GRID.model_dump(mode="json")},
    "training": {"local_steps": 2, "warmup_steps": 1, "precision": "fp32"},
}


def write_cohorts(folder: Path, *, cases: int = 5) -> None:
    """Write north, with four sequences, and east, with two."""
    for place, (name, modalities) in enumerate(COHORTS.items()):
        for number in range(cases):
            case = f"{name}{number}"
            write_case(folder / name / case, case_id=case, modalities=modalities, shape=(20, 24, 18), patient=place * cases + number)
        rows = "".join(f"{name}{number},{'mutant' if number % 2 else 'wildtype'},\n" for number in range(cases))
        (folder / name / "labels.csv").write_text("patient_id,idh,codeletion\n" + rows)


def write_simulation(folder: Path, **keys: object) -> Path:
    """Write cohorts and the simulation.yaml that names them; returns its path."""
    write_cohorts(folder)
    cohorts = [
        {"name": name, "root": name, "labels": f"{name}/labels.csv", "modalities": [str(modality) for modality in modalities]}
        for name, modalities in COHORTS.items()
    ]
    path = folder / "simulation.yaml"
    path.write_text(yaml.safe_dump({"federation": FEDERATION, "cohorts": cohorts, "device": "cpu"} | keys))
    return path
