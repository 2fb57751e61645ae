"""A batch of training cases with partial labels, and random modality dropout.

Shape suffixes: B batch, M modality (order of MODALITIES), R region (order of REGIONS), XYZ voxels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gmmas_schema.vocabulary import MARKERS, Task


class LabelledSample(Protocol):
    """The arrays of one preprocessed case; gmmas_data.samples.Sample has them.

    Attributes:
        image_MXYZ: normalised intensities.
        present_M: bool, which modalities the case has.
        regions_RXYZ: nested 0/1 masks, or None where there is no segmentation.
        idh: 1 mutant, 0 wildtype, nan unknown.
        codeletion: 1 codeleted, 0 intact, nan unknown.
        grade: 1 high-grade, 0 low-grade, nan unknown.
        mgmt: 1 MGMT promoter methylated, 0 unmethylated, nan unknown.
    """

    @property
    def image_MXYZ(self) -> npt.NDArray[np.float32]:  # noqa: N802
        """Return the image."""

    @property
    def present_M(self) -> npt.NDArray[np.bool_]:  # noqa: N802
        """Return the modalities that are there."""

    @property
    def regions_RXYZ(self) -> npt.NDArray[np.uint8] | None:  # noqa: N802
        """Return the masks."""

    @property
    def idh(self) -> float:
        """Return the IDH label."""

    @property
    def codeletion(self) -> float:
        """Return the 1p/19q label."""

    @property
    def grade(self) -> float:
        """Return the grade label."""

    @property
    def mgmt(self) -> float:
        """Return the MGMT label."""

    @property
    def weight_RXYZ(self) -> npt.NDArray[np.float32] | None:  # noqa: N802
        """Return what each voxel of the masks counts; None for 1 everywhere."""

    @property
    def marker_weight(self) -> Mapping[Task, float]:
        """Return what a marker's label counts; 1 for those not named."""


@dataclass(frozen=True)
class Batch:
    """Cases and their labels as far as they are known.

    Attributes:
        image_BMXYZ: normalised intensities; anything where a modality is absent.
        present_BM: bool, the modalities a case has.
        shown_BM: bool, those of them that the network is shown in training; all, unless some were dropped.
        regions_BRXYZ: nested 0/1 masks as float; anything where the region is unknown.
        region_known_BR: bool.
        idh_B: 1 mutant, 0 wildtype, nan unknown.
        codeletion_B: 1 codeleted, 0 intact, nan unknown.
        grade_B: 1 high-grade, 0 low-grade, nan unknown.
        mgmt_B: 1 MGMT promoter methylated, 0 unmethylated, nan unknown.
        region_weight_BRXYZ: what each voxel's labels count; None for 1 everywhere.
        marker_weight_BK: what the label of each of MARKERS counts; None for 1.
    """

    image_BMXYZ: Tensor
    present_BM: Tensor
    shown_BM: Tensor
    regions_BRXYZ: Tensor
    region_known_BR: Tensor
    idh_B: Tensor
    codeletion_B: Tensor
    grade_B: Tensor
    mgmt_B: Tensor
    region_weight_BRXYZ: Tensor | None = None
    marker_weight_BK: Tensor | None = None

    @classmethod
    def collate(cls, samples: Sequence[LabelledSample]) -> Self:
        """Stack cases of one shape; a case without segmentation gets empty masks that count as unknown."""
        shape = samples[0].image_MXYZ.shape[1:]
        weighted = any(s.weight_RXYZ is not None for s in samples)
        weights = [np.ones((3, *shape), np.float32) if s.weight_RXYZ is None else s.weight_RXYZ for s in samples] if weighted else []
        regions = [np.zeros((3, *shape), np.uint8) if s.regions_RXYZ is None else s.regions_RXYZ for s in samples]
        return cls(
            image_BMXYZ=torch.from_numpy(np.stack([s.image_MXYZ for s in samples])),
            present_BM=torch.from_numpy(np.stack([s.present_M for s in samples])),
            shown_BM=torch.from_numpy(np.stack([s.present_M for s in samples])),
            regions_BRXYZ=torch.from_numpy(np.stack(regions)).float(),
            region_known_BR=torch.tensor([_known_regions(s) for s in samples]),
            idh_B=torch.tensor([float(s.idh) for s in samples]),
            codeletion_B=torch.tensor([float(s.codeletion) for s in samples]),
            grade_B=torch.tensor([float(s.grade) for s in samples]),
            mgmt_B=torch.tensor([float(s.mgmt) for s in samples]),
            region_weight_BRXYZ=torch.from_numpy(np.stack(weights)) if weighted else None,
            marker_weight_BK=torch.tensor([[float(s.marker_weight.get(task, 1.0)) for task in MARKERS] for s in samples]),
        )

    def to(self, device: torch.device | str) -> Self:
        """Return the batch on a device."""
        there: dict[str, Tensor] = {f.name: tensor.to(device) for f in fields(self) if (tensor := getattr(self, f.name)) is not None}
        return type(self)(**there)


def _known_regions(sample: LabelledSample) -> list[bool]:
    """Return for each region whether any voxel's label counts."""
    if sample.regions_RXYZ is None:
        return [False] * 3
    return [True] * 3 if sample.weight_RXYZ is None else [bool(weight_XYZ.any()) for weight_XYZ in sample.weight_RXYZ]


def drop_modalities(
    present_BM: Tensor, *, share: float, generator: torch.Generator, single_share: float = 0.0, single_weight_M: Sequence[float] = ()
) -> Tensor:
    """Draw, for a share of the samples, a random non-empty subset of what the sample has.

    Args:
        present_BM: bool; every row has at least one modality.
        share: probability in [0, 1] that a sample is drawn for at all.
        generator: source of randomness, on the CPU.
        single_share: share of the subsets that are a single modality; the others are uniform among all non-empty subsets.
        single_weight_M: odds of the modalities among the single ones; all equal where none are given.

    Returns:
        shown_BM, bool: a non-empty subset of every row.
    """
    chosen_BM = present_BM.clone()
    weight_M = torch.tensor(single_weight_M or [1.0] * present_BM.shape[1], dtype=torch.float64)
    for row_M in chosen_BM:
        present_K = row_M.nonzero().squeeze(1)
        # All numbers are drawn for every sample, so one sample's modalities do not shift the next one's draw.
        drawn, subset, single = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        if drawn >= share:
            continue
        if single < single_share:
            odds_K = weight_M[present_K.cpu()].cumsum(0)
            kept = min(int((odds_K <= subset * odds_K[-1]).sum()), len(present_K) - 1)
            bits = 1 << kept
        else:
            bits = 1 + int(subset * (2 ** len(present_K) - 1))
        row_M[present_K] = torch.tensor([bool(bits >> k & 1) for k in range(len(present_K))], device=row_M.device)
    return chosen_BM
