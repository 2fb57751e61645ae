"""What is wrong with a rewrite of given sentences. Strict by design: a rewrite may say the same in other neutral words, and nothing else.

    form          the agreed JSON; each given sentence once; one sentence, neither very long nor empty
    characters    letters and plain punctuation; no figures in any script, no markup, no addresses
    placeholders  exactly those of the given sentence, each as often
    sources       exactly those of the given sentence
    words         those of the given sentence and neutral ones (words.yaml), between placeholders connectives alone
    meaning       words that carry meaning (negation, side, status, open, tissue, ...) as often as in the given sentence; a sentence that
                  denies, predicts, leaves open, speaks of tissue or quotes evidence keeps its words in their order (order.py)

It reads words, not meaning. What allowed words might say together beyond the given sentence is kept small by the short neutral list, the
number of words that may be added and the bound values; it is not excluded in principle.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from gmmas_portal.language.order import keeps_order, plain_words
from gmmas_portal.language.vocabulary import Vocabulary, split_words
from gmmas_portal.reports.report import EVIDENCE_PREFIX, PLACEHOLDER, Sentence

LONGEST: Final = 80
"""Characters that a rewrite may have beyond twice those of the given sentence, placeholders not counted."""

MOST_ADDED: Final = 6
"""Words that a rewrite may have which the given sentence has not."""

_PUNCTUATION: Final = frozenset(" ,.;:'()-")
_PLAIN: Final = str.maketrans({"\u2019": "'", "\u2018": "'", "\u2013": "-", "\u2014": "-", "\u00a0": " "})
_BETWEEN: Final = frozenset(" ,;")
"""Signs between placeholders; a dash or a colon would make a range or a ratio of their values."""
_LOUD: Final = re.compile(r"\b[A-Z]{2,}\b")
_FENCE: Final = re.compile(r"\A\s*```(?:json)?\s*(.*?)\s*```\s*\Z", re.DOTALL)


class FaultCode(StrEnum):
    """Why a rewrite is refused."""

    FORMAT = "format"
    LENGTH = "length"
    DIGITS = "digits"
    MARKUP = "markup"
    LANGUAGE = "language"
    UNKNOWN_ID = "unknown-id"
    MISSING_FACT = "missing-fact"
    ADDED_FACT = "added-fact"
    CITATION = "citation"
    CONTRADICTION = "contradiction"
    NUMBER_WORD = "number-word"
    TREATMENT = "treatment"
    CERTAINTY = "certainty"
    ADVICE = "advice"
    FORECAST = "forecast"
    CHANGE = "change"
    INJECTION = "injection"
    UNKNOWN_WORD = "unknown-word"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        sentence: id of the given sentence; empty for the answer as a whole.
        detail: for the model's second try; may hold words of its answer, so it is not logged.
    """

    code: FaultCode
    sentence: str = ""
    detail: str = ""


