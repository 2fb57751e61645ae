"""Templates of the patient's version: short sentences, no forecast, no predicted marker, and what only the care team can say left to it.

What a network predicts about genes is not told here: it may be wrong, and tissue decides. Survival is told only where that was asked for.
"""

from typing import Final

from gmmas_portal.evidence.diagnosis import NAMED
from gmmas_portal.evidence.library import Topic
from gmmas_portal.evidence.rules import PREDICTIONS
from gmmas_portal.reports.material import Material, Pen, list_of
from gmmas_portal.reports.report import Audience, Section, Sentence
from gmmas_schema.case_record import FactStatus

FURTHER_TISSUE: Final = ("tissue.grade", "tissue.idh", "tissue.codeletion", "tissue.mgmt")
MAIN_QUESTIONS: Final = ("volume.wt", "volume.et", "diameter.wt.longest", "location.side", "location.lobe_1")


def write_for_patient(material: Material) -> list[Sentence]:
    """Return the sentences of the patient's version."""
    pen = Pen(material, Audience.PATIENT)
    _measures(pen)
    _kind(pen)
    _open(pen)
    _evidence(pen)
    _images(pen)
    return pen.sentences


def _measures(pen: Pen) -> None:
    if pen.material.outlines_nothing():
        area = "area large enough to count" if pen.material.outlines_too_little() else "area"
        none = f"no {area} was outlined" if _is_corrected(pen) else f"a computer program outlined no {area}"
        opening = f"On your pictures, {none}, and this does not mean that nothing is there:"
        pen.write_list(Section.SIZE, "measures.none", opening, ["volume.wt"])
        template = "What your pictures show, only your care team can tell."
        pen.write(Section.SIZE, "measures.team", template, facts=pen.material.found(["volume.wt", "foci.wt"]))
    else:
        _outlined(pen)
    if _is_corrected(pen):
        pen.write(Section.SIZE, "outline.origin", "A member of your care team has corrected the outline: {{outline.version}}.")


def _is_corrected(pen: Pen) -> bool:
    return pen.material.value("outline.corrected") is True


def _outlined(pen: Pen) -> None:
    outlined = "an area was outlined, and a computer program" if _is_corrected(pen) else "a computer program outlined an area and"
    pen.write_list(Section.SIZE, "measures.volumes", f"On your pictures, {outlined} measured", ["volume.wt"])
    whole = pen.material.found(["volume.wt"])  # without the sentence before, `it` is nothing
    it = "it" if whole else "a computer program"
    pen.write_list(Section.SIZE, "measures.enhancing", f"{'Of this, ' if whole else ''}{it} measured", ["volume.et"])
    if pen.material.value("volume.tc") != 0:  # without a core, nothing lies around or within it
        pen.write_list(Section.SIZE, "measures.oedema", f"Around the core {it} measured", ["volume.oedema"])
        pen.write_list(Section.SIZE, "measures.necrosis", f"Within the core {it} measured", ["volume.necrosis"])
    pen.write_list(Section.SIZE, "measures.diameters", f"{it} also measured how far the area reaches:", ["diameter.wt.longest"])
    if pen.material.has_several("foci.wt"):
        length = ", and the length is that of the largest" if pen.material.found(["diameter.wt.longest"]) else ""
        pen.write(Section.SIZE, "measures.foci", f"The area is made of {{{{foci.wt}}}}{length}.")
    pen.write_list(Section.SIZE, "measures.share", "The whole area that looks changed makes up", ["share.wt"])
    pen.write_list(Section.PLACE, "location.place", "The area lies", ["location.side", "location.lobe_1", "midline.crossing"])


