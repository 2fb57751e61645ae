"""The verifier on its own: what it must never pass, whatever stands around it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_portal.language.aliases import Aliases
from gmmas_portal.language.verifier import Fault, FaultCode, Rewrite, find_faults, read_answer
from gmmas_portal.language.vocabulary import read_vocabulary
from gmmas_portal.reports.report import PLACEHOLDER, Sentence
from tests.gmmas_portal.language.fake_model import as_given
from tests.gmmas_portal.sample_case import sample_report

REPORT = sample_report()
SENTENCES = {sentence.id: sentence for sentence in REPORT.sentences}
KNOWN = frozenset({*(fact.id for fact in REPORT.facts), *(citation.evidence for citation in REPORT.citations)})
VOCABULARY = read_vocabulary()
sentences = st.sampled_from(REPORT.sentences)
FIGURES = st.characters(whitelist_categories=("Nd", "Nl", "No"))


def judge(text: str, given_sentence: Sentence, cites: list[str] | None = None) -> set[FaultCode]:
    rewrite = Rewrite(id=given_sentence.id, text=text, cites=list(given_sentence.evidence) if cites is None else cites)
    return {fault.code for fault in find_faults(rewrite, given_sentence, vocabulary=VOCABULARY, known=KNOWN)}


@given(sentences)
def test_given_sentence_passes(sentence: Sentence) -> None:
    assert judge(sentence.template, sentence) == set()
    assert judge(f"  {sentence.template} ", sentence) == set()


@given(sentences, FIGURES, st.integers(0, 60))
def test_figure_of_any_script_anywhere_is_refused(sentence: Sentence, figure: str, place: int) -> None:
    words = PLACEHOLDER.sub(lambda match: match[0], sentence.template).split(" ")
    words.insert(place % len(words), figure)
    assert FaultCode.DIGITS in judge(" ".join(words), sentence)


@given(sentences, sentences)
def test_placeholder_of_another_sentence_is_refused(sentence: Sentence, other: Sentence) -> None:
    foreign = [name for name in PLACEHOLDER.findall(other.template) if name not in PLACEHOLDER.findall(sentence.template)]
    for name in foreign:
        assert FaultCode.ADDED_FACT in judge(f"{sentence.template[:-1]} and {{{{{name}}}}}.", sentence)


@given(sentences, st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=2, max_size=12))
def test_word_that_is_neither_given_nor_neutral_is_refused(sentence: Sentence, word: str) -> None:
    if word not in VOCABULARY.neutral and word not in PLACEHOLDER.sub(" ", sentence.template).lower():
        assert judge(f"{sentence.template[:-1]} {word}.", sentence)


@given(sentences, st.characters(blacklist_categories=("Cs",)).filter(lambda c: not c.isascii()))
def test_letter_of_another_alphabet_or_invisible_one_is_refused(sentence: Sentence, letter: str) -> None:
    if letter not in "\u2018\u2019\u2013\u2014\u00a0":
        assert judge(f"{sentence.template[:-2]}{letter}{sentence.template[-2:]}", sentence)


@given(sentences, st.sampled_from(sorted(VOCABULARY.kept["negation"] | VOCABULARY.kept["side"] | VOCABULARY.kept["status"])))
def test_word_that_turns_a_meaning_is_refused(sentence: Sentence, word: str) -> None:
    assert judge(f"{sentence.template[:-1]} {word}.", sentence)


@given(sentences, st.sampled_from(sorted(VOCABULARY.named["treatment"] | VOCABULARY.named["number-word"] | VOCABULARY.named["advice"])))
def test_named_words_are_refused_unless_given(sentence: Sentence, word: str) -> None:
    if word not in sentence.template.lower().split():
        assert judge(f"{sentence.template[:-1]} {word}.", sentence)


@pytest.mark.parametrize(
    "text",
    [
        "The figures below describe a person and are no forecast for groups of patients.",
        "The figures below are no groups of patients and describe a forecast for a person.",
        "No figures below describe groups of patients and are a forecast for a person.",
        "The figures below describe groups of patients and are a forecast for no person.",
    ],
)
def test_words_that_change_places_around_a_negation_are_refused(text: str) -> None:
    assert FaultCode.CONTRADICTION in judge(text, SENTENCES["evidence.groups"])


def test_kept_word_cannot_be_exchanged_for_its_opposite() -> None:
    assert judge("On the right this question is open: {{marker.mgmt}}.", SENTENCES["open.marker.mgmt"])


@pytest.mark.parametrize("word", sorted(VOCABULARY.fillers - VOCABULARY.articles))
def test_no_small_word_but_an_article_stands_after_a_negation(word: str) -> None:
    """`not here but available`, `no forecast but`: every word of the given sentence in its order, and the meaning turned."""
    for name, negation in (("evidence.groups", "no"), ("sequences.missing", "Not")):
        template = SENTENCES[name].template
        assert judge(template.replace(f"{negation} ", f"{negation} {word} "), SENTENCES[name])
        assert judge(template.replace(f"{negation} ", f"{negation}, {word} "), SENTENCES[name])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("markers.pattern", "Tissue is required, and the imaging pattern is also consistent with {{subtype.told}}."),
        ("markers.pattern", "As the imaging pattern is consistent with {{subtype.told}}, tissue is required."),
        ("evidence.groups", "Please note that the figures below describe groups of patients; they are no forecast for a person."),
        ("tissue.results", SENTENCES["tissue.results"].template.replace("Tissue results were", "The following tissue results have been")),
        ("open.marker.mgmt", "This question is currently left open: {{marker.mgmt}}; {{reason.r1}}."),
        ("sequences.missing", "Also not available: {{sequences.missing}}."),
    ],
)
def test_small_words_in_their_places_are_allowed(name: str, text: str) -> None:
    assert judge(text, SENTENCES[name]) == set()


def test_lists_of_words_do_not_contradict_each_other() -> None:
    named = set().union(*VOCABULARY.named.values())
    assert not named & VOCABULARY.neutral
    assert (
        not (VOCABULARY.kept["negation"] | VOCABULARY.kept["side"] | VOCABULARY.kept["status"] | VOCABULARY.kept["modal"])
        & VOCABULARY.neutral
    )
    assert VOCABULARY.limited | VOCABULARY.verbatim <= set(VOCABULARY.kept)


def test_answer_is_read_only_in_the_agreed_form() -> None:
    hidden = [Aliases.of(REPORT.sentences).hide(sentence) for sentence in REPORT.sentences]
    rewrites, faults = read_answer(as_given(REPORT.sentences), hidden)
    assert ([rewrites[sentence.id].text for sentence in hidden], faults) == ([sentence.template for sentence in hidden], [])
    for answer in (
        '{"sentences": [{"id": "a", "text": 1, "cites": []}]}',
        '{"sentences": [], "more": 1}',
        "[" * 5000,
        '{"sentences": null}',
    ):
        assert read_answer(answer, REPORT.sentences) == (
            {},
            [Fault(FaultCode.FORMAT, detail=read_answer("x", REPORT.sentences)[1][0].detail)],
        )
    twice = as_given((*REPORT.sentences, REPORT.sentences[0]), among=REPORT.sentences)
    assert read_answer(twice, hidden)[1][0].code is FaultCode.FORMAT


def test_sentences_may_be_left_out_only_where_that_was_offered() -> None:
    hidden = [Aliases.of(REPORT.sentences).hide(sentence) for sentence in REPORT.sentences]
    some = as_given(REPORT.sentences[:2], among=REPORT.sentences)
    assert read_answer(some, hidden)[1]
    assert not read_answer(some, hidden, may_choose=True)[1]
    assert read_answer('{"sentences": []}', hidden, may_choose=True)[1]
