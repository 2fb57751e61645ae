"""Evidence is chosen by results on tissue alone, trials never without everyday care, nothing expired, nothing of adults for a minor."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_portal.evidence.diagnosis import judge_tissue
from gmmas_portal.evidence.library import Evidence, EvidenceLibrary, Topic, read_library
from gmmas_portal.evidence.rules import BY_MGMT, EVERYDAY_CARE, TRIALS, choose_evidence
from gmmas_schema.case_record import Fact
from tests.gmmas_portal.evidence.test_diagnosis import entered
from tests.gmmas_portal.sample_case import ON, PREDICTIONS


def choose(
    told: dict[str, Any], *, library: EvidenceLibrary | None = None, predicted: tuple[Fact, ...] = (), is_minor: bool = False
) -> list[str]:
    facts = {name: Fact(id=name, label=name, value=value, source="clinician") for name, value in told.items()}
    facts |= {fact.id: fact for fact in predicted}
    chosen = choose_evidence(facts, judge_tissue(facts), library=library or read_library(), on=ON, is_minor=is_minor)
    for entry in chosen:
        assert set(entry.facts) <= set(facts)
        assert entry.facts, "an entry is chosen because of something"
    return [entry.evidence for entry in chosen]


@pytest.mark.parametrize(
    ("told", "expected", "never"),
    [
        (
            {"tissue.diagnosis": "oligodendroglioma", "tissue.idh": "mutant", "tissue.codeletion": "codeleted", "tissue.grade": 3},
            {"lassman_2022", "cairncross_2013", "mohile_2022_oligodendroglioma", "who_cns5_oligodendroglioma"},
            {"mellinghoff_2023", "stupp_2005"},
        ),
        (
            {"tissue.idh": "mutant", "tissue.codeletion": "codeleted", "tissue.grade": 2},
            {"mohile_2022_oligodendroglioma", "mellinghoff_2023"},
            {"lassman_2022", "cairncross_2013"},
        ),
        (
            {"tissue.idh": "mutant", "tissue.codeletion": "intact", "tissue.grade": 2},
            {"mohile_2022_astrocytoma_2", "reuss_2015_grade_2", "mellinghoff_2023", "who_cns5_astrocytoma"},
            {"catnon_2026", "who_cns5_astrocytoma_4"},
        ),
        (
            {"tissue.idh": "mutant", "tissue.codeletion": "intact", "tissue.grade": 3},
            {"mohile_2022_astrocytoma_3", "catnon_2026", "reuss_2015_grade_3"},
            {"mellinghoff_2023"},
        ),
        (
            {"tissue.idh": "mutant", "tissue.codeletion": "intact", "tissue.cdkn2a": True},
            {"who_cns5_astrocytoma_4", "wetzel_2024_deleted", "mohile_2022_astrocytoma_4"},
            {"wetzel_2024_intact", "stupp_2005"},
        ),
        (
            {"tissue.idh": "mutant", "tissue.codeletion": "intact", "tissue.grade": 4, "tissue.cdkn2a": False},
            {"wetzel_2024_intact"},
            {"wetzel_2024_deleted", "who_cns5_astrocytoma_4"},
        ),
        (
            {"tissue.diagnosis": "glioblastoma", "tissue.mgmt": "unmethylated"},
            {"who_cns5_glioblastoma", "stupp_2005", "stupp_2009", "brown_2022", "mendoza_mireles_2023", "alnahhas_2020_unmethylated"},
            {"alnahhas_2020_methylated", "mellinghoff_2023"},
        ),
        ({"reading.t2_flair_mismatch": True}, {"park_2021"}, {"stupp_2005"}),
        ({"reading.t2_flair_mismatch": False}, set(), {"park_2021"}),
        ({"tissue.idh": "wildtype", "tissue.codeletion": "codeleted"}, set(), {"stupp_2005", "who_cns5_glioblastoma"}),
    ],
)
def test_rules_choose(told: dict[str, Any], expected: set[str], never: set[str]) -> None:
    chosen = {name.removeprefix("evidence.") for name in choose(told)}
    assert expected <= chosen
    assert not never & chosen


def test_prediction_from_images_calls_only_the_reminder_of_tissue() -> None:
    assert choose({}, predicted=PREDICTIONS) == ["evidence.who_cns5_tissue"]


@given(entered, st.booleans())
def test_outcome_and_guidelines_need_a_diagnosis_on_tissue_and_trials_everyday_care(told: dict[str, Any], predicted: bool) -> None:
    chosen = choose(told, predicted=PREDICTIONS if predicted else ())
    facts = {name: Fact(id=name, label=name, value=value, source="clinician") for name, value in told.items()}
    topics = {read_library().entry(name).topic for name in chosen}
    if judge_tissue(facts).diagnosis is None:
        assert not {Topic.OUTCOME, Topic.GUIDELINE} & topics
    if set(chosen) & {*TRIALS, *BY_MGMT}:
        assert set(EVERYDAY_CARE) <= set(chosen)


@given(entered)
def test_nothing_about_adults_is_cited_for_a_minor(told: dict[str, Any]) -> None:
    assert choose(told, predicted=PREDICTIONS, is_minor=True) == []


def with_expired(*names: str) -> EvidenceLibrary:
    def aged(entry: Evidence) -> Evidence:
        return entry.model_copy(update={"expires": ON - timedelta(days=1)}) if entry.id in names else entry

    return EvidenceLibrary(entries=tuple(aged(entry) for entry in read_library().entries))


def test_expired_entry_is_not_cited() -> None:
    chosen = choose({"tissue.diagnosis": "glioblastoma"}, library=with_expired("evidence.stupp_2017"))
    assert "evidence.stupp_2017" not in chosen
    assert "evidence.stupp_2005" in chosen


def test_trials_vanish_with_the_last_figure_of_everyday_care() -> None:
    chosen = choose({"tissue.diagnosis": "glioblastoma", "tissue.mgmt": "methylated"}, library=with_expired(*EVERYDAY_CARE))
    assert not set(chosen) & {*TRIALS, *BY_MGMT}
    assert "evidence.mohile_2022_glioblastoma" in chosen
