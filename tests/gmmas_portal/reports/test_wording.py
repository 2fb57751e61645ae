"""Phrases of facts: the value is in them, opposite values read differently, none is told of what is open, each is of a fact that exists."""

from collections.abc import Mapping
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_portal.analysis import fact_ids
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
    constants = [value for name, value in vars(fact_ids).items() if name.isupper()]
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
