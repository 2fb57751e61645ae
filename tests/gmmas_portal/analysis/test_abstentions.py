"""Every rule of abstention, seen in what it does to a whole set of facts."""

import itertools

import numpy as np
import pytest

from gmmas_portal.analysis import fact_ids as ids
from gmmas_portal.analysis.abstentions import NEEDS_CONTRAST, Doubt, apply_doubts, discord_of, doubts_of
from gmmas_portal.analysis.context import CaseContext, TissueResults
from gmmas_portal.analysis.measurements import measure
from gmmas_portal.analysis.molecular import entered_facts, predicted_facts, told_classes
from gmmas_schema.calibration import Calibration
from gmmas_schema.case_record import AbstainCode, Abstention, Fact, FactStatus
from gmmas_schema.findings import Findings
from gmmas_schema.vocabulary import Modality, Region, Subtype, Task
from tests.gmmas_portal.analysis.bodies import SHAPE, frame_of, tumour
from tests.gmmas_portal.analysis.predictions import ALL_FITTED, calibration, findings

MARKERS = {"marker.idh", "marker.idh.p", "marker.codeletion", "marker.codeletion.p"}
SUBTYPES = {ids.SUBTYPE, *ids.SUBTYPE_PROBABILITIES.values()}


def _judged(
    found: Findings | None = None,
    *,
    fitted: Calibration | None = ALL_FITTED,
    context: CaseContext | None = None,
    quality: tuple[str, ...] = (),
    novelty: str = "",
    outlined: bool = True,
) -> tuple[dict[str, Fact], tuple[Abstention, ...]]:
    found, context = found or findings(), context or CaseContext()
    labels = tumour((-40, 20, 20)) if outlined else np.zeros(SHAPE, dtype=np.uint8)
    facts = (
        *measure(labels, frame_of()),
        Fact(id=ids.VOLUME_BRAIN, label="volume of the brain", value=1400.0, unit="ml", source="file"),
        *predicted_facts(found, fitted),
        Fact(id=ids.OOD_SCORE, label="score", value=0.2, unit="1", source="network"),
        *entered_facts(context),
    )
    doubts = doubts_of(found, facts, calibration=fitted, context=context, quality=quality, novelty=novelty, outlined=outlined)
    judged, abstentions = apply_doubts(facts, doubts)
    return {fact.id: fact for fact in judged}, abstentions


def _open(facts: dict[str, Fact]) -> set[str]:
    return {name for name, fact in facts.items() if fact.status is FactStatus.ABSTAINED}


def _everything(facts: dict[str, Fact]) -> set[str]:
    return {name for name, fact in facts.items() if fact.source in ("network", "segmentation") and name != ids.OOD_SCORE}


def test_a_plain_case_leaves_nothing_open() -> None:
    facts, abstentions = _judged()
    assert _open(facts) == set()
    assert abstentions == ()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"context": CaseContext(age_years=17)}, AbstainCode.MINOR),
        ({"context": CaseContext(post_operative=True)}, AbstainCode.POST_OPERATIVE),
        ({"novelty": "unlike a glioma"}, AbstainCode.OUT_OF_DISTRIBUTION),
        ({"found": findings(modalities=(Modality.T1, Modality.T2))}, AbstainCode.SEQUENCES),
    ],
)
def test_what_puts_the_model_in_doubt_leaves_all_of_its_facts_open(options: dict[str, object], code: AbstainCode) -> None:
    facts, abstentions = _judged(**options)
    assert _open(facts) == _everything(facts)
    assert all(code in facts[name].codes for name in _open(facts))
    assert next(a for a in abstentions if a.code is code).reason in facts["marker.idh"].reason
    assert facts[ids.OOD_SCORE].status is FactStatus.FOUND


def test_images_in_doubt_put_the_brains_volume_in_doubt_too() -> None:
    facts, _ = _judged(quality=("the skull was not taken off the images",))
    assert _open(facts) == _everything(facts) | {ids.VOLUME_BRAIN}


@pytest.mark.parametrize("context", [CaseContext(age_years=18), CaseContext(post_operative=False), CaseContext()])
def test_adults_before_surgery_and_unknown_patients_are_told(context: CaseContext) -> None:
    assert _open(_judged(context=context)[0]) == set()


