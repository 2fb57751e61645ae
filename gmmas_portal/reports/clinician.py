"""Templates of the clinician's version: what was measured, what is predicted, what is open, what is published."""

from typing import Final

from gmmas_portal.evidence.diagnosis import H3, NAMED
from gmmas_portal.evidence.library import Topic
from gmmas_portal.reports.material import Material, Pen, contradicting_predictions, is_untold, list_of
from gmmas_portal.reports.report import Audience, Section, Sentence
from gmmas_schema.case_record import FactStatus

VOLUMES: Final = ("volume.wt", "volume.tc", "volume.et")
PARTS: Final = ("volume.oedema", "volume.necrosis")
SHARES: Final = ("share.wt", "volume.brain")
DIAMETERS: Final = ("diameter.wt.longest", "diameter.et.longest", "diameter.et.axial", "diameter.et.axial_perpendicular")
FOCI: Final = ("foci.wt", "foci.et")
PLACE: Final = ("location.side", "location.lobe_1", "location.lobe_2", "location.lobe_3", "share.left", "midline.crossing")
MARKERS: Final = ("marker.idh", "marker.codeletion", "marker.grade", "marker.mgmt")
TISSUE: Final = (
    "tissue.idh",
    "tissue.codeletion",
    "tissue.grade",
    "tissue.necrosis",
    "tissue.molecular",
    "tissue.cdkn2a",
    "tissue.h3",
    "tissue.mgmt",
    "reading.t2_flair_mismatch",
)
COMPARED: Final = (("marker.idh", "tissue.idh"), ("marker.codeletion", "tissue.codeletion"), ("marker.mgmt", "tissue.mgmt"))


def write_for_clinician(material: Material) -> list[Sentence]:
    """Return the sentences of the clinician's version."""
    pen = Pen(material, Audience.CLINICIAN)
    _measures(pen)
    _predictions(pen)
    _tissue(pen)
    _open(pen)
    _evidence(pen)
    _images(pen)
    pen.write_list(
        Section.ORIGIN, "model.origin", "The findings come from", ("model.name", "model.version", "model.signed", "model.calibrated")
    )
    pen.write_list(Section.ORIGIN, "model.training", "Known about the model:", ("model.hospitals", "model.weights"))
    pen.write(Section.ORIGIN, "outline.origin", "Measured was {{outline.version}}, {{outline.corrected}}.")
    return pen.sentences


def _measures(pen: Pen) -> None:
    if pen.material.outlines_nothing():
        none = "No tumour large enough to count" if pen.material.outlines_too_little() else "No tumour"
        opening = f"{none} is outlined, and this does not exclude a tumour:"
        pen.write_list(Section.SIZE, "measures.none", opening, (*VOLUMES, *PARTS, *FOCI))
    else:
        pen.write_list(Section.SIZE, "measures.volumes", "The following was measured on the outlined tumour:", VOLUMES)
        pen.write_list(Section.SIZE, "measures.parts", "Its parts were measured as well:", PARTS)
    if pen.material.found(SHARES[:1]):
        pen.write_list(Section.SIZE, "measures.share", "In relation to the brain, the record gives", SHARES)
    pen.write_list(Section.SIZE, "measures.diameters", "Its extent was measured as", DIAMETERS)
    if not pen.material.outlines_nothing():
        pen.write_list(Section.SIZE, "measures.foci", "Separate parts were counted:", FOCI)
    several, diameters = [name for name in FOCI if pen.material.has_several(name)], pen.material.found(DIAMETERS)
    if several and diameters:
        pen.write(Section.SIZE, "measures.largest", "Each diameter is that of the largest part.", facts=(*several, *diameters))
    outlined = "What is outlined" if pen.material.outlines_too_little() else "The outlined tumour"
    pen.write_list(Section.PLACE, "location.place", f"{outlined} lies", PLACE)


def _predictions(pen: Pen) -> None:
    material = pen.material
    reminder = [entry.evidence for entry in material.of_topic(Topic.CLASSIFICATION) if entry.evidence == "evidence.who_cns5_tissue"]
    for name in MARKERS:
        pen.write_list(
            Section.PREDICTED, name.replace("marker", "markers"), "From imaging alone, the network predicts", [name], evidence=reminder
        )
    contradictions = list(contradicting_predictions(material))
    for number, pair in enumerate(contradictions):
        template = f"No pattern is named, for the predictions do not fit together: {list_of(pair)}."
        pen.write(Section.PREDICTED, f"markers.contradiction_{number}", template)
    differing = _differing(material)
    if material.found(["subtype.told"]) and not contradictions and "subtype.told" not in dict(differing):
        template = "The imaging pattern is consistent with {{subtype.told}}; tissue is required."
        pen.write(Section.PREDICTED, "markers.pattern", template, evidence=reminder)
    for predicted, measured in differing:
        template = f"The network predicts {{{{{predicted}}}}}, tissue shows {{{{{measured}}}}}, and tissue decides."
        pen.write(Section.PREDICTED, f"{predicted.replace('marker', 'markers')}_differs", template)


