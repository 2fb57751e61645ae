"""Entries can be cited only while they are verified and current; their figures stand in their text as they were typed into the fields."""

import re
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_portal.evidence.library import Evidence, EvidenceLibrary, Figure, read_library
from gmmas_portal.evidence.rules import RULES
from gmmas_schema.errors import ConfigError

CITED = sorted({name for rule in RULES for name in rule.evidence})


@pytest.mark.parametrize("name", CITED)
def test_what_a_rule_cites_is_verified_and_expires_two_years_after_at_the_latest(name: str) -> None:
    """The day of the test plays no part: an old release must go on passing; what has expired is not cited, whatever the day."""
    entry = read_library().entry(name)
    assert entry.verification is not None, "read the source and say how, or take the entry out of the rules"
    assert entry.verification.date <= date.today()
    assert entry.verification.date < entry.expires <= entry.verification.date + timedelta(days=2 * 366 + 31)
    assert entry.may_be_cited(on=entry.verification.date)


def test_every_entry_is_used_by_a_rule() -> None:
    assert sorted(entry.id for entry in read_library().entries) == CITED


@pytest.mark.parametrize("entry", read_library().entries, ids=lambda entry: entry.id)
def test_text_holds_every_figure_and_no_brace(entry: Evidence) -> None:
    text = entry.text()
    assert "{" not in text
    assert not text.endswith(".")
    for figure in entry.figures.values():
        assert figure.text() in text
    if entry.n is not None:
        assert str(entry.n) in text


@pytest.mark.parametrize("entry", [entry for entry in read_library().entries if entry.plain], ids=lambda entry: entry.id)
def test_plain_text_tells_no_survival(entry: Evidence) -> None:
    assert not entry.survival
    assert entry.plain is not None
    assert not {"survival", "months", "years", "median"} & set(entry.plain.split())


@pytest.mark.parametrize("entry", [entry for entry in read_library().entries if entry.plain], ids=lambda entry: entry.id)
def test_plain_text_stands_by_itself(entry: Evidence) -> None:
    """Nothing that it could point back to is sure to stand before it: a diagnosis may be entered without the markers behind it."""
    assert entry.plain is not None
    assert not re.search(r"\b(these|those) (\w+ )?(changes|features|markers|results)\b", entry.plain)


def test_entries_on_survival_are_marked() -> None:
    for entry in read_library().entries:
        assert entry.survival == ("survival" in entry.endpoint)


def test_figures_read_as_in_a_paper() -> None:
    assert Figure(value=24.59, low=22.19, high=26.99, unit="months", decimals=2).text() == "24.59 months (95 % interval 22.19 to 26.99)"
    assert Figure(name="hazard ratio", value=0.6, low=0.35, high=1.03, decimals=2).text() == "hazard ratio 0.60, 95 % interval 0.35 to 1.03"
    assert Figure(value=27.7, low=17.0, unit="months").text() == "27.7 months (95 % interval from 17.0)"
    assert Figure(value=9.2, unit="months").text() == "9.2 months"


@given(st.floats(0, 100), st.floats(0.1, 100))
def test_value_outside_its_interval_is_refused(low: float, above: float) -> None:
    with pytest.raises(ValueError, match="outside its interval"):
        Figure(value=low + 2 * above, low=low, high=low + above)


def entry_with(**changes: Any) -> dict[str, Any]:
    return read_library().entry("evidence.stupp_2005").model_dump(mode="json") | changes


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"statement": "median overall survival was {combined} ({ratio})"}, "do not name the same: alone"),
        ({"statement": "in {n} {population} {combined}, {alone} ({ratio}), {other}"}, "do not name the same: other"),
        ({"plain": "people lived for 14 months"}, "has a figure"),
        ({"endpoint": ""}, "come together"),
        ({"source": {"authors": "A", "title": "B", "journal": "C", "year": 2020}}, "needs a DOI"),
        ({"verification": {"verified": False, "read": "abstract", "how": "x", "page": "y", "date": "2026-11-28"}}, "verified"),
        ({"expires": None}, "expires"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_incomplete_entry_is_refused_by_name(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        EvidenceLibrary.parse({"entries": [entry_with(**changes)]}, where="test")


def test_two_entries_of_one_id_are_refused() -> None:
    with pytest.raises(ConfigError, match="same id"):
        EvidenceLibrary.parse({"entries": [entry_with(), entry_with()]}, where="test")


def test_entry_expires_after_its_last_day_and_counts_only_if_verified() -> None:
    entry = read_library().entry("evidence.stupp_2005")
    assert entry.may_be_cited(on=entry.expires)
    assert not entry.may_be_cited(on=entry.expires + timedelta(days=1))
    assert not entry.model_copy(update={"verification": None}).may_be_cited(on=entry.expires)


def test_unknown_entry_is_refused() -> None:
    with pytest.raises(ConfigError, match="not in the library"):
        read_library().entry("evidence.nobody_2030")
