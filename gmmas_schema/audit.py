"""What the data audit of `gmmas site check` finds. CaseAudit and CohortAudit stay at the site; AuditAggregate is what may leave it."""

from enum import StrEnum
from typing import Final

from gmmas_schema.base import FrozenModel
from gmmas_schema.vocabulary import Layout, Modality, Region, Side

SALT_BYTES: Final = 32
"""Of the secret by which hospitals key the fingerprints of their scans, at least."""

AUDIT_VERSION = 1
"""Raised with any change of what a case's audit says; it is part of the key under which results are kept."""

SMALLEST_COUNT = 11
"""Counts below it never leave a site."""


class FindingKind(StrEnum):
    """What a case's audit can find."""

    UNREADABLE = "refused by the quality gate"
    SEQUENCE_DIFFERS = "a scan does not look like its sequence"
    SEQUENCE_UNCLEAR = "a scan's sequence cannot be told"
    NOT_STRIPPED = "the skull is still there"
    STRIPPING_UNCLEAR = "skull-stripping cannot be told"
    THICK_SLICES = "thick slices"
    SAME_VOXELS = "two sequences hold the same voxels"
    LABEL_OUTSIDE = "the segmentation reaches outside the brain"
    LABEL_SCATTERED = "the segmentation is scattered"
    LABEL_TINY = "the segmentation is tiny"
    LABEL_HUGE = "the segmentation is huge"
    NO_ENHANCEMENT = "what is labelled enhancing does not enhance"
    NOT_BRIGHT = "the labelled tumour is not bright in FLAIR"
    SIDE_DIFFERS = "the tumour's side is not that of the table"
    DUPLICATE = "the same scan under two patients"
    NEAR_DUPLICATE = "nearly the same brain under two patients"
    MIRRORED = "a mirrored twin"


class Finding(FrozenModel):
    """One thing to look at; `text` may name files and stays at the site."""

    kind: FindingKind
    text: str


class ScanAudit(FrozenModel):
    """One scan.

    Attributes:
        spacing_mm: along the file's axes.
        shape: voxels along them.
        axes: where they point, as LPS or RAS.
        verdict: whether it looks like its sequence (gmmas_data.sequence_identity.Verdict).
        contrast: csf, grey, rank and tail, as far as they could be measured.
        content: SHA-256 over the voxels.
        fingerprint: of gmmas_data.fingerprints.
    """

    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    axes: str
    verdict: str
    contrast: dict[str, float]
    content: str
    fingerprint: tuple[float, ...]


class LabelAudit(FrozenModel):
    """A segmentation.

    Attributes:
        volumes_ml: of the regions it tells.
        pieces: connected parts of the whole tumour of at least 0.1 ml.
        outside: share of it that lies outside the brain.
        side: where most of it lies.
    """

    volumes_ml: dict[Region, float]
    pieces: int
    outside: float
    side: Side


class CaseAudit(FrozenModel):
    """One case. `fault` is the reason code of a case that the quality gate refuses; it has no scans then."""

    case_id: str
    patient_id: str
    layout: Layout
    seconds: float
    scans: dict[Modality, ScanAudit] = {}
    brain_ml: float | None = None
    stripped: str = ""
    label: LabelAudit | None = None
    fault: str = ""
    findings: tuple[Finding, ...] = ()


class CohortAudit(FrozenModel):
    """A cohort, as the report shows it; it stays at the site.

    Attributes:
        left_out: NIfTI files that no case takes: how many for each reason.
        table: cases by sequence and label, as `cell name -> count` (gmmas_data.audit_table).
    """

    site: str
    version: int = AUDIT_VERSION
    layout: Layout
    cases: tuple[CaseAudit, ...]
    left_out: dict[str, int] = {}
    table: dict[str, int] = {}


class AuditAggregate(FrozenModel):
    """What leaves the site, after consent only. Suppressed counts are None; see gmmas_data.suppression for what protects them.

    Attributes:
        held: sequences and labels that the site has at all: what a coordinator needs to know to plan a run.
        counts: by cell name.
        spacing_mm: median of the largest and the smallest spacing, to 0.1 mm; None for fewer than SMALLEST_COUNT cases.
        fingerprints: keyed bands by sequence, an entry per scan in an order that means nothing, and only of sequences whose number of cases
            is told; empty without a salt.
    """

    site: str
    version: int = AUDIT_VERSION
    layout: Layout
    held: tuple[str, ...]
    counts: dict[str, int | None]
    spacing_mm: tuple[float, float] | None = None
    fingerprints: dict[Modality, tuple[tuple[str, ...], ...]] = {}