class Rewrite(BaseModel):
    """One sentence of an answer."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: str
    text: str
    cites: list[str]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    sentences: list[Rewrite]


def read_answer(answer: str, given: Sequence[Sentence], *, may_choose: bool = False) -> tuple[dict[str, Rewrite], list[Fault]]:
    """Return the rewrites of an answer by sentence, and what is wrong with its form.

    Args:
        answer: JSON, at most in one code fence.
        given: sentences that were to be worded anew.
        may_choose: sentences may be left out, but not all.
    """
    fenced = _FENCE.match(answer)
    try:
        rewrites = _Answer.model_validate(json.loads(fenced[1] if fenced else answer), strict=True).sentences
    except (ValueError, RecursionError, ValidationError):
        return {}, [Fault(FaultCode.FORMAT, detail='answer with JSON alone: {"sentences": [{"id": ..., "text": ..., "cites": [...]}]}')]
    ids, wanted = [rewrite.id for rewrite in rewrites], [sentence.id for sentence in given]
    complete = set(ids) == set(wanted) or (may_choose and ids and set(ids) <= set(wanted))
    if len(set(ids)) != len(ids) or not complete:
        return {}, [Fault(FaultCode.FORMAT, detail="each given sentence once, under its own id, and no other")]
    return {rewrite.id: rewrite for rewrite in rewrites}, []


def find_faults(rewrite: Rewrite, given: Sentence, *, vocabulary: Vocabulary, known: frozenset[str]) -> list[Fault]:
    """Return all that is wrong with the rewrite of one sentence; nothing where it may be shown.

    Args:
        rewrite: what the model wrote.
        given: the sentence that it was given.
        vocabulary: allowed words, and words that carry meaning.
        known: ids of all facts and evidence of the report.
    """
    text = rewrite.text.translate(_PLAIN).strip()
    if text == given.template and tuple(rewrite.cites) == given.evidence:
        return []
    bare = PLACEHOLDER.sub(" ", text)
    faults = [
        *_placeholders(text, given, known),
        *_citations(rewrite, given, known),
        *_between(text, vocabulary),
        *_characters(bare),
        *_capitals(bare, given),
        *_length(bare, given),
        *_words(bare, given, vocabulary),
        *_meaning(text, given, vocabulary),
    ]
    return [Fault(code, given.id, detail) for code, detail in dict.fromkeys(faults)]


_Found = list[tuple[FaultCode, str]]


def _placeholders(text: str, given: Sentence, known: frozenset[str]) -> _Found:
    wanted, written = Counter(PLACEHOLDER.findall(given.template)), Counter(PLACEHOLDER.findall(text))
    added = written - wanted
    return [
        *(
            (FaultCode.ADDED_FACT if name in known else FaultCode.UNKNOWN_ID, f"{{{{{name}}}}} does not belong into this sentence")
            for name in added
        ),
        *((FaultCode.MISSING_FACT, f"{{{{{name}}}}} is missing") for name in wanted - written),
    ]


def _between(text: str, vocabulary: Vocabulary) -> _Found:
    """Return words and signs between placeholders that could relate their values to each other: `from {{a}} to {{b}}`, `{{a}} - {{b}}`."""
    gaps = PLACEHOLDER.sub("\n", text).split("\n")[1:-1]
    words = [word for gap in gaps for word in _parts(gap) if word not in vocabulary.connectives]
    words += [sign for gap in gaps for sign in gap if not sign.isalpha() and sign not in _BETWEEN]
    return [
        (FaultCode.CONTRADICTION, f"between placeholders only {', '.join(sorted(vocabulary.connectives))}: not '{word}'") for word in words
    ]


def _citations(rewrite: Rewrite, given: Sentence, known: frozenset[str]) -> _Found:
    if unknown := [name for name in rewrite.cites if name not in known]:
        return [(FaultCode.UNKNOWN_ID, f"there is no source {', '.join(unknown)}")]
    return [] if sorted(rewrite.cites) == sorted(given.evidence) else [(FaultCode.CITATION, f"cites has to be {list(given.evidence)}")]


def _characters(bare: str) -> _Found:
    """Return figures, markup and letters of other alphabets; compatibility forms such as `①` are figures too."""
    found: _Found = []
    for character in bare:
        plain = unicodedata.normalize("NFKC", character)
        if any(unicodedata.category(part).startswith("N") or unicodedata.numeric(part, None) is not None for part in character + plain):
            found.append((FaultCode.DIGITS, "no figures: they stand in placeholders"))
        elif not character.isascii():
            found.append((FaultCode.LANGUAGE, "English letters only"))
        elif not character.isalpha() and character not in _PUNCTUATION:
            found.append((FaultCode.MARKUP, "letters and , . ; : ( ) - only, and placeholders as they were given"))
    return found


def _capitals(bare: str, given: Sentence) -> _Found:
    """Return words in capitals: emphasis is markup by other means."""
    loud = {word for word in _LOUD.findall(bare) if word not in given.template}
    return [(FaultCode.LANGUAGE, f"no capitals: '{word}'") for word in sorted(loud)]


def _length(bare: str, given: Sentence) -> _Found:
    source = PLACEHOLDER.sub(" ", given.template)
    faults: _Found = []
    if len(bare) > 2 * len(source) + LONGEST or len(split_words(bare)) < 2:
        faults.append((FaultCode.LENGTH, "about as long as the given sentence"))
    if bare.count(".") != 1 or not bare.rstrip().endswith("."):
        faults.append((FaultCode.LENGTH, "one sentence with one full stop at its end"))
    return faults


def _words(bare: str, given: Sentence, vocabulary: Vocabulary) -> _Found:
    """Return words that are neither given nor neutral; a refusal has the name of the list in which the word stands, if any."""
    own, written = set(_parts(given.template)), _parts(bare)
    meanings = {vocabulary.meaning_of(word) for word in own}
    faults: _Found = []
    for word in written:
        kind, meaning = vocabulary.kind_of(word), vocabulary.meaning_of(word)
        if (
            word in own
            or (meaning is not None and meaning in meanings)
            or (kind is None and word in vocabulary.neutral | vocabulary.fillers)
        ):
            continue
        name = vocabulary.name_of(word)
        code = FaultCode(name) if name is not None else FaultCode.CONTRADICTION if kind is not None else FaultCode.UNKNOWN_WORD
        faults.append((code, f"do not use the word '{word}'"))
    if sum(word not in own for word in written) > MOST_ADDED:
        faults.append((FaultCode.LENGTH, f"at most {MOST_ADDED} words that are not in the given sentence"))
    return faults


def _meaning(text: str, given: Sentence, vocabulary: Vocabulary) -> _Found:
    """Return meaning that was added or dropped, and in a cautious sentence whatever was moved or exchanged."""
    own, written = _sequence(given.template), _sequence(text)
    wanted, found = (Counter(meaning for word in words if (meaning := vocabulary.meaning_of(word))) for words in (own, written))
    faults: _Found = [
        (FaultCode.CONTRADICTION, f"'{meaning}' as often as in the given sentence")
        for meaning in sorted({*wanted, *found})
        if found[meaning] != wanted[meaning] and not (meaning in vocabulary.limited and found[meaning] < wanted[meaning])
    ]
    pairs = zip(written, (*written[1:], ""), strict=True)
    faults += [
        (FaultCode.CONTRADICTION, f"'{word}' stands before '{after}'")
        for word, following in pairs
        if (after := vocabulary.followed.get(word, following)) != following
    ]
    quotes = any(name.startswith(EVIDENCE_PREFIX) for name in PLACEHOLDER.findall(given.template))
    cautious = quotes or bool(vocabulary.cautious & {vocabulary.kind_of(word) for word in own})
    if not faults and cautious and not keeps_order(text, given.template, vocabulary):
        faults.append(
            (FaultCode.CONTRADICTION, "this sentence keeps its words in their order; only small words may be added, in their places")
        )
    return faults


def _sequence(text: str) -> list[str]:
    """Return words and the names of placeholders in their order."""
    pieces = PLACEHOLDER.split(text)  # text, name, text, name, ..., text
    return [part for n, piece in enumerate(pieces) for part in (_parts(piece) if n % 2 == 0 else [piece])]


def _parts(text: str) -> list[str]:
    """Return the words of a text: compounds in their parts, without the ending of a possessive."""
    words = [word.removesuffix("'s") for word in split_words(plain_words(PLACEHOLDER.sub(" ", text)))]
    return [part for word in words for part in word.split("-") if part]
