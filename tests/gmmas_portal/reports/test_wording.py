"""Phrases of facts: the value is in them, opposite values read differently, none is told of what is open, each is of a fact that exists."""

from collections.abc import Mapping
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_portal.analysis import fact_ids
from gmmas_portal.analysis.fact_ids import SMALLEST_ML
from gmmas_portal.evidence.diagnosis import FURTHER_LABELS
from gmmas_portal.reports import phrases
from gmmas_portal.reports.phrases import Phrase
from gmmas_portal.reports.provenance import describe_origin
from gmmas_portal.reports.report import Audience
from gmmas_portal.reports.wording import outline_of, tell_fact
from gmmas_schema.case_record import AbstainCode, Fact, FactStatus
from gmmas_schema.model_card import Accuracy, Figure, SubsetAccuracy
from gmmas_schema.vocabulary import MODALITIES, Region, Task
from tests.gmmas_portal.reports.strategies import SECRET, facts
from tests.gmmas_portal.sample_case import make_record

OF: Mapping[Audience, Mapping[str, Phrase]] = {Audience.CLINICIAN: phrases.CLINICIAN, Audience.PATIENT: phrases.PATIENT}
audiences = st.sampled_from(list(Audience))


def tell(name: str, value: float | str, audience: Audience = Audience.CLINICIAN, **more: object) -> str:
    return tell_fact(Fact.model_validate({"id": name, "label": "label", "value": value, "source": "network"} | more), audience=audience)


@given(facts(), audiences)
def test_numbers_and_names_stand_in_the_phrase_of_their_fact(chosen: tuple[Fact, ...], audience: Audience) -> None:
    for fact in chosen:
        told = tell_fact(fact, audience=audience)
        assert "{}" not in told
        assert SECRET not in told
        if fact.status is FactStatus.FOUND and not isinstance(OF[audience].get(fact.id), Mapping):
            assert fact.value_text().removesuffix(fact.unit).strip() in told


@given(facts(), audiences)
def test_language_model_is_told_no_value(chosen: tuple[Fact, ...], audience: Audience) -> None:
    for fact in chosen:
        other = fact.model_copy(update={"value": "otherwise", "unit": ""}) if fact.value is not None else fact
        assert outline_of(fact, audience=audience) == outline_of(other, audience=audience)


@pytest.mark.parametrize("audience", Audience)
def test_phrases_by_value_differ_between_values(audience: Audience) -> None:
    for name, phrase in OF[audience].items():
        if isinstance(phrase, Mapping):
            assert len(set(phrase.values())) == len(phrase), name


@pytest.mark.parametrize("audience", Audience)
def test_phrases_are_of_facts_that_exist(audience: Audience) -> None:
    figure = Figure(value=0.9)
    accuracy = Accuracy(dice=dict.fromkeys(Region, figure), auc={task: figure for task in Task if task is not Task.SEGMENTATION})
    record = make_record(accuracy=SubsetAccuracy(modalities=MODALITIES, sites=3, accuracy=accuracy))
    constants = [value for name, value in vars(fact_ids).items() if name.isupper() and not isinstance(value, float)]
    known = set(chain.from_iterable(_ids(value) for value in constants)) | set(FURTHER_LABELS)
    known |= {fact.id for fact in describe_origin(record)} | {"reason"}
    assert set(OF[audience]) <= known


def _ids(value: object) -> list[str]:
    if isinstance(value, Mapping):
        return [str(each) for each in value.values()]
    return [value] if isinstance(value, str) else [str(each) for each in value]  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [FactStatus.ABSTAINED, FactStatus.ABSENT])
def test_fact_that_is_not_found_is_told_by_its_name_alone(status: FactStatus) -> None:
    value = "mutant" if status is FactStatus.ABSTAINED else None
    fact = Fact(id="marker.idh", label="IDH status", value=value, status=status, codes=(AbstainCode.QUALITY,), source="network")
    assert tell_fact(fact, audience=Audience.CLINICIAN) == "IDH status"


def test_value_without_a_phrase_is_told_by_label_and_value() -> None:
    fact = Fact(id="marker.idh", label="IDH status (by imaging)", value="unheard of", source="network", confidence=0.9)
    assert tell_fact(fact, audience=Audience.CLINICIAN) == "IDH status (unheard of; by imaging) (calibrated probability 90 %)"


@pytest.mark.parametrize("audience", Audience)
def test_phrase_refers_to_no_other_part_of_its_sentence(audience: Audience) -> None:
    """The verifier lets a rewrite put placeholders of a list in another order: `at right angles to it` would be of another diameter."""
    told = [text for phrase in OF[audience].values() for text in (phrase.values() if isinstance(phrase, Mapping) else [phrase])]
    assert not [text for text in told if "it" in text.split()]


@pytest.mark.parametrize("value", [True, False], ids=["yes", "no"])
def test_results_told_as_one_stay_one_in_a_list(value: bool) -> None:
    """`no TERT promoter mutation, EGFR amplification or +7/-10` among others read as an EGFR amplification that was found."""
    assert "," not in tell("tissue.molecular", value)
    assert ("nor EGFR" in tell("tissue.molecular", value)) is not value


@pytest.mark.parametrize(("value", "told"), [(0, "0 enhancing foci"), (1, "1 enhancing focus"), (3, "3 enhancing foci")])
def test_count_says_from_which_size_on_it_counts(value: int, told: str) -> None:
    """Else `0 enhancing foci` stood beside the volume and diameters of an enhancing part that is smaller."""
    assert tell("foci.et", value) == f"{told} of {SMALLEST_ML} ml or more"


def test_two_foci_on_either_side_do_not_cross_the_midline() -> None:
    """The fact says that tumour lies clearly beyond the midline on both sides: less may lie there, and it need not be one focus."""
    assert tell("midline.crossing", True) == "with tumour on both sides of the midline"
    assert tell("midline.crossing", False) == "without clearly crossing the midline"
    assert "reaching" not in tell("midline.crossing", True, Audience.PATIENT)


def test_core_that_does_not_enhance_is_not_said_to_be_necrosis_or_not() -> None:
    assert tell("volume.necrosis", 3.77, unit="ml") == "3.8 ml of core that does not enhance, necrotic or not"


def test_main_location_is_not_said_to_hold_most_of_the_area() -> None:
    assert "mostly" not in tell("location.lobe_1", "left insula", Audience.PATIENT)


def test_patient_reads_no_amount_of_swelling_that_nobody_measured() -> None:
    assert tell("volume.oedema", 19.38, Audience.PATIENT, unit="ml") == "19.4 millilitres of swelling and other changed tissue"


@pytest.mark.parametrize(("confidence", "told"), [(0.994, "99"), (0.996, "above 99"), (1.0, "above 99")])
def test_no_prediction_is_told_as_certain(confidence: float, told: str) -> None:
    assert tell("marker.idh", "mutant", confidence=confidence) == f"an IDH mutation (calibrated probability {told} %)"
