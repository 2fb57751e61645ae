"""Who and what a DICOM object names: identifiers derived from the record, so that the same record exported twice is the same object.

    UID = 2.25.<UUID version 5 over a namespace of this program and the parts that make the object what it is>

(PS3.5 B.2.) A case from NIfTI files has no study in any archive: it gets one of its own, under its pseudonym, without a date, a birth date
or a sex. A case that is exported beside its own DICOM images takes patient and study from these.
"""

import re
import uuid
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from gmmas_schema.case_record import CaseRecord
from gmmas_schema.errors import ConfigError

MANUFACTURER: Final = "GMMAS (research software)"
MODEL_NAME: Final = "gmmas-fed"
CHARACTER_SET: Final = "ISO_IR 192"
LONGEST_TEXT: Final = 63
"""Characters of a name or a short text in DICOM, less one for the caret of a name."""

_NAMESPACE: Final = uuid.UUID("6f9b1c52-5d0e-5c3b-9a27-2f6f0a9f7d41")


def uid_of(*parts: str) -> str:
    """Return the unique identifier of what these parts describe."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(31).join(parts)).int}"


@dataclass(frozen=True)
class CaseIdentity:
    """Identifiers of one case's objects.

    Attributes:
        case: pseudonym.
        study_uid: of the study they belong to.
        frame_uid: of the space their coordinates are in.
        record: digest of the record, so that a later version is another object.
        lesion: what stays the same over all versions of the outline, for tracking identifiers.
    """

    case: str
    study_uid: str
    frame_uid: str
    record: str
    lesion: str

    @classmethod
    def of(cls, record: CaseRecord, *, source: Any = None) -> "CaseIdentity":
        """Return the identity of a record's objects.

        Args:
            record: what is exported.
            source: header of one of the DICOM images that the case was made from; None for a case from NIfTI files.
        """
        images = "|".join(f"{modality}={sha}" for modality, sha in sorted(record.inputs.items()))
        study = uid_of("study", record.case, images) if source is None else str(source.StudyInstanceUID)
        frame = uid_of("frame", record.case, images) if source is None else str(source.FrameOfReferenceUID)
        return cls(record.case, study, frame, record.digest(), f"{record.case}|{images}")

    def uid(self, *parts: str) -> str:
        """Return the identifier of an object of this record."""
        return uid_of(self.study_uid, self.record, *parts)

    def image_uid(self, *parts: str) -> str:
        """Return the identifier of an image: the same for every version of the record."""
        return uid_of(self.study_uid, self.lesion, *parts)


def person_name(text: str) -> str:
    """Return a name as DICOM writes one: a single word is a family name, and what would divide it is left out."""
    plain = re.sub(r"[\\=\x00-\x1f]", " ", text).strip()[:LONGEST_TEXT]
    return plain if "^" in plain else f"{plain}^"


def software_version() -> str:
    """Return the version that made an object."""
    return version("gmmas-fed")


def missing_package(error: ImportError) -> ConfigError:
    """Return the error of a package of the extra `portal` that is not installed."""
    return ConfigError(
        "a package for DICOM export is not installed",
        got=f"no {error.name}",
        expected="gmmas-fed with its extra `portal`",
        remedy="pip install --constraint constraints.txt 'gmmas-fed[portal]'",
    )
