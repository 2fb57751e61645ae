"""The audit of one case: what the quality gate says, and beyond it what a person would see at a glance.

Skull or no skull: a brain has 700 to 2200 ml with its CSF, a head in the field of view of a brain scan 2500 ml and more, and a
stripped scan has one value outside the brain. Slices thicker than 3 mm and four times as thick as wide are told, because thin
structures are lost.
Segmentation: its side, its pieces, what of it lies outside the brain, and whether its tissues look as they are named: enhancing tumour is
brighter in T1ce than in T1 against the rest of the tumour, and the whole tumour is brighter than white matter in FLAIR.
"""

import hashlib
import time
from collections.abc import Mapping

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gmmas_data.canonical import BrainBox, place_box
from gmmas_data.cases import Case
from gmmas_data.fingerprints import fingerprint_of
from gmmas_data.quality import LoadedCase, load_case
from gmmas_data.sequence_identity import Contrast, Verdict, enhancement_between, judge_sequences, looks_like, measure_contrast
from gmmas_data.volumes import spacing_of
from gmmas_schema.audit import CaseAudit, Finding, FindingKind, LabelAudit, ScanAudit
from gmmas_schema.errors import DataError
from gmmas_schema.vocabulary import ENHANCING, Modality, Region, Side

BRAIN_ML = (700.0, 2200.0)
HEAD_ML = 2500.0
THICK_MM, THICK_RATIO = 3.0, 4.0
OUTSIDE_SHARE = 0.05
SCATTERED_PIECES = 12
TINY_ML, HUGE_ML = 0.3, 400.0
PIECE_ML = 0.1
ENHANCEMENT = 0.05
FLAIR_BRIGHT = 1.05
_ONE_SIDE = 0.8
_FEWEST_VOXELS = 50


def audit_case(case: Case) -> tuple[CaseAudit, LoadedCase | None]:
    """Return the audit of a case, and its voxels for pictures; None if the quality gate refuses it."""
    start = time.perf_counter()
    try:
        loaded = load_case(case)
    except DataError as error:
        refused = Finding(kind=FindingKind.UNREADABLE, text=error.explain())
        fault = CaseAudit(
            case_id=case.case_id,
            patient_id=case.patient_id,
            layout=case.layout,
            seconds=time.perf_counter() - start,
            fault=str(error.code),
            findings=(refused,),
        )
        return fault, None
    brain = ndimage.binary_fill_holes(np.logical_or.reduce(list(loaded.brains.values())))
    box = place_box(brain, loaded.affine)
    scans, white, findings = _audit_scans(loaded, box, brain)
    brain_ml = float(brain.sum()) * _voxel_ml(loaded)
    stripped = _judge_stripping(loaded, brain_ml)
    findings += _stripping_findings(stripped, brain_ml)
    label = None
    if loaded.segmentation is not None:
        label, more = _audit_label(loaded, box, brain, white)
        findings += more
    audit = CaseAudit(
        case_id=case.case_id,
        patient_id=case.patient_id,
        layout=case.layout,
        seconds=time.perf_counter() - start,
        scans=scans,
        brain_ml=round(brain_ml, 1),
        stripped=stripped,
        label=label,
        findings=tuple(findings),
    )
    return audit, loaded


def _audit_scans(
    loaded: LoadedCase, box: BrainBox, brain: NDArray[np.bool_]
) -> tuple[dict[Modality, ScanAudit], dict[Modality, float], list[Finding]]:
    """Return the scans' audits, each one's white matter intensity, and what is wrong with them."""
    tumour = None if loaded.segmentation is None else loaded.segmentation > 0
    measured = {modality: measure_contrast(values, box, without=tumour) for modality, values in loaded.images.items()}
    contrasts = {modality: found[0] for modality, found in measured.items() if found is not None}
    white = {modality: found[1] for modality, found in measured.items() if found is not None}
    enhancement = None
    if Modality.T1 in white and Modality.T1CE in white:
        enhancement = enhancement_between(
            loaded.images[Modality.T1CE],
            loaded.images[Modality.T1],
            brain,
            white_t1ce=white[Modality.T1CE],
            white_t1=white[Modality.T1],
        )
    verdicts = judge_sequences(contrasts, enhancement=enhancement)
    x, y, z = (round(float(mm), 3) for mm in spacing_of(loaded.affine))
    scans = {
        modality: ScanAudit(
            spacing_mm=(x, y, z),
            shape=loaded.shape,
            axes="".join(nib.orientations.aff2axcodes(loaded.affine)),
            verdict=str(verdicts.get(modality, Verdict.UNKNOWN)),
            contrast=_numbers(contrasts.get(modality)),
            content=hashlib.sha256(np.ascontiguousarray(values).data).hexdigest(),
            fingerprint=tuple(round(float(c), 4) for c in fingerprint_of(values, loaded.brains[modality], loaded.affine)),
        )
        for modality, values in loaded.images.items()
    }
    return scans, white, _scan_findings(loaded.case, scans, contrasts)


