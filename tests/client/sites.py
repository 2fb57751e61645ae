"""A tiny hospital: a cohort of small scans, keys and a site.yaml in a temporary folder."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from gmmas_runtime.keys import make_authority, make_node_key
from gmmas_schema.federation import TrainingPlan
from gmmas_schema.messages import Action, TaskRequest
from gmmas_schema.model import GridConfig, ModelDefinition, NetworkConfig
from gmmas_schema.site import SiteConfig
from gmmas_schema.vocabulary import MODALITIES, Modality, Split
from tests.gmmas_data.scans import write_case

TINY = ModelDefinition(
    network=NetworkConfig(channels=(2, 4), blocks=(1, 1), transformer_layers=1, transformer_heads=2),
    grid=GridConfig(spacing_mm=4.0, shape=(12, 12, 12)),
)
PATIENT = "Jane-Doe-19580203"
"""A patient identifier that must never leave a site."""
CASES = 6
MARKERS = (("wildtype", "", "4", ""), ("mutant", "codeleted", "2", "methylated"), ("mutant", "intact", "", ""), ("mutant", "", "", ""))


def write_site(
    folder: Path,
    *,
    cases: int = CASES,
    modalities: Sequence[Modality] = MODALITIES,
    address: str = "127.0.0.1:18190",
    runtime_port: int = 18191,
    executor: str = "resident",
) -> Path:
    """Write cohort, labels, key, authority and site.yaml; returns the path of the latter."""
    names = [f"{PATIENT}-{number}" for number in range(cases)]
    for name in names:
        write_case(folder / "data" / name, case_id=name, modalities=modalities, shape=(24, 24, 24))
    with (folder / "labels.csv").open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(("patient_id", "idh", "codeletion", "grade", "mgmt"))
        table.writerows((name, *MARKERS[number % len(MARKERS)]) for number, name in enumerate(names))
    if not (folder / "keys" / "north").exists():
        make_node_key(folder / "keys" / "north")
        make_authority(folder / "authority", name="test")
    site: dict[str, Any] = {
        "site": "north",
        "data": {"root": "data", "labels": "labels.csv", "modalities": [str(m) for m in modalities]},
        "coordinator": {"address": address, "root_certificate": "authority/authority.pem"},
        "node": {
            "private_key": "keys/north",
            "state": "state",
            "runtime_port": runtime_port,
            "threads": 1,
            "device": "cpu",
            "executor": executor,
        },
    }
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(site))
    return path


def read_site(folder: Path, **options: Any) -> SiteConfig:
    """Write a site and return its configuration."""
    return SiteConfig.from_yaml(write_site(folder, **options))


def make_request(
    action: Action = Action.TRAIN, *, run: str = "run-1", number: int = 1, steps: int = 2, model: ModelDefinition = TINY
) -> TaskRequest:
    """Return a request for the tiny model."""
    return TaskRequest(
        action=action,
        run=run,
        round=0 if action is Action.DESCRIBE else number,
        rounds=3,
        seed=1,
        model=model,
        plan=TrainingPlan(local_steps=steps, batch_size=2, precision="fp32") if action is Action.TRAIN else None,
        evaluate=Split.VALIDATION if action is not Action.DESCRIBE else None,
    )
