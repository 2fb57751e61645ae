"""What is measured on a mask: volumes, shares, diameters, foci, side, midline and lobes, as facts.

The same for the network's mask and for one that a clinician corrected. Whatever presupposes a tumour is ABSENT where none is outlined; a
volume of nothing is a measured 0.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gmmas_data.regions import regions_of
from gmmas_portal.analysis import fact_ids as ids
from gmmas_portal.analysis.diameters import largest_slice_diameters, longest_diameter
from gmmas_portal.analysis.foci import count_foci, largest_focus
from gmmas_portal.analysis.frame import MeasurementFrame
from gmmas_portal.analysis.lobes import METHOD, share_lobes
from gmmas_schema.case_record import AbstainCode, Fact, FactStatus
from gmmas_schema.vocabulary import REGIONS, Region, Side

ONE_SIDE: Final = 0.8
"""Share of the tumour on one side from which on it is of that side."""

NEAR_MM, NEAR_SHARE = 10.0, 0.5
"""A tumour of neither side lies in the midline if this share of it lies this near to the mid-sagittal plane; else it is bilateral."""

BEYOND_MM, BEYOND_ML = 3.0, 0.5
"""A tumour crosses the midline if this volume lies this far beyond the plane on either side: the plane itself is known to a few mm."""

SMALLEST_LOBE_SHARE: Final = 0.05
"""Share of the tumour in a second or third lobe from which on it is told."""

_NO_TUMOUR = "no tumour is outlined"
_NO_ENHANCING = "no enhancing tumour is outlined"
_NO_ATLAS = "the brain could not be laid over the atlas"
_TISSUES: Mapping[str, tuple[Region, Region, str]] = {
    ids.VOLUME_OEDEMA: (Region.WT, Region.TC, "volume of oedema and infiltrated tissue"),
    ids.VOLUME_NECROSIS: (Region.TC, Region.ET, "volume of the core that does not enhance (necrosis)"),
}
_REGION_NAMES = {Region.WT: "whole tumour", Region.TC: "tumour core", Region.ET: "enhancing tumour"}


def measure(labels_IJK: NDArray[np.uint8], frame: MeasurementFrame) -> tuple[Fact, ...]:
    """Return all facts of source `segmentation`, in the order of gmmas_portal.analysis.fact_ids.

    Args:
        labels_IJK: label map in our own values, of the frame's shape.
        frame: where it lies.
    """
    masks = dict(zip(REGIONS, regions_of(labels_IJK), strict=True))
    whole, enhancing = masks[Region.WT], masks[Region.ET]
    return (
        *_volumes(masks, frame),
        *_diameters(whole, enhancing, frame),
        _measured(ids.FOCI_WT, f"number of foci of the whole tumour of {ids.SMALLEST_ML} ml and more", _foci(whole, frame), unit="1"),
        _measured(ids.FOCI_ET, f"number of enhancing foci of {ids.SMALLEST_ML} ml and more", _foci(enhancing, frame), unit="1"),
        *_sides(whole, frame),
        *_places(whole, frame),
    )


def has_tumour(facts: tuple[Fact, ...]) -> bool:
    """Whether these facts are of a mask with a tumour in it, that is with a focus that counts."""
    return any(fact.id == ids.FOCI_WT and bool(fact.value) for fact in facts)


def _foci(mask: NDArray[np.bool_], frame: MeasurementFrame) -> int:
    return count_foci(mask, voxel_ml=frame.voxel_ml)


def _volumes(masks: Mapping[Region, NDArray[np.bool_]], frame: MeasurementFrame) -> list[Fact]:
    ml = {region: int(np.count_nonzero(mask)) * frame.voxel_ml for region, mask in masks.items()}
    facts = [_measured(f"volume.{region}", f"volume of the {_REGION_NAMES[region]}", ml[region], unit="ml") for region in REGIONS]
    facts += [_measured(name, label, ml[outer] - ml[inner], unit="ml") for name, (outer, inner, label) in _TISSUES.items()]
    share = 100 * ml[Region.WT] / frame.brain_ml if frame.brain_ml else None
    if share is None:
        return [*facts, absent(ids.SHARE_WT, "part of the brain taken by the whole tumour", "no brain was found")]
    return [*facts, _measured(ids.SHARE_WT, "part of the brain taken by the whole tumour", share, unit="%")]


def _diameters(whole: NDArray[np.bool_], enhancing: NDArray[np.bool_], frame: MeasurementFrame) -> list[Fact]:
    affine = frame.affine_array
    names = {
        ids.DIAMETER_WT: "longest diameter of the whole tumour",
        ids.DIAMETER_ET: "longest diameter of the enhancing tumour",
        ids.DIAMETER_ET_AXIAL: "longest axial diameter of the enhancing tumour",
        ids.DIAMETER_ET_PERPENDICULAR: "axial diameter of the enhancing tumour at right angles to the longest",
    }
    found: dict[str, float] = {}
    if whole.any():
        found[ids.DIAMETER_WT] = longest_diameter(largest_focus(whole), affine)
    if enhancing.any():
        focus = largest_focus(enhancing)
        plane = largest_slice_diameters(focus, affine, axis=frame.superior_axis)
        found[ids.DIAMETER_ET] = longest_diameter(focus, affine)
        found[ids.DIAMETER_ET_AXIAL], found[ids.DIAMETER_ET_PERPENDICULAR] = plane.longest_mm, plane.perpendicular_mm
    return [
        _measured(name, label, found[name], unit="mm")
        if name in found
        else absent(name, label, _NO_TUMOUR if name == ids.DIAMETER_WT else _NO_ENHANCING, code=AbstainCode.NO_TUMOUR)
        for name, label in names.items()
    ]


def _sides(whole: NDArray[np.bool_], frame: MeasurementFrame) -> list[Fact]:
    labels = ("side of the tumour", "part of the tumour on the left", "tumour crosses the midline")
    names = (ids.SIDE, ids.SHARE_LEFT, ids.MIDLINE_CROSSING)
    if not whole.any():
        return [absent(name, label, _NO_TUMOUR, code=AbstainCode.NO_TUMOUR) for name, label in zip(names, labels, strict=True)]
    rightward = frame.rightward_mm(frame.points_mm(whole))
    left = float(np.mean(rightward < 0))
    beyond_ml = min(np.count_nonzero(rightward > BEYOND_MM), np.count_nonzero(rightward < -BEYOND_MM)) * frame.voxel_ml
    values: tuple[float | str, ...] = (str(_side(left, rightward)), 100 * left, bool(beyond_ml >= BEYOND_ML))
    units = ("", "%", "")
    return [_measured(name, label, value, unit=unit) for name, label, value, unit in zip(names, labels, values, units, strict=True)]


def _side(left: float, rightward_mm: NDArray[np.float64]) -> Side:
    """Return the tumour's side.

    Args:
        left: share of it on the left.
        rightward_mm: of every voxel.
    """
    if left >= ONE_SIDE:
        return Side.LEFT
    if left <= 1 - ONE_SIDE:
        return Side.RIGHT
    return Side.MIDLINE if np.mean(np.abs(rightward_mm) <= NEAR_MM) >= NEAR_SHARE else Side.BILATERAL


def _places(whole: NDArray[np.bool_], frame: MeasurementFrame) -> list[Fact]:
    """Return lobes and centre of mass in MNI space."""
    place, share = f"{{}} location of the tumour ({METHOD})", f"part of the tumour in its {{}} location ({METHOD})"
    centre = "centre of the tumour in MNI space, millimetres {}"
    towards = ("to the right", "to the front", "upwards")
    points = frame.mni_mm(frame.points_mm(whole)) if whole.any() else None
    if points is None:
        reason, code = (_NO_ATLAS, AbstainCode.NOT_MEASURED) if whole.any() else (_NO_TUMOUR, AbstainCode.NO_TUMOUR)
        missing = [(ids.LOBES[0], place.format("main")), (ids.LOBE_SHARES[0], share.format("main"))]
        missing += [(name, centre.format(direction)) for name, direction in zip(ids.CENTROID, towards, strict=True)]
        return [absent(name, label, reason, code=code) for name, label in missing]
    facts = []
    ranks = zip(ids.LOBES, ids.LOBE_SHARES, ("main", "second", "third"), share_lobes(points), strict=False)
    for lobe_id, share_id, rank, (lobe, part) in ranks:
        if rank == "main" or part >= SMALLEST_LOBE_SHARE:
            facts.append(_measured(lobe_id, place.format(rank), lobe))
            facts.append(_measured(share_id, share.format(rank), 100 * part, unit="%", decimals=0))
    middle = points.mean(axis=0).tolist()
    return facts + [
        _measured(name, centre.format(direction), value, unit="mm", decimals=0)
        for name, direction, value in zip(ids.CENTROID, towards, middle, strict=True)
    ]


def _measured(name: str, label: str, value: float | str, *, unit: str = "", decimals: int = 1) -> Fact:
    return Fact(id=name, label=label, value=value, unit=unit, decimals=decimals, source="segmentation")


def absent(name: str, label: str, reason: str, *, code: AbstainCode = AbstainCode.NOT_MEASURED) -> Fact:
    """Return a fact of the mask that could not be measured."""
    return Fact(id=name, label=label, status=FactStatus.ABSENT, codes=(code,), reason=reason, source="segmentation")
