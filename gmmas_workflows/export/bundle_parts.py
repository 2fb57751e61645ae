"""What a bundle's configs/inference.yaml names of ours: MONAI's interfaces around the functions that `gmmas predict` is made of.

    find_cases -> PrepareCase -> GmmasInferer -> RestoreRegions -> LabelRegions -> MONAI's SaveImaged, WriteMarkers

Exported bundles name these classes, so a change of names or meaning is a change for every bundle that is out.

Shape suffixes: M modality, B batch, R region, XYZ voxels of the grid, IJK voxels of the case's files.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import Transform
from torch import Tensor

from gmmas_data.layouts import read_cohort
from gmmas_data.preprocessing import preprocess_case
from gmmas_data.regions import labels_of
from gmmas_data.resampling import restore
from gmmas_model.inference import predict_mirrored
from gmmas_model.network import GmmasNetwork
from gmmas_runtime.files import write_atomic
from gmmas_schema.calibration import Temperatures
from gmmas_schema.inference import OVERLAP, Flip
from gmmas_schema.model import GridConfig
from gmmas_schema.vocabulary import SUBTYPES, Layout, Modality, Region, Task
from gmmas_workflows.evaluation import threshold
from gmmas_workflows.inference import PROBABILITY_DECIMALS, blank_untrained, choose_images, readable_modalities

__all__ = [
    "GmmasInferer",
    "LabelRegions",
    "PrepareCase",
    "RestoreRegions",
    "WriteMarkers",
    "find_cases",
    "readable_modalities",
]

MARKERS_SUFFIX = "_markers.json"


def find_cases(folder: Path) -> list[dict[str, Any]]:
    """Return the cases below a folder, of one or of many cases in any supported layout, as items of a MONAI data set.

    Raises:
        DataError: as in gmmas_data.layouts.read_cohort.
    """
    return [{"case": case} for case in read_cohort(folder)]


class PrepareCase(Transform):  # type: ignore[misc]
    """From a case on disk to the network's inputs, by the preprocessing of training.

    Args:
        grid: of the model's definition.
        readable: modalities that the network reads.
        modalities: of these the ones to use; None for all that a case has.
    """

    def __init__(self, *, grid: GridConfig, readable: Collection[Modality], modalities: Collection[str] | None = None) -> None:
        self.grid, self.readable = grid, readable
        self.wanted = None if modalities is None else tuple(Modality(name) for name in modalities)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return `image`, a MetaTensor image_MXYZ of z-scores, and `present`, present_M.

        Args:
            data: an item of find_cases.

        Raises:
            DataError: the case does not pass the quality gate, or has no sequence to use.
        """
        used = choose_images(data["case"], self.readable, wanted=self.wanted)
        sample = preprocess_case(used, self.grid)
        meta = {
            "filename_or_obj": used.case_id,
            "layout": str(used.layout),
            "native_affine": sample.native_affine,
            "native_shape": np.array(sample.native_shape),
        }
        image_MXYZ = MetaTensor(torch.from_numpy(sample.image_MXYZ), affine=torch.from_numpy(sample.affine), meta=meta)
        return {"image": image_MXYZ, "present": torch.from_numpy(sample.present_M)}


class GmmasInferer(Inferer):  # type: ignore[misc]
    """From the network's inputs to probabilities: by windows where the network was trained on patches, calibrated where it was calibrated.

    Args:
        patch: of the model's grid.
        temperatures: per head; empty for an uncalibrated model.
        flip: mirror images to average with, a value of gmmas_schema.inference.Flip.
        overlap: share of a window's side that the next window covers again.
    """

    def __init__(
        self,
        *,
        patch: tuple[int, int, int] | None = None,
        temperatures: Temperatures | None = None,
        flip: str = Flip.NONE,
        overlap: float = OVERLAP,
    ) -> None:
        super().__init__()
        self.patch, self.temperatures, self.flip, self.overlap = patch, dict(temperatures or {}), Flip(flip), overlap

    def __call__(self, inputs: Tensor, network: GmmasNetwork, present: Tensor) -> dict[str, Tensor]:
        """Return `regions` (B, R, X, Y, Z), one (B,) per marker, and `subtype` (B, S).

        Args:
            inputs: image_BMXYZ.
            network: on the device of the inputs.
            present: present_BM.
        """
        image_BMXYZ = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        answer = predict_mirrored(
            network, image_BMXYZ, present, flip=self.flip, temperatures=self.temperatures, patch=self.patch, overlap=self.overlap
        )
        markers = {str(task): probability_B for task, probability_B in answer.markers.items()}
        return {"regions": answer.regions_BRXYZ, **markers, "subtype": answer.subtype_BS}


