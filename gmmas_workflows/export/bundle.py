"""A model as a MONAI bundle: a folder that `python -m monai.bundle run` segments cases with.

    configs/metadata.json      what goes in and out, versions, limits; passes MONAI's verify_metadata
    configs/inference.yaml     the same for every model; names gmmas_workflows.export.bundle_parts and MONAI's own components
    models/                    model.safetensors, model.json, manifest.json and, of a calibrated model, calibration.json
    docs/README.md             what it is and how it is run
    docs/model-card.md, .json  training data, accuracy, calibration, cost and limits, where the model has a card
    docs/metadata_schema.json  the schema, for verification without a network
    LICENSE

MONAI Bundle Specification, https://docs.monai.io/en/stable/mb_specification.html. Its `models/model.pt` is a pickle, which can run code
when it is loaded; here the weights are safetensors.
"""

import contextlib
import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Any, Final

from gmmas_model.traceable import output_names
from gmmas_model.weights import Weights, make_network
from gmmas_schema.errors import ModelError
from gmmas_schema.manifest import CARD_FILE, CARD_TEXT
from gmmas_schema.vocabulary import MARKERS, MODALITIES, REGIONS, SUBTYPES, Modality, Region, Task
from gmmas_workflows.export.weights import write_weights
from gmmas_workflows.inference import readable_modalities

METADATA_FILE: Final = "configs/metadata.json"
SCHEMA_FILE: Final = "docs/metadata_schema.json"
SCHEMA_ADDRESS: Final = "https://project-monai.github.io/schema/meta_schema_20240725.json"
"""The schema that MONAI publishes. Ours (SCHEMA_FILE) asks for no less and needs no network."""

_FILES: Final = {"inference.yaml": "configs/inference.yaml", "metadata_schema.json": SCHEMA_FILE}

_REQUIRED: Final = ("gmmas-fed", "nibabel", "pydantic", "pytorch-ignite", "safetensors", "scipy")

_SEQUENCES: Final = {Modality.T1: "T1", Modality.T1CE: "T1ce", Modality.T2: "T2", Modality.FLAIR: "FLAIR"}
_REGIONS: Final = {Region.WT: "whole tumour (WT)", Region.TC: "tumour core (TC)", Region.ET: "enhancing tumour (ET)"}
_MARKERS: Final = {
    Task.IDH: "IDH mutant",
    Task.CODELETION: "1p/19q codeleted",
    Task.GRADE: "high grade (WHO 3 or 4)",
    Task.MGMT: "MGMT promoter methylated",
}
_MARKER_NAMES: Final = {Task.IDH: "IDH status", Task.CODELETION: "1p/19q status", Task.GRADE: "grade", Task.MGMT: "MGMT status"}
_NEVER_TRAINED: Final = " (never trained: means nothing)"


