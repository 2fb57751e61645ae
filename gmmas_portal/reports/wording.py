"""What becomes of a placeholder: label and value together, so that no value can come to stand behind another label.

found       volume of the whole tumour (31.4 ml)
abstained   MGMT promoter (left open: confidence 0.61 is below 0.80)      the value is never told
absent      volume of the enhancing tumour (not measured: T1ce is missing)
evidence    the clause of its entry, with its figures
"""

import re
from collections.abc import Mapping
from typing import Final

from gmmas_portal.evidence.library import Evidence
from gmmas_portal.reports.report import EVIDENCE_PREFIX, PLACEHOLDER, Audience
from gmmas_schema.case_record import Fact, FactStatus

PLAIN_LABELS: Final = {
    "volume.wt": "size of the whole area that looks changed",
    "volume.tc": "size of its core",
    "volume.et": "size of the part that takes up contrast agent",
    "volume.oedema": "size of the area around the core, much of it swelling",
    "volume.necrosis": "size of the part of the core that takes up no contrast agent",
    "share.wt": "share of the brain",
    "diameter.wt.longest": "greatest length of the whole area",
    "diameter.et.longest": "greatest length of the part that takes up contrast agent",
    "foci.wt": "number of separate places",
    "location.side": "side of the head",
    "midline.crossing": "reaches over the middle of the brain",
    "location.lobe_1": "part of the brain, estimated",
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

SHORT_LABELS: Final = {"subtype.told": "subtype"}
"""Labels that would say again what the sentence says."""

_BRACKETED: Final = re.compile(r"(.+) \((.+)\)")

PLAIN_VALUES: Final = {
    "tissue.idh": {"mutant": "changed", "wildtype": "not changed"},
    "tissue.codeletion": {"codeleted": "found", "intact": "not found"},
    "tissue.mgmt": {"methylated": "found", "unmethylated": "not found"},
    "location.side": {"bilateral": "both sides", "midline": "the middle"},
}
"""Words for values of these facts; a value without one is told as it is."""

PLAIN_UNITS: Final = {"ml": "millilitres", "mm": "millimetres", "%": "percent"}


def tell_fact(fact: Fact, *, audience: Audience) -> str:
    """Return label and value of a fact, or that its question is open."""
    plain = audience is Audience.PATIENT
    label = label_of(fact, audience=audience)
    if fact.status is FactStatus.FOUND:
        confidence = "" if fact.confidence is None or plain else f", calibrated probability {100 * fact.confidence:.0f} %"
        told = f"{plain_value(fact) if plain else fact.value_text()}{confidence}"
    else:
        told = "left open" if fact.status is FactStatus.ABSTAINED else "not measured"
    bracketed = _BRACKETED.fullmatch(label)
    return f"{bracketed[1]} ({told}; {bracketed[2]})" if bracketed else f"{label} ({told})"


def label_of(fact: Fact, *, audience: Audience) -> str:
    """Return what a fact is called before this reader."""
    return (PLAIN_LABELS if audience is Audience.PATIENT else SHORT_LABELS).get(fact.id, fact.label)


def plain_value(fact: Fact) -> str:
    """Return a value in plain words, its unit too."""
    text = PLAIN_VALUES.get(fact.id, {}).get(fact.value_text(), fact.value_text())
    return f"{text.removesuffix(fact.unit).strip()} {PLAIN_UNITS[fact.unit]}" if fact.unit in PLAIN_UNITS else text


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
