"""What of the data audit (gmmas_data.case_audit) makes a prediction doubtful, in sentences that name no file.

The quality gate itself refuses what cannot be read, and then there is no analysis. Here is what can be read and is still wrong: a scan
that is not the sequence it is named as, the same voxels twice, a head with its skull, half a brain. Thick slices, and what cannot be told,
are no fault.
"""

from gmmas_data.case_audit import BRAIN_ML
from gmmas_data.sequence_identity import Verdict
from gmmas_schema.audit import CaseAudit
from gmmas_workflows.figures import MODALITY_NAMES


def quality_faults(audit: CaseAudit) -> tuple[str, ...]:
    """Return what is wrong with a case's images; empty where nothing is."""
    found = [
        f"the scan taken for {MODALITY_NAMES[modality]} does not look like one"
        for modality, scan in audit.scans.items()
        if scan.verdict == Verdict.DISAGREES
    ]
    by_content: dict[str, list[str]] = {}
    for modality, scan in audit.scans.items():
        by_content.setdefault(scan.content, []).append(MODALITY_NAMES[modality])
    found += [f"{' and '.join(names)} are the same scan" for names in by_content.values() if len(names) > 1]
    if audit.brain_ml is not None and (fault := brain_fault(audit.brain_ml)):
        found.append(fault)
    return tuple(found)


def brain_fault(brain_ml: float) -> str:
    """Return what is wrong with a brain of this volume, in a sentence; empty for a whole one without its skull."""
    shown = f"{brain_ml:.0f} ml of the images are not background"
    if brain_ml > BRAIN_ML[1]:
        return f"{shown}, more than a brain has: the skull was not taken off"
    return f"{shown}, less than a whole brain has" if brain_ml < BRAIN_ML[0] else ""
