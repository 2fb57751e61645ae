"""What becomes of a placeholder: what a fact is and its value in one phrase, so that no value can come to stand behind another name.

found       a whole-tumour volume of 31.4 ml (phrases.py); without a phrase of its own, label and value: part of the brain (2.2 %)
abstained   MGMT promoter by imaging                              the value is never told: the sentence says that it is left open
absent      volume of the enhancing tumour                        likewise, that it was not measured
evidence    the clause of its entry, with its figures
"""

import re
from collections.abc import Mapping
from typing import Final

from gmmas_portal.evidence.library import Evidence
from gmmas_portal.reports.phrases import CLINICIAN, PATIENT, Phrase, phrase_for
from gmmas_portal.reports.report import EVIDENCE_PREFIX, PLACEHOLDER, Audience
from gmmas_schema.case_record import Fact, FactStatus

PLAIN_LABELS: Final = {
    "volume.wt": "size of the whole area that looks changed",
    "volume.tc": "size of its core",
    "volume.et": "size of the part that takes up contrast agent",
    "volume.oedema": "size of the area of swelling and other changed tissue around the core",
    "volume.necrosis": "size of the part of the core that takes up no contrast agent",
    "share.wt": "share of the brain",
    "diameter.wt.longest": "greatest length of the whole area",
    "diameter.et.longest": "greatest length of the part that takes up contrast agent",
    "foci.wt": "number of separate places",
    "location.side": "side of the head",
    "midline.crossing": "reaches over the middle of the brain",
    "location.lobe_1": "part of the brain",
    "location.lobe_2": "further part of the brain, estimated",
    "location.lobe_3": "further part of the brain, estimated",
    "tissue.diagnosis": "kind of tumour",
    "tissue.grade": "grade",
    "tissue.idh": "IDH gene",
    "tissue.codeletion": "1p/19q codeletion",
    "tissue.mgmt": "MGMT promoter methylation",
    "sequences.used": "kinds of pictures used",
    "sequences.missing": "kinds of pictures that were missing",
    "model.name": "computer program",
    "model.version": "version",
    "outline.version": "version of the outline",
}
"""Labels for patients; a fact without one keeps its own."""

CLINICIAN_LABELS: Final = {
    "subtype.told": "subtype by imaging",
    "marker.grade": "WHO grade by imaging, low or high",
    "midline.crossing": "whether the tumour crosses the midline",
}
"""Labels for clinicians that fit into a list of open questions better than the fact's own."""

_BRACKETED: Final = re.compile(r"(.+) \((.+)\)")

_PHRASES: Final[Mapping[Audience, Mapping[str, Phrase]]] = {Audience.CLINICIAN: CLINICIAN, Audience.PATIENT: PATIENT}

_HIDDEN: Final = "..."

PLAIN_UNITS: Final = {"ml": "millilitres", "mm": "millimetres", "%": "percent"}


def tell_fact(fact: Fact, *, audience: Audience) -> str:
    """Return a fact that may be told as a phrase with its value, any other by its label alone."""
    if fact.status is not FactStatus.FOUND:
        return label_of(fact, audience=audience)
    value = _value(fact, audience=audience)
    told = phrase_for(_PHRASES[audience], fact.id, value) or _labelled(label_of(fact, audience=audience), value)
    if fact.confidence is None or audience is Audience.PATIENT:
        return told
    return f"{told} (calibrated probability {_percent(fact.confidence)} %)"


def label_of(fact: Fact, *, audience: Audience) -> str:
    """Return what a fact is called before this reader."""
    return (PLAIN_LABELS if audience is Audience.PATIENT else CLINICIAN_LABELS).get(fact.id, fact.label)


def outline_of(fact: Fact, *, audience: Audience) -> str:
    """Return how a fact will stand in a sentence, without its value: `a whole-tumour volume of ...`."""
    phrase = phrase_for(_PHRASES[audience], fact.id, _HIDDEN) if fact.status is FactStatus.FOUND else None
    return phrase if phrase is not None and phrase != _HIDDEN else label_of(fact, audience=audience)


def _percent(confidence: float) -> str:
    """Return a confidence in percent; never as 100, which would be certainty."""
    return "above 99" if round(100 * confidence) >= 100 else f"{100 * confidence:.0f}"


def _labelled(label: str, value: str) -> str:
    bracketed = _BRACKETED.fullmatch(label)
    return f"{bracketed[1]} ({value}; {bracketed[2]})" if bracketed else f"{label} ({value})"


def _value(fact: Fact, *, audience: Audience) -> str:
    """Return a value as it is told; to patients with its unit in words."""
    text = fact.value_text()
    plain = audience is Audience.PATIENT and fact.unit in PLAIN_UNITS
    return f"{text.removesuffix(fact.unit).strip()} {PLAIN_UNITS[fact.unit]}" if plain else text


def tell_evidence(entry: Evidence, *, audience: Audience) -> str:
    """Return the clause of an entry; for patients the one without figures, where it has one."""
    return entry.plain if audience is Audience.PATIENT and entry.plain else entry.text()


def fill(template: str, *, facts: Mapping[str, Fact], evidence: Mapping[str, Evidence], audience: Audience) -> str:
    """Return a template with its placeholders replaced.

    Raises:
        KeyError: a placeholder names what is not there; templates are ours, and those of others have been verified.
    """

    def told(name: str) -> str:
        if name.startswith(EVIDENCE_PREFIX):
            return tell_evidence(evidence[name], audience=audience)
        return tell_fact(facts[name], audience=audience)

    text = PLACEHOLDER.sub(lambda match: told(match[1]), template)
    return text[0].upper() + text[1:]


def join_words(parts: list[str]) -> str:
    """Return parts as in a sentence: `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
