"""How a fact that may be told stands in a sentence: value and what it is of in one phrase, so that no value can
come to stand behind another name.

    pattern     `{}` is the value with its unit:                  volume.wt    a whole-tumour volume of 31.4 ml
    by value    one phrase per value, `*` for any other one:      marker.idh   an IDH mutation

A fact without a phrase is told by its label, with the value in brackets.
"""

from collections.abc import Mapping
from typing import Final

from gmmas_portal.analysis.fact_ids import SMALLEST_ML

Phrase = str | Mapping[str, str]

_LOCATION: Final = "{} (atlas-estimated)"
_COUNTED: Final = f"of {SMALLEST_ML} ml or more"

_IDH: Final = {"mutant": "an IDH mutation", "wildtype": "IDH wildtype"}
_CODELETION: Final = {"codeleted": "a 1p/19q codeletion", "intact": "intact 1p/19q"}
_MGMT: Final = {"methylated": "a methylated MGMT promoter", "unmethylated": "an unmethylated MGMT promoter"}

CLINICIAN: Final[Mapping[str, Phrase]] = {
    "volume.wt": "a whole-tumour volume of {}",
    "volume.tc": "a tumour-core volume of {}",
    "volume.et": "an enhancing-tumour volume of {}",
    "volume.oedema": "{} of oedema and infiltrated tissue",
    "volume.necrosis": "{} of core that does not enhance, necrotic or not",
    "volume.brain": "a brain volume of {}, fluid included",
    "share.wt": "a whole-tumour share of {} of the brain",
    "diameter.wt.longest": "a longest diameter of {} for the whole tumour",
    "diameter.et.longest": "a longest diameter of {} for the enhancing tumour",
    "diameter.et.axial": "a longest axial diameter of {} for the enhancing tumour",
    "diameter.et.axial_perpendicular": "a perpendicular axial diameter of {} for the enhancing tumour",
    "foci.wt": {"1": f"1 whole-tumour focus {_COUNTED}", "*": f"{{}} whole-tumour foci {_COUNTED}"},
    "foci.et": {"1": f"1 enhancing focus {_COUNTED}", "*": f"{{}} enhancing foci {_COUNTED}"},
    "location.side": {"left": "on the left", "right": "on the right", "bilateral": "on both sides", "midline": "in the midline"},
    "share.left": "with {} of the tumour left of the midline",
    "midline.crossing": {"yes": "with tumour on both sides of the midline", "no": "without clearly crossing the midline"},
    "location.lobe_1": f"mainly in the {_LOCATION}",
    "location.lobe_2": f"partly in the {_LOCATION}",
    "location.lobe_3": f"partly in the {_LOCATION}",
    "marker.idh": _IDH,
    "marker.codeletion": _CODELETION,
    "marker.grade": {"high": "a high grade (WHO 3 or 4)", "low": "a low grade (WHO 2)"},
    "marker.mgmt": _MGMT,
    "subtype.told": "{}",
    "tissue.idh": _IDH,
    "tissue.codeletion": _CODELETION,
    "tissue.grade": "WHO grade {}",
    "tissue.mgmt": _MGMT,
    "tissue.necrosis": {
        "yes": "necrosis or microvascular proliferation",
        "no": "neither necrosis nor microvascular proliferation",
    },
    "tissue.molecular": {
        "yes": "a TERT promoter mutation or EGFR amplification or +7/-10",
        "no": "neither TERT promoter mutation nor EGFR amplification nor +7/-10",
    },
    "tissue.cdkn2a": {"yes": "a homozygous CDKN2A/B deletion", "no": "no homozygous CDKN2A/B deletion"},
    "tissue.h3": {"yes": "an H3 alteration", "no": "no H3 alteration"},
    "tissue.diagnosis": "{}",
    "reading.t2_flair_mismatch": {
        "yes": "a T2-FLAIR mismatch sign, read by a radiologist",
        "no": "no T2-FLAIR mismatch sign, read by a radiologist",
    },
    "quality.passed": {"yes": "images that pass the quality checks", "no": "images that do not pass the quality checks"},
    "ood.score": "an unlikeness to known gliomas of {} on a scale from 0 to 1",
    "reason": "{}",
    "sequences.used": "{}",
    "sequences.missing": "{}",
    "accuracy.dice.wt": "a Dice overlap of the whole tumour of {}",
    "accuracy.dice.tc": "a Dice overlap of the tumour core of {}",
    "accuracy.dice.et": "a Dice overlap of the enhancing tumour of {}",
    "accuracy.auc.idh": "an area under the curve of IDH status of {}",
    "accuracy.auc.codeletion": "an area under the curve of 1p/19q status of {}",
    "accuracy.auc.grade": "an area under the curve of grade of {}",
    "accuracy.auc.mgmt": "an area under the curve of MGMT promoter status of {}",
    "model.name": "the model {}",
    "model.version": "version {}",
    "model.weights": "weights whose digest begins with {}",
    "model.signed": {"yes": "signed by the coordinator", "no": "without a verified signature of the coordinator"},
    "model.calibrated": {"yes": "calibrated", "no": "not calibrated"},
    "model.hospitals": {"1": "training at 1 hospital", "*": "training at {} hospitals"},
    "outline.version": "version {} of the outline",
    "outline.corrected": {"yes": "corrected by a person", "no": "not corrected by a person"},
}

PATIENT: Final[Mapping[str, Phrase]] = {
    "volume.wt": "{} for the whole area that looks changed",
    "volume.et": "{} for the part that takes up contrast agent",
    "volume.oedema": "{} of swelling and other changed tissue",
    "volume.necrosis": "{} for the part of the core that takes up no contrast agent",
    "share.wt": "{} of the brain",
    "diameter.wt.longest": "{} at its longest",
    "foci.wt": "{} separate places",
    "location.side": {
        "left": "on the left side of the head",
        "right": "on the right side of the head",
        "bilateral": "on both sides of the head",
        "midline": "in the middle of the head",
    },
    "midline.crossing": {
        "yes": "with parts on both sides of the middle of the brain",
        "no": "without clearly reaching over the middle of the brain",
    },
    "location.lobe_1": "with its largest part in the {} (estimated)",
    "tissue.diagnosis": "{}",
    "tissue.grade": "grade {}",
    "tissue.idh": {"mutant": "a changed IDH gene", "wildtype": "an IDH gene that is not changed"},
    "tissue.codeletion": {"codeleted": "a 1p/19q codeletion", "intact": "no 1p/19q codeletion"},
    "tissue.mgmt": {"methylated": "MGMT promoter methylation", "unmethylated": "no MGMT promoter methylation"},
    "sequences.used": "{}",
    "sequences.missing": "{}",
    "model.name": "the computer program {}",
    "outline.version": "version {} of the outline",
}


def phrase_for(phrases: Mapping[str, Phrase], name: str, value: str) -> str | None:
    """Return the phrase of a fact, or of its kind (`reason`), with its value; None where there is none for it."""
    phrase = phrases.get(name) or phrases.get(name.partition(".")[0])
    pattern = phrase.get(value, phrase.get("*")) if isinstance(phrase, Mapping) else phrase
    return None if pattern is None else pattern.replace("{}", value)
