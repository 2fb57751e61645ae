"""Scores of novelty of the hospital's own patients whose glioma the laboratory confirmed: what a threshold of its own is measured on."""

from gmmas_portal.analysis.fact_ids import OOD_SCORE
from gmmas_portal.web.accounts import MODEL_AUTHOR
from gmmas_portal.web.cases import CaseStore


def known_scores(cases: CaseStore, *, weights_sha256: str) -> dict[str, float]:
    """Return one score a patient, by pseudonym: that of the newest case with a diagnosis entered from tissue.

    Args:
        cases: of the platform; its sample case does not count.
        weights_sha256: analyses by other models do not count either.
    """
    scores: dict[str, float] = {}
    for case in cases.cases():
        if case.sample or case.patient in scores or case.context.tissue.diagnosis is None:
            continue
        for version in cases.versions(case.key):
            # A corrected outline keeps what the network said, so that the analysis itself is what counts.
            if version.author != MODEL_AUTHOR or version.record.model.weights_sha256 != weights_sha256:
                continue
            value = next((fact.value for fact in version.record.facts if fact.id == OOD_SCORE), None)
            if isinstance(value, float):
                scores[case.patient] = value
                break
    return scores