def test_without_t1ce_enhancement_and_core_are_open_and_the_rest_is_told() -> None:
    facts, abstentions = _judged(findings(modalities=(Modality.T2, Modality.FLAIR)))
    assert _open(facts) == set(NEEDS_CONTRAST) & facts.keys()
    assert {ids.VOLUME_ET, ids.VOLUME_TC, ids.DIAMETER_ET} <= _open(facts)
    assert ids.VOLUME_WT not in _open(facts)
    assert [a.code for a in abstentions] == [AbstainCode.NEEDS_SEQUENCE]


@pytest.mark.parametrize("modalities", [pair for n in (1, 2, 3, 4) for pair in itertools.combinations(Modality, n)])
def test_neither_t1ce_nor_flair_is_exactly_that(modalities: tuple[Modality, ...]) -> None:
    _, abstentions = _judged(findings(modalities=modalities))
    codes = {a.code for a in abstentions}
    assert (AbstainCode.SEQUENCES in codes) is not bool({Modality.T1CE, Modality.FLAIR} & set(modalities))
    assert (AbstainCode.NEEDS_SEQUENCE in codes) is (Modality.T1CE not in modalities)


def test_an_unsure_marker_is_open_and_the_subtype_with_it() -> None:
    facts, abstentions = _judged(findings(abstained={Task.IDH: "confidence 0.60 is below 0.80"}))
    assert _open(facts) == {"marker.idh", "marker.idh.p"} | SUBTYPES
    assert [a.code for a in abstentions] == [AbstainCode.LOW_CONFIDENCE]
    assert "0.60" in facts["marker.idh"].reason


@pytest.mark.parametrize(("idh", "subtype_open"), [(0.9, True), (0.1, False)])
def test_1p19q_decides_about_the_subtype_of_mutant_tumours_only(idh: float, subtype_open: bool) -> None:
    facts, _ = _judged(findings(idh=idh, codeletion=0.05, abstained={Task.CODELETION: "confidence is too low"}))
    assert _open(facts) == {"marker.codeletion", "marker.codeletion.p"} | (SUBTYPES if subtype_open else set())


def test_markers_that_were_never_calibrated_are_open() -> None:
    facts, abstentions = _judged(fitted=None)
    assert _open(facts) == MARKERS | SUBTYPES
    assert [a.code for a in abstentions] == [AbstainCode.NOT_CALIBRATED]
    facts, _ = _judged(findings(mgmt=0.8), fitted=calibration(Task.IDH, Task.CODELETION))
    assert _open(facts) == {"marker.mgmt", "marker.mgmt.p"}
    assert "too few patients" in facts["marker.mgmt"].reason


def test_without_a_tumour_nothing_is_predicted() -> None:
    facts, abstentions = _judged(outlined=False)
    assert _open(facts) == MARKERS | SUBTYPES
    assert facts[ids.DIAMETER_WT].status is FactStatus.ABSENT
    named = {name for a in abstentions for name in a.facts}
    assert ids.DIAMETER_WT in named
    assert all(a.code is AbstainCode.NO_TUMOUR for a in abstentions)


@pytest.mark.parametrize(
    "tissue",
    [
        TissueResults(idh=False, codeletion=True),
        TissueResults(diagnosis=Subtype.OLIGODENDROGLIOMA, codeletion=False),
        TissueResults(diagnosis=Subtype.OLIGODENDROGLIOMA, idh=False),
        TissueResults(diagnosis=Subtype.GLIOBLASTOMA, idh=True),
        TissueResults(diagnosis=Subtype.GLIOBLASTOMA, codeletion=True),
        TissueResults(diagnosis=Subtype.GLIOBLASTOMA, grade=3),
        TissueResults(diagnosis=Subtype.ASTROCYTOMA, idh=False),
        TissueResults(diagnosis=Subtype.ASTROCYTOMA, codeletion=True),
        TissueResults(diagnosis=Subtype.OLIGODENDROGLIOMA, grade=4),
        TissueResults(diagnosis=Subtype.GLIOBLASTOMA, h3=True),
        TissueResults(idh=True, codeletion=False, grade=2, cdkn2a=True),
    ],
)
def test_results_that_contradict_each_other_leave_the_markers_open(tissue: TissueResults) -> None:
    assert discord_of(tissue)
    facts, abstentions = _judged(context=CaseContext(tissue=tissue))
    assert _open(facts) >= MARKERS | SUBTYPES
    assert AbstainCode.DISCORDANT in {a.code for a in abstentions}