def _scan_findings(case: Case, scans: Mapping[Modality, ScanAudit], contrasts: Mapping[Modality, Contrast]) -> list[Finding]:
    findings = []
    for modality, scan in scans.items():
        name = case.images[modality].name
        if scan.verdict == Verdict.DISAGREES:
            fits = [str(m) for m in looks_like(contrasts[modality]) if m is not modality]
            may = f"; it may be a {' or '.join(fits)}" if fits else ""
            findings.append(Finding(kind=FindingKind.SEQUENCE_DIFFERS, text=f"{name} does not look like a {modality}{may}"))
        elif scan.verdict == Verdict.UNKNOWN:
            findings.append(Finding(kind=FindingKind.SEQUENCE_UNCLEAR, text=f"{name}: whether it is a {modality} cannot be told"))
    by_content: dict[str, list[Modality]] = {}
    for modality, scan in scans.items():
        by_content.setdefault(scan.content, []).append(modality)
    for same in by_content.values():
        if len(same) > 1:
            findings.append(Finding(kind=FindingKind.SAME_VOXELS, text=f"{' and '.join(same)} are the same voxels under two names"))
    spacing = next(iter(scans.values())).spacing_mm
    if max(spacing) > THICK_MM and max(spacing) > THICK_RATIO * min(spacing):
        findings.append(Finding(kind=FindingKind.THICK_SLICES, text=f"slices of {max(spacing):g} mm, {min(spacing):g} mm in plane"))
    return findings


def _numbers(contrast: Contrast | None) -> dict[str, float]:
    if contrast is None:
        return {}
    return {
        "csf": round(contrast.csf, 3),
        "grey": round(contrast.grey, 3),
        "rank": round(contrast.rank, 3),
        "tail": round(contrast.tail, 3),
    }


def _voxel_ml(loaded: LoadedCase) -> float:
    return float(abs(np.linalg.det(loaded.affine[:3, :3]))) / 1000


def _judge_stripping(loaded: LoadedCase, brain_ml: float) -> str:
    """Return whether the skull is off: `yes`, `no` or `cannot tell`."""
    if brain_ml > HEAD_ML:
        return "no"
    values = next(iter(loaded.images.values()))
    corners = values[np.ix_((0, -1), (0, -1), (0, -1))]
    empty = float((values == corners.flat[0]).mean()) > 0.2 and bool((corners == corners.flat[0]).all())
    return "yes" if empty and BRAIN_ML[0] <= brain_ml <= BRAIN_ML[1] else "cannot tell"


def _stripping_findings(stripped: str, brain_ml: float) -> list[Finding]:
    if stripped == "yes":
        return []
    if stripped == "no":
        text = f"{brain_ml:.0f} ml are not background: strip the skull (HD-BET, SynthStrip) before training"
        return [Finding(kind=FindingKind.NOT_STRIPPED, text=text)]
    text = f"{brain_ml:.0f} ml are not background, a brain has {BRAIN_ML[0]:.0f} to {BRAIN_ML[1]:.0f} ml"
    return [Finding(kind=FindingKind.STRIPPING_UNCLEAR, text=text)]


