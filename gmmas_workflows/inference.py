"""From one case on disk to its findings: segmentation and probabilities on the case's own voxels, volumes, molecular probabilities.

A prediction's folder holds

    segmentation.nii.gz                      labels in the values of the case's layout (enhancing tumour 4 in BraTS 2021, 3 in 2023)
    probability_{wt,tc,et}.nii.gz            float32 in [0, 1], rounded to 0.001
    findings.json                            gmmas_schema.findings.Findings
    overview.png                             the same at a glance

and appears as a whole or not at all. Headers are those of the case's first image, without its free text, which may name a patient.

Shapes: M modality, R region (WT, TC, ET), X Y Z voxels of the network's grid, I J K voxels of the case's files.
"""

import gzip
import shutil
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from gmmas_data.cases import Case
from gmmas_data.layouts import read_case
from gmmas_data.preprocessing import preprocess_case, restore_to_native
from gmmas_data.regions import labels_of
from gmmas_data.samples import Sample
from gmmas_data.volumes import read_image, spacing_of
from gmmas_model.batch import Batch
from gmmas_model.inference import predict_probabilities
from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import Weights, make_network
from gmmas_runtime.files import write_atomic
from gmmas_schema.errors import ConfigError, DataError, ReasonCode
from gmmas_schema.findings import Findings
from gmmas_schema.groups import group_of
from gmmas_schema.vocabulary import MODALITIES, REGIONS, SEGMENTATION_VALUES, SUBTYPES, Modality, Task
from gmmas_workflows.evaluation import threshold
from gmmas_workflows.figures import overview

FINDINGS_FILE: Final = "findings.json"
SEGMENTATION_FILE: Final = "segmentation.nii.gz"
OVERVIEW_FILE: Final = "overview.png"
PROBABILITY_DECIMALS: Final = 3

_GEOMETRY: Final = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
_ORDERS: Final[tuple[Literal["little", "big"], ...]] = ("little", "big")


@dataclass(frozen=True, eq=False)
class CasePrediction:
    """What the network says about one case, on the case's own voxels.

    Attributes:
        case: the case, with no other images than those used, and no segmentation.
        segmentation_IJK: label map in the values of the case's layout.
        probability_RIJK: nested region probabilities.
        findings: volumes, molecular probabilities and provenance.
        affine: 4x4, voxel to millimetres in RAS+.
    """

    case: Case
    segmentation_IJK: NDArray[np.uint8]
    probability_RIJK: NDArray[np.float32]
    findings: Findings
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class _Answer:
    """The network's probabilities for one sample on its grid."""

    regions_RXYZ: NDArray[np.float32]
    idh: float
    codeletion: float
    subtype: tuple[float, ...]