def write_bundle(folder: Path, weights: Weights, *, name: str, documents: Mapping[str, bytes] = MappingProxyType({})) -> None:
    """Write a bundle into a folder and let MONAI verify its metadata.

    Args:
        folder: exists and is empty.
        weights: the model.
        name: of the bundle.
        documents: the files of the model's card, which go into docs/ too, and its manifest, by name.

    Raises:
        ModelError: MONAI refuses the metadata, or the weights cannot be read.
    """
    for place in ("configs", "docs", "models"):
        (folder / place).mkdir()
    write_weights(folder / "models", weights, documents=documents)
    own = files("gmmas_workflows.export") / "bundle_files"
    for source, target in _FILES.items():
        (folder / target).write_bytes((own / source).read_bytes())
    facts = _facts(weights, name=name, has_card=CARD_TEXT in documents)
    card = Template((own / "README.md").read_text(encoding="utf-8")).substitute(facts)
    (folder / "docs" / "README.md").write_text(card, encoding="utf-8")
    for document in (CARD_FILE, CARD_TEXT):
        if document in documents:
            (folder / "docs" / document).write_bytes(documents[document])
    (folder / METADATA_FILE).write_text(json.dumps(describe(weights, name=name), indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(_licence(), folder / "LICENSE")
    verify(folder)


def verify(folder: Path) -> None:
    """Let MONAI verify a bundle's metadata against the schema in it; nothing is downloaded.

    Raises:
        ModelError: MONAI refuses the metadata.
    """
    with _quiet_monai():
        from monai.bundle import verify_metadata

        try:
            # MONAI downloads the schema only where `filepath` does not exist.
            verify_metadata(meta_file=str(folder / METADATA_FILE), filepath=str(folder / SCHEMA_FILE))
        except ValueError as error:
            raise ModelError(
                "MONAI refuses the bundle's metadata",
                where=folder / METADATA_FILE,
                got=" ".join(str(error).split())[:300],
                expected=f"what {SCHEMA_FILE} asks for",
                remedy="please report it",
            ) from error


def describe(weights: Weights, *, name: str) -> dict[str, Any]:
    """Return the contents of metadata.json."""
    release = metadata.version("gmmas-fed")
    markers = [task for task in MARKERS if task in weights.definition.network.tasks]
    return {
        "schema": SCHEMA_ADDRESS,
        "version": release,
        "changelog": {release: f"exported by gmmas-fed {release} from weights {weights.sha256}"},
        "monai_version": _release("monai"),
        "pytorch_version": _release("torch"),
        "numpy_version": _release("numpy"),
        "required_packages_version": {package: _release(package) for package in _REQUIRED},
        "name": name,
        "task": "Segmentation and molecular markers of adult-type diffuse glioma on MRI, from any subset of T1, T1ce, T2 and FLAIR",
        "description": f"Nested tumour regions (WT, TC, ET), {_listed([_MARKER_NAMES[task] for task in markers])}, and WHO CNS5 subtype."
        " One encoder per sequence; absent sequences are masked. The network and its preprocessing come from the package gmmas-fed;"
        " models/ holds safetensors and JSON, no pickle (docs/README.md says why and how they are loaded).",
        "authors": "the authors of gmmas-fed; the weights: whoever published them",
        "copyright": "Copyright (c) the authors of gmmas-fed, Apache-2.0; the weights: whoever published them",
        "data_source": "as whoever published the weights says; origin: " + _origin(weights),
        "data_type": "nibabel",
        "image_classes": "4 channels of z-scores inside the brain: " + ", ".join(_SEQUENCES.values()) + "; an absent channel is not read",
        "pred_classes": "3 channels of nested probabilities: " + ", ".join(_REGIONS.values()),
        "eval_metrics": {},
        "intended_use": "Research only. Not a medical device; not for diagnosis or treatment. Imaging suggests, tissue decides.",
        "references": [
            "GMMAS, arXiv:2501.17758",
            "Menze et al., The Multimodal Brain Tumor Image Segmentation Benchmark (BRATS), IEEE TMI 34(10), 2015",
            "Louis et al., The 2021 WHO Classification of Tumors of the Central Nervous System, Neuro-Oncology 23(8), 2021",
        ],
        "network_data_format": _interface(weights, markers),
    }


def _interface(weights: Weights, markers: list[Task]) -> dict[str, Any]:
    """Return what goes into the network and what the inferer makes of its answer."""
    grid = weights.definition.grid
    window, patch = grid.window, grid.patch is not None
    sequences = [_SEQUENCES[m] + ("" if m in weights.readable else " (not read)") for m in MODALITIES]
    image = _tensor("image", "magnitude", sequences, "float32", [-5, 5], shape=window, patch=patch)
    present = _tensor("tuples", "classes", [f"{_SEQUENCES[m]} is there" for m in MODALITIES], "bool", [0, 1])
    doubt = dict.fromkeys(weights.untrained, _NEVER_TRAINED)
    regions = _tensor("image", "classes", [_REGIONS[r] + doubt.get(r, "") for r in REGIONS], "float32", [0, 1], shape=window, patch=patch)
    outputs = {"pred": regions}
    for task in markers:
        outputs[str(task)] = _tensor("probabilities", "classes", [_MARKERS[task] + doubt.get(task, "")], "float32", [0, 1])
    subtypes = [str(s) + ("" if weights.tells_subtype else _NEVER_TRAINED) for s in SUBTYPES]
    outputs["subtype"] = _tensor("probabilities", "classes", subtypes, "float32", [0, 1])
    assert tuple(outputs)[1:] == output_names(weights.definition.network)[1:]
    return {"inputs": {"image": {**image, "modality": "MR"}, "present": present}, "outputs": outputs}


def _tensor(
    kind: str, form: str, channels: list[str], dtype: str, values: list[int], *, shape: Sequence[int] = (), patch: bool = False
) -> dict[str, Any]:
    """Return the specification of one tensor, in the words of the MONAI Bundle Specification."""
    return {
        "type": kind,
        "format": form,
        "num_channels": len(channels),
        "spatial_shape": list(shape),
        "dtype": dtype,
        "value_range": values,
        "is_patch_data": patch,
        "channel_def": {str(place): name for place, name in enumerate(channels)},
    }


def _facts(weights: Weights, *, name: str, has_card: bool) -> dict[str, str]:
    """Return what the model card is filled with."""
    network = make_network(weights, modalities=readable_modalities(weights))
    grid, readable = weights.definition.grid, network.modalities
    tasks = [task for task in MARKERS if task in weights.definition.network.tasks]
    windows = f", in windows of {_times(grid.window)}" if grid.patch is not None else ""
    return {
        "name": name,
        "markers": _listed([_MARKER_NAMES[task] for task in tasks]),
        "probabilities": _listed([f"P({_MARKERS[task]})" for task in tasks]),
        "parameters": f"{sum(p.numel() for p in network.parameters()):,}".replace(",", " "),
        "software": f"gmmas-fed {metadata.version('gmmas-fed')}",
        "version": metadata.version("gmmas-fed"),
        "sha256": weights.sha256,
        "digest": weights.definition.digest(),
        "origin": _origin(weights),
        "card": "`docs/model-card.md`" if has_card else "none: ask whoever published it",
        "calibration": "none" if weights.calibration is None else "temperatures per head, `models/calibration.json`",
        "grid": f"{_times(grid.shape)} voxels of {grid.spacing_mm:g} mm around the brain{windows}",
        "readable": "It reads " + _listed([_SEQUENCES[m] for m in readable]),
        "untrained": _untrained(weights),
    }


def _untrained(weights: Weights) -> str:
    """Return what a reader must know of sequences and heads that nobody trained; nothing where everything was."""
    unread = [_SEQUENCES[m] for m in MODALITIES if m not in weights.readable]
    heads = [_REGIONS[head] if isinstance(head, Region) else _MARKER_NAMES[head] for head in weights.untrained]
    told = [f"It was never trained on {_listed(unread)}, which it does not read."] if unread else []
    if heads:
        told.append(
            f"It was never trained on labels of {_listed(heads)}: what the network says of that means nothing,"
            " and no such region or marker is written."
        )
    return "\n- **" + " ".join(told) + "**" if told else ""


def _origin(weights: Weights) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted(weights.metadata.items())) or "not stated"


def _listed(names: list[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _release(package: str) -> str:
    """Return the installed version without a local build tag such as `+cpu`."""
    return metadata.version(package).partition("+")[0]


def _licence() -> Path:
    """Return the licence of the installed package, a checkout or a wheel."""
    found = [file for file in metadata.files("gmmas-fed") or () if file.name == "LICENSE"]
    assert found, "the package is installed without its licence"
    return Path(str(found[0].locate()))


@contextlib.contextmanager
def _quiet_monai() -> Iterator[None]:
    """Silence MONAI, which reports every step and warns of its own insides while it is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.INFO)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