@pytest.mark.parametrize(
    "tissue",
    [
        TissueResults(),
        TissueResults(diagnosis=Subtype.GLIOBLASTOMA, idh=False, codeletion=False, grade=4),
        TissueResults(diagnosis=Subtype.ASTROCYTOMA, idh=True, codeletion=False, grade=4),
        TissueResults(diagnosis=Subtype.OLIGODENDROGLIOMA, idh=True, codeletion=True, grade=2),
    ],
)
def test_results_that_go_together_are_no_discord(tissue: TissueResults) -> None:
    assert discord_of(tissue) == ()


def test_tissue_that_says_otherwise_leaves_the_marker_and_the_subtype_open() -> None:
    facts, abstentions = _judged(findings(mgmt=0.8), context=CaseContext(tissue=TissueResults(idh=True)))
    assert _open(facts) == {"marker.idh", "marker.idh.p"} | SUBTYPES
    assert "tissue says mutant, imaging suggests wildtype" in abstentions[0].reason
    facts, _ = _judged(findings(mgmt=0.8), context=CaseContext(tissue=TissueResults(mgmt=False)))
    assert _open(facts) == {"marker.mgmt", "marker.mgmt.p"}
    assert _open(_judged(context=CaseContext(tissue=TissueResults(idh=False)))[0]) == set()


def test_a_fact_in_two_doubts_has_both_codes_and_reasons() -> None:
    facts = [Fact(id="volume.wt", label="volume", value=3.0, unit="ml", source="segmentation")]
    doubts = [Doubt(code, f"because of {code}", lambda _: True) for code in (AbstainCode.MINOR, AbstainCode.QUALITY, AbstainCode.MINOR)]
    judged, abstentions = apply_doubts(facts, doubts)
    assert judged[0].codes == (AbstainCode.MINOR, AbstainCode.QUALITY)
    assert judged[0].reason == "because of under-18; because of quality-gate"
    assert judged[0].value == 3.0
    assert [a.facts for a in abstentions] == [("volume.wt",)] * 3


def test_a_t1ce_that_the_model_does_not_read_is_as_good_as_none() -> None:
    read = (Modality.T1, Modality.T2, Modality.FLAIR)
    facts, abstentions = _judged(findings(modalities=read).model_copy(update={"modalities_unread": (Modality.T1CE,)}))
    assert _open(facts) == set(NEEDS_CONTRAST) & facts.keys()
    (abstention,) = abstentions
    assert abstention.code is AbstainCode.NEEDS_SEQUENCE
    assert abstention.reason.endswith("show on T1ce only, which the model was never trained on")
    _, abstentions = _judged(findings(modalities=(Modality.T2,)).model_copy(update={"modalities_unread": (Modality.FLAIR,)}))
    assert "was not trained on what is there of T1ce and FLAIR" in abstentions[0].reason


def test_regions_that_nobody_taught_are_open() -> None:
    facts, abstentions = _judged(findings().model_copy(update={"untrained": (Region.ET,)}))
    assert {ids.VOLUME_ET, ids.VOLUME_NECROSIS, ids.DIAMETER_ET, ids.FOCI_ET} <= _open(facts)
    assert not {ids.VOLUME_WT, ids.VOLUME_TC, ids.VOLUME_OEDEMA, "marker.idh"} & _open(facts)
    assert [a.code for a in abstentions] == [AbstainCode.NOT_TRAINED]
    assert {ids.VOLUME_TC, ids.VOLUME_OEDEMA} <= _open(_judged(findings().model_copy(update={"untrained": (Region.TC, Region.ET)}))[0])
    facts, _ = _judged(findings().model_copy(update={"untrained": (Region.WT, Region.TC, Region.ET)}))
    assert _open(facts) == _everything(facts)


def test_markers_that_nobody_taught_are_not_there_and_told_so() -> None:
    untaught = findings(mgmt=0.8).model_copy(
        update={"untrained": (Task.IDH, Task.CODELETION), "probability": {Task.MGMT: 0.8}, "subtype": {}}
    )
    facts, abstentions = _judged(untaught, context=CaseContext(tissue=TissueResults(idh=True)))
    for name in ("marker.idh", "marker.codeletion", ids.SUBTYPE):
        assert (facts[name].status, facts[name].codes) == (FactStatus.ABSENT, (AbstainCode.NOT_TRAINED,))
    assert not {"marker.idh.p", *ids.SUBTYPE_PROBABILITIES.values()} & facts.keys()
    assert facts["marker.mgmt"].value == "methylated"
    assert {a.code for a in abstentions} == {AbstainCode.NOT_TRAINED}
    assert told_classes(facts) == {Task.MGMT: True}