class RestoreRegions(Transform):  # type: ignore[misc]
    """From region probabilities on the grid to the voxels of the case's own files.

    Args:
        untrained: heads that nobody trained; the probability of their regions is 0.
    """

    def __init__(self, *, untrained: Collection[Region | Task] = ()) -> None:
        self.untrained = tuple(untrained)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the data with `regions`, a MetaTensor probability_RIJK rounded as in `gmmas predict`.

        Args:
            data: one decollated output of the evaluator, with `image` and `pred`.
        """
        image, meta = data["image"], data["image"].meta
        native_affine = np.asarray(meta["native_affine"], dtype=np.float64)
        i, j, k = np.asarray(meta["native_shape"]).tolist()
        volume_RXYZ = torch.as_tensor(data["pred"]["regions"]).cpu().numpy()
        native_RIJK = restore(volume_RXYZ, affine=image.affine.cpu().numpy(), native_affine=native_affine, native_shape=(i, j, k), order=1)
        probability_RIJK = torch.from_numpy(blank_untrained(np.clip(native_RIJK.round(PROBABILITY_DECIMALS), 0, 1), self.untrained))
        kept = {name: meta[name] for name in ("filename_or_obj", "layout")}
        return {**data, "regions": MetaTensor(probability_RIJK, affine=torch.from_numpy(native_affine), meta=kept)}


class LabelRegions(Transform):  # type: ignore[misc]
    """From region probabilities to the label values of the case's layout."""

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the data with `segmentation`, a MetaTensor of uint8 (1, I, J, K).

        Args:
            data: what RestoreRegions returned.
        """
        regions = data["regions"]
        regions_RIJK = threshold(regions.numpy())
        labels_IJK = labels_of(regions_RIJK, layout=Layout(regions.meta["layout"]))
        meta = {"filename_or_obj": regions.meta["filename_or_obj"]}
        return {**data, "segmentation": MetaTensor(torch.from_numpy(labels_IJK)[None], affine=regions.affine, meta=meta)}


class WriteMarkers(Transform):  # type: ignore[misc]
    """Writes the molecular probabilities of a case beside its segmentation, as <case>/<case>_markers.json.

    Args:
        output_dir: as of SaveImaged.
        untrained: heads that nobody trained; their markers, and the subtype where it rests on one, are left out.
    """

    def __init__(self, *, output_dir: Path, untrained: Collection[Region | Task] = ()) -> None:
        self.output_dir, self.untrained = output_dir, tuple(untrained)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Write the file and return the data as they are.

        Args:
            data: what RestoreRegions returned.
        """
        case_id = str(data["regions"].meta["filename_or_obj"])
        answers = {name: torch.as_tensor(value) for name, value in data["pred"].items() if name != "regions"}
        subtype = dict(zip(map(str, SUBTYPES), answers.pop("subtype").tolist(), strict=True))
        content = {
            "case": case_id,
            "probability": {name: float(value) for name, value in answers.items() if name not in self.untrained},
            "subtype": {} if {Task.IDH, Task.CODELETION} & set(self.untrained) else subtype,
        }
        (self.output_dir / case_id).mkdir(parents=True, exist_ok=True)
        write_atomic(self.output_dir / case_id / f"{case_id}{MARKERS_SUFFIX}", json.dumps(content, indent=2).encode() + b"\n")
        return dict(data)
