"""The audit of a cohort: every case once, kept on disk by content, so that an interrupted audit goes on where it was; then what only the
cases together show: duplicates, counts, and the aggregate that may leave the site.
"""

import hashlib
import json
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from gmmas_data.audit_table import make_table
from gmmas_data.case_audit import audit_case
from gmmas_data.case_picture import draw_case
from gmmas_data.cases import Case
from gmmas_data.fingerprints import SAME, keyed_bands
from gmmas_data.layouts import FolderSurvey
from gmmas_data.parallel import map_in_processes
from gmmas_data.suppression import suppress
from gmmas_runtime.files import make_private_folder, sha256_file, write_atomic
from gmmas_schema.audit import AUDIT_VERSION, SMALLEST_COUNT, AuditAggregate, CaseAudit, CohortAudit, Finding, FindingKind
from gmmas_schema.vocabulary import MODALITIES, Modality

_PICTURES = "pictures"


@dataclass(frozen=True)
class KeptAudit:
    """A case's audit and its picture, if the case could be read."""

    audit: CaseAudit
    picture: Path | None


def audit_cohort(
    cases: Sequence[Case],
    *,
    site: str,
    survey: FolderSurvey,
    folder: Path,
    processes: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[CohortAudit, dict[str, Path]]:
    """Audit a cohort.

    Args:
        cases: of the cohort.
        site: its name.
        survey: what was read and what was left out.
        folder: where results are kept, one JSON and one PNG per case; they name patients and stay with the site.
        processes: most cases at one time.
        on_progress: called with (done, total).

    Returns:
        The audit, and the pictures by case identifier.
    """
    make_private_folder(folder)
    make_private_folder(folder / _PICTURES)
    kept = map_in_processes(partial(_audit_one, folder), cases, processes=processes, on_progress=on_progress)
    audits = _with_twins([one.audit for one in kept])
    accepted = [(case, audit) for case, audit in zip(cases, audits, strict=True) if not audit.fault]
    audit = CohortAudit(
        site=site, layout=survey.layout, cases=tuple(audits), left_out=dict(survey.reasons()), table=make_table(accepted).counts
    )
    return audit, {one.audit.case_id: one.picture for one in kept if one.picture is not None}


def aggregate_of(audit: CohortAudit, cases: Sequence[Case], *, salt: bytes | None = None) -> AuditAggregate:
    """Return what may leave the site: counts with the small ones withheld, two spacings, and, with a salt, keyed fingerprints.

    Args:
        audit: of `cases`.
        cases: of the cohort, in the same order.
        salt: of the federation; None leaves the fingerprints out.
    """
    accepted = [(case, one) for case, one in zip(cases, audit.cases, strict=True) if not one.fault]
    table = make_table(accepted)
    counts = suppress(table.counts, table.sums, hidden=table.hidden, least=table.least)
    spacings = [next(iter(one.scans.values())).spacing_mm for _, one in accepted if one.scans]
    enough = len(accepted) >= SMALLEST_COUNT
    return AuditAggregate(
        site=audit.site,
        layout=audit.layout,
        held=table.held,
        counts=counts,
        spacing_mm=(round(statistics.median(map(max, spacings)), 1), round(statistics.median(map(min, spacings)), 1)) if enough else None,
        fingerprints={} if salt is None else _keyed([one for _, one in accepted], counts, salt),
    )


def _keyed(audits: Sequence[CaseAudit], counts: Mapping[str, int | None], salt: bytes) -> dict[Modality, tuple[tuple[str, ...], ...]]:
    """Return the keyed bands of every scan, by sequence.

    A list's length is a count, so there is none where the count is withheld. The order is random, for that of a cohort is that of its
    identifiers, and the sequences are shuffled apart, for which ones a case has is a count as well.
    """
    found = {}
    for modality in MODALITIES:
        if counts.get(f"with {modality}") is not None:
            scans = [one.scans[modality] for one in audits if modality in one.scans]
            every = [keyed_bands(scan.fingerprint, modality=modality, salt=salt) for scan in scans]
            random.SystemRandom().shuffle(every)
            found[modality] = tuple(every)
    return found


def _audit_one(folder: Path, case: Case) -> KeptAudit:
    """Return a case's audit from disk, or make it; the picture is written first, so a kept audit has one."""
    try:
        key = _key_of(case)
    except OSError:
        return KeptAudit(audit_case(case)[0], None)
    path, picture = folder / f"{key}.json", folder / _PICTURES / f"{key}.png"
    try:
        kept = CaseAudit.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        kept = None
    if kept is not None and (kept.fault or picture.exists()):
        return KeptAudit(kept, None if kept.fault else picture)
    audit, loaded = audit_case(case)
    if loaded is not None:
        write_atomic(picture, draw_case(loaded, audit), durable=False)
    write_atomic(path, audit.model_dump_json().encode(), durable=False)
    return KeptAudit(audit, None if loaded is None else picture)


def _key_of(case: Case) -> str:
    """Return what a case's audit depends on, as a hash."""
    files = {str(modality): path for modality, path in case.images.items()}
    if case.segmentation is not None:
        files["segmentation"] = case.segmentation
    identity = {
        "version": AUDIT_VERSION,
        "case": case.case_id,
        "layout": case.layout,
        "side": case.side,
        "tissues": None if case.tissues is None else sorted(case.tissues.items()),
        "files": {role: [path.name, sha256_file(path)] for role, path in files.items()},
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _with_twins(audits: Sequence[CaseAudit]) -> list[CaseAudit]:
    """Return the audits with what pairs of different patients have in common."""
    found: dict[int, list[Finding]] = {}
    contents = [{scan.content for scan in audit.scans.values()} for audit in audits]
    likeness = _likeness(audits)
    for second, other in enumerate(audits):
        for first, one in enumerate(audits[:second]):
            if one.patient_id == other.patient_id:
                continue
            kind = _twin_kind(bool(contents[first] & contents[second]), float(likeness[first, second]))
            if kind is not None:
                found.setdefault(first, []).append(Finding(kind=kind, text=f"as in {other.case_id}"))
                found.setdefault(second, []).append(Finding(kind=kind, text=f"as in {one.case_id}"))
    return [audit.model_copy(update={"findings": (*audit.findings, *found.get(place, ()))}) for place, audit in enumerate(audits)]


def _likeness(audits: Sequence[CaseAudit]) -> NDArray[np.float64]:
    """Return the mean cosine over common sequences of every pair (gmmas_data.fingerprints.similarity, all at once)."""
    total, common = np.zeros((len(audits),) * 2), np.zeros((len(audits),) * 2)
    for modality in MODALITIES:
        there = np.array([modality in audit.scans for audit in audits])
        if there.any():
            prints = np.array([audit.scans[modality].fingerprint for audit, has in zip(audits, there, strict=True) if has])
            total[np.ix_(there, there)] += prints @ prints.T
            common[np.ix_(there, there)] += 1
    return total / np.maximum(common, 1)


def _twin_kind(same_voxels: bool, cosine: float) -> FindingKind | None:
    if same_voxels:
        return FindingKind.DUPLICATE
    if cosine >= SAME:
        return FindingKind.NEAR_DUPLICATE
    return FindingKind.MIRRORED if cosine <= -SAME else None