def _differing(material: Material) -> list[tuple[str, str]]:
    """Return predictions with what was found on tissue instead; an alteration of H3 fits none of the subtypes that are predicted."""
    pairs = [(name, on) for name, on in COMPARED if None not in (a := (material.value(name), material.value(on))) and a[0] != a[1]]
    told, diagnosis = material.value("subtype.told"), material.tissue.diagnosis
    if told is not None and diagnosis not in (None, told):
        pairs.append(("subtype.told", NAMED))
    elif told is not None and material.value(H3) is True:
        pairs.append(("subtype.told", H3))
    return pairs


def _tissue(pen: Pen) -> None:
    tissue = pen.material.tissue
    pen.write_list(Section.TISSUE, "tissue.results", "Tissue results were entered:", [n for n in TISSUE if not n.startswith("reading.")])
    pen.write_list(
        Section.TISSUE, "tissue.reading", "A reading of the images was entered:", [n for n in TISSUE if n.startswith("reading.")]
    )
    for number, pair in enumerate(tissue.contradictions):
        results = "the entered diagnosis and a result" if NAMED in pair else "the results"
        template = f"No tumour type is named, for {results} do not fit together: {list_of(pair)}."
        pen.write(Section.TISSUE, f"tissue.contradiction_{number}", template)
    if tissue.diagnosis is not None:
        classified = [entry.evidence for entry in pen.material.of_topic(Topic.CLASSIFICATION)]
        derived = pen.material.record.fact(NAMED) is None
        template = f"{'Taken together they correspond to' if derived else 'The following diagnosis was entered:'} {{{{{NAMED}}}}}."
        pen.write(Section.TISSUE, "tissue.diagnosis", template, facts=tissue.facts, evidence=classified)


def _open(pen: Pen) -> None:
    material = pen.material
    for reason, names in material.by_reason(FactStatus.ABSTAINED):
        opening = "This question is left open:" if len(names) == 1 else "These questions are left open:"
        pen.write(Section.OPEN, f"open.{names[0]}", f"{opening} {list_of(names)}; {{{{{reason}}}}}.")
    for reason, names in material.by_reason(FactStatus.ABSENT):
        pen.write(Section.OPEN, f"absent.{names[0]}", f"The following was not measured: {list_of(names)}; {{{{{reason}}}}}.")
    reasons, spoken = {name: str(fact.value) for name, fact in material.facts.items() if name.startswith("reason.")}, pen.told()
    told = [text for name, text in reasons.items() if name in spoken]
    for name, text in reasons.items():
        if not any(text in longer for longer in told):
            pen.write(Section.OPEN, f"open.{name}", f"Caution is due: {{{{{name}}}}}.")
    rest = [name for name in material.with_status(FactStatus.FOUND) if name not in pen.told() and not is_untold(name)]
    pen.write_list(Section.IMAGES, "record.rest", "The record holds as well:", [name for name in rest if name != "tissue.diagnosis"])


def _evidence(pen: Pen) -> None:
    shown = pen.material.of_topic(Topic.IMAGING, Topic.GUIDELINE, Topic.OUTCOME, Topic.CLASSIFICATION)
    if figures := [entry.evidence for entry in pen.material.of_topic(Topic.OUTCOME)]:
        template = "The figures below describe groups of patients and are no forecast for a person."
        pen.write(Section.EVIDENCE, "evidence.groups", template, evidence=figures)
    for entry in shown:
        general = pen.material.evidence[entry.evidence].topic in (Topic.GUIDELINE, Topic.CLASSIFICATION)
        opening = "In general," if general else "It was reported that"
        pen.write(Section.EVIDENCE, entry.evidence, f"{opening} {{{{{entry.evidence}}}}}.", facts=entry.facts)


def _images(pen: Pen) -> None:
    accuracy = [name for name in pen.material.facts if name.startswith("accuracy.")]
    pen.write_list(Section.IMAGES, "sequences.used", "The findings rest on", ["sequences.used"])
    pen.write_list(Section.IMAGES, "sequences.missing", "Not available:", ["sequences.missing"])
    opening = "For patients of whom exactly these sequences were shown, the model reached"
    pen.write_list(Section.IMAGES, "sequences.accuracy", opening, accuracy)
    if accuracy == ["accuracy.measured"]:
        template = "How well the model does with exactly these sequences was not measured."
        pen.write(Section.IMAGES, "sequences.accuracy", template, facts=accuracy)