def _kind(pen: Pen) -> None:
    material = pen.material
    tissue = material.tissue
    if tissue.contradictions:
        facts = dict.fromkeys(name for pair in tissue.contradictions for name in pair)
        template = "The results from your tissue need another look before the kind of tumour can be named."
        pen.write(Section.TISSUE, "tissue.contradiction", template, facts=facts)
    elif tissue.diagnosis is not None:
        result = "the result is" if material.record.fact(NAMED) is not None else "together the results correspond to"
        pen.write(Section.TISSUE, "tissue.diagnosis", f"Your tissue was examined, and {result} {{{{{NAMED}}}}}.", facts=tissue.facts)
        pen.write_list(Section.TISSUE, "tissue.results", "The laboratory also found:", FURTHER_TISSUE)
    elif tissue.facts:
        template = "Your care team can explain what was found in your tissue."
        pen.write(Section.TISSUE, "tissue.results", template, facts=tissue.facts)
    elif (predicted := [name for name in PREDICTIONS if name in material.facts]) and not material.outlines_nothing():
        template = "Pictures alone cannot tell for sure what it is."
        pen.write(Section.PREDICTED, "markers.tissue", template, facts=predicted)
    for entry in material.of_topic(Topic.CLASSIFICATION):
        if material.evidence[entry.evidence].plain:
            section = Section.PREDICTED if tissue.diagnosis is None else Section.TISSUE
            pen.write(section, entry.evidence, f"In general, {{{{{entry.evidence}}}}}.", facts=entry.facts)


def _open(pen: Pen) -> None:
    """Say which of the main questions are open; those about genes belong to the tissue."""
    states = (
        ("open.abstained", "These questions are left open:", FactStatus.ABSTAINED),
        ("open.absent", "This was not measured:", FactStatus.ABSENT),
    )
    for name, several, status in states:
        names = [fact for fact in pen.material.with_status(status) if fact in MAIN_QUESTIONS]
        if names:
            opening = "This question is left open:" if status is FactStatus.ABSTAINED and len(names) == 1 else several
            pen.write(Section.OPEN, name, f"{opening} {list_of(names)}.")
    if reasons := [name for name in pen.material.facts if name.startswith("reason.")]:
        pen.write(Section.OPEN, "open.reasons", "Your care team can explain what is left open and why.", facts=reasons)


def _evidence(pen: Pen) -> None:
    guidelines = [entry for entry in pen.material.of_topic(Topic.GUIDELINE) if pen.material.evidence[entry.evidence].plain]
    for entry in guidelines:
        pen.write(Section.EVIDENCE, entry.evidence, f"In general, {{{{{entry.evidence}}}}}.", facts=entry.facts)
    if guidelines:
        names = [entry.evidence for entry in guidelines]
        pen.write(
            Section.EVIDENCE,
            "evidence.team",
            "Guidelines are general; what fits you is for you and your care team to decide.",
            evidence=names,
        )
    outcomes = pen.material.of_topic(Topic.OUTCOME)
    if outcomes:
        template = "The figures below describe groups of people and cannot say what will happen to you."
        pen.write(Section.EVIDENCE, "evidence.groups", template, evidence=[entry.evidence for entry in outcomes])
    for entry in outcomes:
        pen.write(Section.EVIDENCE, entry.evidence, f"It was reported that {{{{{entry.evidence}}}}}.", facts=entry.facts)


def _images(pen: Pen) -> None:
    pen.write_list(Section.IMAGES, "sequences.used", "For this report the program used:", ["sequences.used"])
    pen.write_list(Section.IMAGES, "sequences.missing", "Some kinds of pictures were missing:", ["sequences.missing"])
    accuracy = [name for name in pen.material.facts if name.startswith("accuracy.")]
    tested = accuracy != ["accuracy.measured"]
    template = f"The program {'was tested' if tested else 'has not been tested'} with exactly these kinds of pictures."
    pen.write(Section.IMAGES, "sequences.accuracy", template, facts=accuracy)
    template = "This report was made with research software, {{model.name}}, and does not replace your doctor."
    pen.write(Section.ORIGIN, "model.origin", template, facts=["model.weights"])