def predict_case(
    case: Path | Case,
    weights: Weights,
    *,
    modalities: Collection[Modality] | None = None,
    flip: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> CasePrediction:
    """Predict one case from whichever sequences it has.

    Args:
        case: a folder that holds one case in a supported layout, or the case itself. A segmentation in it is not read.
        weights: the model.
        modalities: sequences to use; by default all that the case has and the model reads.
        flip: average with the prediction of the case mirrored left to right.
        device: `auto` is CUDA where present, else CPU.

    Raises:
        DataError: the folder holds no case or several, a file does not pass the quality gate, or no usable sequence is there.
        ModelError: the weights do not fit their definition.
    """
    start = time.perf_counter()
    network = make_network(weights, modalities=readable_modalities(weights))
    whole = read_case(case) if isinstance(case, Path) else case
    used = choose_images(whole, network.modalities, wanted=modalities)
    sample = preprocess_case(used, weights.definition.grid)
    chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    answer = _ask(network.to(chosen), sample, flip=flip)
    # Rounded before the threshold, so that the maps on disk (a tenth of the size) and the segmentation say the same.
    probability_RIJK = np.clip(restore_to_native(answer.regions_RXYZ, sample, order=1).round(PROBABILITY_DECIMALS), 0, 1)
    regions_RIJK = threshold(probability_RIJK)
    voxel_ml = abs(float(np.linalg.det(sample.native_affine[:3, :3]))) / 1000
    findings = Findings(
        case=used.case_id,
        modalities_used=used.modalities,
        modalities_missing=tuple(m for m in MODALITIES if m not in used.images),
        volume_ml={region: int(np.count_nonzero(mask)) * voxel_ml for region, mask in zip(REGIONS, regions_RIJK, strict=True)},
        probability={Task.IDH: answer.idh, Task.CODELETION: answer.codeletion},
        subtype=dict(zip(SUBTYPES, answer.subtype, strict=True)),
        model_digest=weights.definition.digest(),
        weights_sha256=weights.sha256,
        software=f"gmmas-fed {version('gmmas-fed')}",
        seconds=time.perf_counter() - start,
    )
    return CasePrediction(used, labels_of(regions_RIJK, layout=used.layout), probability_RIJK, findings, sample.native_affine)


def readable_modalities(weights: Weights) -> tuple[Modality, ...]:
    """Return the modalities that the weights have an encoder for."""
    groups = {group_of(name) for name in weights.tensors}
    return tuple(m for m in MODALITIES if f"encoder.{m}" in groups)


def write_prediction(prediction: CasePrediction, folder: Path, *, overwrite: bool = False) -> None:
    """Write a prediction's folder as a whole.

    Args:
        prediction: what predict_case returned.
        folder: the folder to make; its parents are made too.
        overwrite: replace an earlier prediction.

    Raises:
        ConfigError: the folder is there and may not be replaced.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    check_target(folder, overwrite=overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _fill(made, prediction)
        _put_in_place(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that must not be replaced, before any work is done.

    Raises:
        ConfigError: the folder exists and `overwrite` is off, or it holds something that is not a prediction.
    """
    if not folder.exists():
        return
    empty = folder.is_dir() and not any(folder.iterdir())
    earlier = (folder / FINDINGS_FILE).is_file()
    if empty or (overwrite and earlier):
        return
    raise ConfigError(
        "the output folder exists",
        where=folder,
        got="an earlier prediction" if earlier else "something that is not a prediction",
        expected="no folder of this name, or an empty one",
        remedy="replace it with --force" if earlier else "name another folder",
    )


def choose_images(case: Case, readable: Collection[Modality], *, wanted: Collection[Modality] | None) -> Case:
    """Return the case with the images to use and without its segmentation.

    Args:
        case: any case.
        readable: modalities that the network reads.
        wanted: of these the ones to use; None for all that the case has.

    Raises:
        DataError: a wanted sequence is missing, or none is left.
    """
    missing = [m for m in wanted or () if m not in case.images]
    images = {m: path for m, path in case.images.items() if m in readable and (wanted is None or m in wanted)}
    if missing or not images:
        raise DataError(
            "a sequence that was asked for is not there" if missing else "the case has no sequence that the model reads",
            where=case.case_id,
            got=", ".join(case.images) or "no sequence",
            expected=", ".join(missing) if missing else f"at least one of {', '.join(readable)}",
            remedy="leave it out of --modalities" if missing else "check the file names, or use a model of these sequences",
            code=ReasonCode.DATA_EMPTY,
        )
    return replace(case, images=images, segmentation=None)


def _ask(network: GmmasNetwork, sample: Sample, *, flip: bool) -> _Answer:
    """Return the network's probabilities, with `flip` the mean over the sample and its mirror image.

    The subtypes are linear in P(mutant) and P(codeleted), so their mean agrees with the means of these.
    """
    batch = Batch.collate([sample]).to(next(network.parameters()).device)
    axes: list[list[int]] = [[], [2]] if flip else [[]]
    predictions = [predict_probabilities(network, batch.image_BMXYZ.flip(axis), batch.present_BM) for axis in axes]
    regions = [p.region_probability().flip(axis)[0] for p, axis in zip(predictions, axes, strict=True)]
    return _Answer(
        regions_RXYZ=torch.stack(regions).mean(0).cpu().numpy(),
        idh=float(torch.stack([p.idh_probability() for p in predictions]).mean()),
        codeletion=float(torch.stack([p.codeletion_probability() for p in predictions]).mean()),
        subtype=tuple(torch.stack([p.subtype_probability()[0] for p in predictions]).mean(0).tolist()),
    )


def _fill(folder: Path, prediction: CasePrediction) -> None:
    """Write the files of a prediction."""
    header = _plain_header(next(iter(prediction.case.images.values())))
    _write_nifti(folder / SEGMENTATION_FILE, prediction.segmentation_IJK, header)
    for region, probability_IJK in zip(REGIONS, prediction.probability_RIJK, strict=True):
        _write_nifti(folder / f"probability_{region}.nii.gz", probability_IJK, header)
    labels = _to_ras(_own_labels(prediction), prediction.affine)
    spacing_mm = _spacing_in_ras(prediction.affine)
    overview(folder / OVERVIEW_FILE, images=_pictures(prediction), labels=labels, spacing_mm=spacing_mm, findings=prediction.findings)
    write_atomic(folder / FINDINGS_FILE, prediction.findings.model_dump_json(indent=2).encode() + b"\n")


def _put_in_place(made: Path, folder: Path) -> None:
    """Give a finished folder its name; what had the name before comes back if that fails."""
    if not folder.exists():
        made.rename(folder)
        return
    replaced = made.with_name(f"{made.name}-replaced")
    folder.rename(replaced)
    try:
        made.rename(folder)
    except BaseException:
        replaced.rename(folder)
        raise
    shutil.rmtree(replaced)


def _plain_header(path: Path) -> Any:
    """Return a header with the geometry of an image's header and nothing else: free text in it may name a patient."""
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if compressed else path.open("rb") as stream:
        content = stream.read(nib.Nifti2Header.sizeof_hdr)
    sizes = [int.from_bytes(content[:4], order) for order in _ORDERS]
    kind = nib.Nifti2Header if nib.Nifti2Header.sizeof_hdr in sizes else nib.Nifti1Header
    original = kind(content[: kind.sizeof_hdr], check=False)
    header = nib.Nifti1Header()
    for field in _GEOMETRY:
        header[field] = original[field]
    return header


def _write_nifti(path: Path, volume_IJK: NDArray[Any], header: Any) -> None:
    """Write a volume with its own voxel type, unscaled."""
    own = header.copy()
    own.set_data_dtype(volume_IJK.dtype)
    own.set_slope_inter(1, 0)
    # No affine is given, so that nibabel keeps qform, sform and their codes as they are.
    nib.save(nib.Nifti1Image(volume_IJK, None, own), path)


def _own_labels(prediction: CasePrediction) -> NDArray[np.uint8]:
    """Return the label map in our own values."""
    table = np.zeros(256, dtype=np.uint8)
    for theirs, ours in SEGMENTATION_VALUES[prediction.case.layout].items():
        table[theirs] = ours
    own_IJK: NDArray[np.uint8] = table[prediction.segmentation_IJK]
    return own_IJK


def _pictures(prediction: CasePrediction) -> dict[Modality, NDArray[np.float32]]:
    """Return the images in RAS+ order of axes."""
    return {m: _to_ras(read_image(path).values_XYZ, prediction.affine) for m, path in prediction.case.images.items()}


def _to_ras(volume_IJK: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[Any]:
    """Return the volume with its axes turned to the nearest of right, anterior and superior."""
    turned: NDArray[Any] = nib.orientations.apply_orientation(volume_IJK, nib.orientations.io_orientation(affine))
    return turned


def _spacing_in_ras(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the voxel spacing in the order of axes of _to_ras."""
    places = nib.orientations.io_orientation(affine)[:, 0].astype(int)
    x, y, z = spacing_of(affine)[np.argsort(places)].tolist()
    return x, y, z
