"""The mask as a DICOM Segmentation (PS3.3 A.51): binary, one segment for each region and tissue that is there.

Voxels are those of the mask, on the grid of the case's files, in the frame of reference of the images. A segmentation by the network is
AUTOMATIC and names model and weights; one that a person corrected is SEMIAUTOMATIC and names that person too. Tracking identifiers stay the
same over all versions of a case's outline.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gmmas_portal.exports.concepts import ABNORMAL, BRAIN, SCHEME, SCHEME_NAME, SEGMENTS, coded, segment_masks
from gmmas_portal.exports.geometry import place_volume
from gmmas_portal.exports.identity import CHARACTER_SET, LONGEST_TEXT, MANUFACTURER, MODEL_NAME, CaseIdentity, person_name
from gmmas_schema.case_record import CaseRecord

SEGMENTATION_SERIES: Final = 101


def make_segmentation(
    record: CaseRecord,
    labels_IJK: NDArray[np.uint8],
    affine: NDArray[np.float64],
    *,
    sources: Sequence[Any],
    identity: CaseIdentity,
) -> Any | None:
    """Return a highdicom Segmentation; None where nothing is outlined, for DICOM has no empty one.

    Args:
        record: of the mask's version.
        labels_IJK: label map in our own values.
        affine: 4x4, voxel to millimetres in RAS+.
        sources: pydicom datasets of one series of the case's images, at least one; patient and study are taken from the first.
        identity: of the case.

    Raises:
        DataError: the grid has shear.
    """
    from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription

    masks = {key: mask for key, mask in segment_masks(labels_IJK).items() if mask.any()}
    kinds = [kind for kind in SEGMENTS if kind.key in masks]
    if not kinds:
        return None
    stacked = np.stack([masks[kind.key] for kind in kinds], axis=-1).astype(np.uint8)
    automatic = record.segmentation.author == "model"
    descriptions = [
        SegmentDescription(
            segment_number=number,
            segment_label=kind.label,
            segmented_property_category=coded(ABNORMAL),
            segmented_property_type=coded(kind.code),
            algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC if automatic else SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
            algorithm_identification=_algorithm(record),
            tracking_id=tracking_id(identity, kind.key),
            tracking_uid=tracking_uid(identity, kind.key),
            anatomic_regions=[coded(BRAIN)],
            display_color=_colour(kind.colour),
        )
        for number, kind in enumerate(kinds, start=1)
    ]
    return Segmentation(
        source_images=list(sources),
        pixel_array=place_volume(stacked, affine, frame_uid=identity.frame_uid),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=identity.uid("segmentation series"),
        series_number=SEGMENTATION_SERIES,
        sop_instance_uid=identity.uid("segmentation"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=record.software[:LONGEST_TEXT],
        device_serial_number=record.model.weights_sha256[:16],
        content_label="GLIOMA",
        content_description=f"Research use only; version {record.segmentation.version}",
        content_creator_name=None if automatic else person_name(record.segmentation.author),
        series_description=f"Glioma segmentation, version {record.segmentation.version}",
        specific_character_set=CHARACTER_SET,
        coding_schemes=[coding_scheme()],
    )


def tracking_id(identity: CaseIdentity, key: str) -> str:
    """Return the readable identifier by which a region is followed over versions."""
    return f"{identity.case} {key}"[:LONGEST_TEXT]


def tracking_uid(identity: CaseIdentity, key: str) -> str:
    """Return the unique identifier by which a region is followed over versions."""
    return identity.image_uid("tracking", key)


def coding_scheme() -> Any:
    """Return the private coding scheme as objects that use it declare it."""
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    return CodingSchemeIdentificationItem(designator=SCHEME, name=SCHEME_NAME, responsible_organization=MANUFACTURER)


def _algorithm(record: CaseRecord) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from pydicom.sr.codedict import codes

    return AlgorithmIdentificationSequence(
        name=record.model.name[:LONGEST_TEXT],
        family=codes.DCM.ArtificialIntelligence,
        version=(record.model.version or record.model.weights_sha256)[:LONGEST_TEXT],
        source=MANUFACTURER,
        parameters={"weights_sha256": record.model.weights_sha256},
    )


def _colour(lab: tuple[float, float, float]) -> Any:
    from highdicom.color import CIELabColor

    return CIELabColor(*lab)
