"""Is this really a FLAIR? Rules of MR physics on intensities inside the brain; nothing is learned.

The common grid (gmmas_data.canonical) lays an average brain's tissue shares over a scan. With medians over the cells that are mostly one
tissue, relative to white matter, two numbers tell the weighting:

    csf  = I(CSF) / I(white)     above 1 in T2 only: free water is bright where nothing nulls it; FLAIR inverts it away, T1 leaves it dark
    grey = I(grey) / I(white)    below 1 in T1 (myelin shortens T1), above 1 in FLAIR and T2
    rank = correlation of white-less-grey share with the rank of the intensity, outside CSF: the sign of `grey` without its scale

T1 and T1ce differ by enhancement alone. Where a case has both, each over its own white matter, the tails of the difference tell which is
which: vessels, choroid plexus and tumour get brighter, nothing gets darker. One of them alone is told only by very bright vessels.

A verdict is given outside a band around each threshold and is `cannot tell` inside it. Tumours, lesions and thick slices shift all numbers
towards the bands. Figures on phantoms of five scanners and on real cases: benchmarks/results/audit.json; the thresholds were
set with these in view, so they are no estimate for another scanner. The rules hold for skull-stripped scans only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from gmmas_data.canonical import BrainBox, TissuePriors, tissue_priors
from gmmas_schema.vocabulary import Modality

CSF_BRIGHT, CSF_DARK = 1.07, 1.02
"""CSF over white matter: above the first a T2, below the second none."""

GREY_DARK, GREY_BRIGHT = 0.075, 0.045
"""1 - grey + RANK_WEIGHT rank: above the first T1-weighted, below the second not."""

RANK_WEIGHT = 0.3

ENHANCED = 0.08
"""Difference of the tails of T1ce and T1 (in white matter's intensity) from which on one of them is the enhanced one."""

BRIGHT_VESSELS = 2.2
"""99.9th percentile over white matter from which on a T1-weighted scan alone is taken to be enhanced."""

_PURE = 0.6
"""Share of a tissue from which on a cell stands for it."""

_FEWEST_CELLS = 30


class Verdict(StrEnum):
    """What the image says to what its name says."""

    AGREES = "looks like it"
    DISAGREES = "does not look like it"
    UNKNOWN = "cannot tell"


@dataclass(frozen=True)
class Contrast:
    """What one scan shows. Intensities are relative to white matter.

    Attributes:
        csf: CSF.
        grey: grey matter.
        rank: rank correlation of intensity with white-less-grey share.
        tail: 99.9th percentile inside the brain.
    """

    csf: float
    grey: float
    rank: float
    tail: float

    @property
    def greyness(self) -> float:
        """How T1-weighted grey and white matter look."""
        return 1 - self.grey + RANK_WEIGHT * self.rank


def measure_contrast(
    values: NDArray[np.float32], box: BrainBox, *, without: NDArray[np.bool_] | None = None, priors: TissuePriors | None = None
) -> tuple[Contrast, float] | None:
    """Return a scan's contrast and its white matter's intensity; None where too little of a tissue is found.

    Args:
        values: the scan in the file's own axes.
        box: its common grid.
        without: voxels that are no normal tissue (a tumour), in the file's own axes.
        priors: tissue shares; the average brain's by default.
    """
    priors = tissue_priors() if priors is None else priors
    cells_UVW = box.average(values)
    usable = box.inside_UVW & priors.inside_UVW
    if without is not None:
        usable &= box.average(without.astype(np.float32)) < 0.05
    tissues = [cells_UVW[usable & (share > _PURE)] for share in (priors.csf_UVW, priors.grey_UVW, priors.white_UVW)]
    if min(len(cells) for cells in tissues) < _FEWEST_CELLS:
        return None
    csf, grey, white = (float(np.median(cells)) for cells in tissues)
    solid = usable & (priors.csf_UVW < 0.25)
    difference = (priors.white_UVW - priors.grey_UVW)[solid]
    ranks = np.argsort(np.argsort(cells_UVW[solid], kind="stable"), kind="stable")
    if white <= 0 or difference.std() == 0:
        return None
    inside = values[_in_file_axes(box)]
    rank = float(np.corrcoef(ranks, difference)[0, 1])
    return Contrast(csf / white, grey / white, rank, float(np.percentile(inside, 99.9)) / white), white


def judge_sequences(contrasts: Mapping[Modality, Contrast], *, enhancement: float | None = None) -> dict[Modality, Verdict]:
    """Return for each scan whether it looks like the sequence it is named as.

    Args:
        contrasts: of a case's scans, by the sequence their names claim.
        enhancement: what enhancement_between says of the scans named T1ce and T1, where both are there.
    """
    verdicts = {modality: _judge_weighting(modality, contrast) for modality, contrast in contrasts.items()}
    if any(verdicts.get(modality) is not Verdict.AGREES for modality in (Modality.T1, Modality.T1CE)):
        enhancement = None  # one of the two is something else, so their difference is no enhancement
    for modality in (Modality.T1, Modality.T1CE):
        if verdicts.get(modality) is Verdict.AGREES:
            verdicts[modality] = _judge_enhancement(modality, contrasts[modality], enhancement)
    return verdicts


def looks_like(contrast: Contrast) -> tuple[Modality, ...]:
    """Return the sequences that a scan by itself may be: several where nothing in it tells them apart."""
    fits = [modality for modality in Modality if _judge_weighting(modality, contrast) is not Verdict.DISAGREES]
    if contrast.tail >= BRIGHT_VESSELS and Modality.FLAIR not in fits:
        fits = [modality for modality in fits if modality is not Modality.T1]
    return tuple(fits)


def enhancement_between(
    t1ce: NDArray[np.float32], t1: NDArray[np.float32], inside: NDArray[np.bool_], *, white_t1ce: float, white_t1: float
) -> float:
    """Return how much the brightest parts of T1ce exceed T1, less how much those of T1 exceed T1ce.

    Args:
        t1ce: scan on the grid of `t1`.
        t1: scan.
        inside: the brain, on the same grid.
        white_t1ce: white matter's intensity in T1ce.
        white_t1: white matter's intensity in T1.
    """
    difference = t1ce[inside] / white_t1ce - t1[inside] / white_t1
    low, high = np.percentile(difference, [0.5, 99.5])
    return float(high + low)


def _judge_weighting(modality: Modality, contrast: Contrast) -> Verdict:
    """Judge T1, T2 or FLAIR weighting; T1 and T1ce are one here."""
    bright = contrast.csf > CSF_BRIGHT
    dark = contrast.csf < CSF_DARK
    if modality is Modality.T2:
        return Verdict.AGREES if bright else Verdict.DISAGREES if dark else Verdict.UNKNOWN
    if bright:
        return Verdict.DISAGREES
    t1_weighted, not_t1_weighted = contrast.greyness > GREY_DARK, contrast.greyness < GREY_BRIGHT
    if modality is Modality.FLAIR:
        t1_weighted, not_t1_weighted = not_t1_weighted, t1_weighted
    if not_t1_weighted:
        return Verdict.DISAGREES
    return Verdict.AGREES if t1_weighted and dark else Verdict.UNKNOWN


def _judge_enhancement(modality: Modality, contrast: Contrast, enhancement: float | None) -> Verdict:
    """Tell T1 from T1ce, where the weighting is T1."""
    if enhancement is None:
        enhanced = contrast.tail >= BRIGHT_VESSELS
        if modality is Modality.T1:
            return Verdict.DISAGREES if enhanced else Verdict.AGREES
        return Verdict.AGREES if enhanced else Verdict.UNKNOWN
    if abs(enhancement) < ENHANCED:
        return Verdict.UNKNOWN
    return Verdict.AGREES if enhancement > 0 else Verdict.DISAGREES


def _in_file_axes(box: BrainBox) -> NDArray[np.bool_]:
    """Return the brain mask turned back to the file's axes."""
    source = box.orientation[:, 0].astype(int)
    mask = box.mask_XYZ
    for axis, flip in zip(source, box.orientation[:, 1], strict=True):
        if flip < 0:
            mask = np.flip(mask, axis)
    back: NDArray[np.bool_] = np.transpose(mask, source)
    return back