def _audit_label(
    loaded: LoadedCase, box: BrainBox, brain: NDArray[np.bool_], white: Mapping[Modality, float]
) -> tuple[LabelAudit, list[Finding]]:
    """Return what a segmentation holds, and what is wrong with it."""
    labels = loaded.segmentation
    assert labels is not None
    whole = labels > 0
    parts = {Region.WT: whole, Region.TC: whole & (labels != 2), Region.ET: labels == ENHANCING}
    voxel_ml = _voxel_ml(loaded)
    volumes = {region: round(float(mask.sum()) * voxel_ml, 2) for region, mask in parts.items() if region in loaded.case.known_regions}
    numbered, count = ndimage.label(whole, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(numbered.ravel())[1:] if count else np.zeros(0)
    label = LabelAudit(
        volumes_ml=volumes,
        pieces=int((sizes * voxel_ml >= PIECE_ML).sum()),
        outside=round(float((whole & ~brain).sum() / whole.sum()), 4),
        side=_side_of(whole, box),
    )
    return label, [*_shape_findings(label), *_tissue_findings(loaded, parts, white), *_side_findings(loaded.case, label)]


def _side_of(whole: NDArray[np.bool_], box: BrainBox) -> Side:
    """Return where a tumour lies: cells run from left to right in the first axis."""
    mass_U = box.average(whole.astype(np.float32)).sum(axis=(1, 2))
    half = len(mass_U) // 2
    right = float(mass_U[half:].sum() / max(mass_U.sum(), 1e-9))
    if right > _ONE_SIDE:
        return Side.RIGHT
    return Side.LEFT if right < 1 - _ONE_SIDE else Side.BILATERAL


def _shape_findings(label: LabelAudit) -> list[Finding]:
    volume_ml = label.volumes_ml[Region.WT]
    found = {
        FindingKind.LABEL_OUTSIDE: (label.outside > OUTSIDE_SHARE, f"{label.outside:.0%} of the segmentation lies outside the brain"),
        FindingKind.LABEL_SCATTERED: (label.pieces > SCATTERED_PIECES, f"the segmentation has {label.pieces} separate pieces"),
        FindingKind.LABEL_TINY: (volume_ml < TINY_ML, f"the whole tumour has {volume_ml:g} ml"),
        FindingKind.LABEL_HUGE: (volume_ml > HUGE_ML, f"the whole tumour has {volume_ml:g} ml"),
    }
    return [Finding(kind=kind, text=text) for kind, (there, text) in found.items() if there]


def _tissue_findings(loaded: LoadedCase, parts: Mapping[Region, NDArray[np.bool_]], white: Mapping[Modality, float]) -> list[Finding]:
    findings = []
    rest = parts[Region.WT] & ~parts[Region.ET]
    if {Modality.T1, Modality.T1CE} <= set(white) and min(parts[Region.ET].sum(), rest.sum()) >= _FEWEST_VOXELS:
        gain = loaded.images[Modality.T1CE] / white[Modality.T1CE] - loaded.images[Modality.T1] / white[Modality.T1]
        more = float(np.median(gain[parts[Region.ET]]) - np.median(gain[rest]))
        if more < ENHANCEMENT:
            text = f"what is labelled enhancing gains {more:+.2f} of white matter's intensity over the rest: are the label values right?"
            findings.append(Finding(kind=FindingKind.NO_ENHANCEMENT, text=text))
    if Modality.FLAIR in white and parts[Region.WT].sum() >= _FEWEST_VOXELS:
        ratio = float(np.median(loaded.images[Modality.FLAIR][parts[Region.WT]])) / white[Modality.FLAIR]
        if ratio < FLAIR_BRIGHT:
            text = f"the labelled tumour has {ratio:.2f} of white matter's intensity in FLAIR: does the mask belong to this scan?"
            findings.append(Finding(kind=FindingKind.NOT_BRIGHT, text=text))
    return findings


def _side_findings(case: Case, label: LabelAudit) -> list[Finding]:
    opposite = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT}
    if case.side is None or opposite.get(case.side) is not label.side:
        return []
    text = f"the table says {case.side}, the segmentation lies {label.side}: are left and right swapped?"
    return [Finding(kind=FindingKind.SIDE_DIFFERS, text=text)]
