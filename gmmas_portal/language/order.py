"""Whether a rewrite of a cautious sentence keeps its words in their order, and puts small words only where they cannot turn its meaning.

Firm words and placeholders keep their order within a clause; whole clauses may change places. Between two firm words is a slot:

    start of a clause   articles, openers, a comma; prepositions where the given clause begins with one
    within a clause     articles, `also` and `currently`; prepositions, or openers and a comma, where the given one has such there
    after a negation    articles alone: `not here but available` has every word of `not available` in its order
    end of a sentence   `also` and `too`
"""

import re
from collections.abc import Sequence
from itertools import chain, permutations
from typing import Final, NamedTuple

from gmmas_portal.language.vocabulary import Vocabulary
from gmmas_portal.reports.report import PLACEHOLDER

_CLAUSE: Final = re.compile(r"[;:]|,(?!\s*(?:and\s*)?\{\{)")
"""Ends of clauses; a list of placeholders is part of one, so there are few."""
_TOKEN: Final = re.compile(r"[a-z]+(?:['-][a-z]+)*|[^\sa-z.]")
_STOPS: Final = frozenset(",;:")
_JOINING: Final = frozenset(["and", "it", "they", "that"])
_ADVERBS: Final = frozenset(["also", "currently"])
_LAST: Final = frozenset(["also", "too", ","])
_SEEN_ON: Final = "imaging"
"""The one word that a preposition may be put before where the given sentence has none: `on imaging` and `from imaging` are the same."""
_SAME: Final = (
    (re.compile(r"\bas\s+well\b"), "also"),
    (re.compile(r"\bin\s+addition\b"), "additionally"),
    (re.compile(r"\A\s*please\s+note\s+that\b"), ""),
    (re.compile(r"\bhave\s+been\b"), "were"),
    (re.compile(r"\bhas\s+been\b"), "was"),
)
"""Ways to say the same; `well` alone is a judgement."""


class _Clause(NamedTuple):
    """Firm words, and what stands before each of them and after the last."""

    firm: list[str]
    slots: list[list[str]]


def keeps_order(text: str, template: str, vocabulary: Vocabulary) -> bool:
    """Return whether a rewrite has the firm words of a template in their order, and nothing else but small words in their places."""
    written = _read(text, vocabulary)
    clauses = [clause for part in _CLAUSE.split(template) if (clause := _read(part, vocabulary)).firm]
    return any(_fits(written, order, vocabulary) for order in permutations(clauses))


def plain_words(text: str) -> str:
    """Return a text in lower case, in one of several ways to say the same."""
    plain = text.lower()
    for pattern, same in _SAME:
        plain = pattern.sub(same, plain)
    return plain


def _read(text: str, vocabulary: Vocabulary) -> _Clause:
    clause = _Clause([], [[]])
    for number, piece in enumerate(PLACEHOLDER.split(text)):  # text, name, text, name, ..., text
        words = [piece] if number % 2 else _TOKEN.findall(plain_words(piece))
        for token in words if number % 2 else chain.from_iterable(_parts(word) for word in words):
            if token in vocabulary.fillers or not token[0].isalpha():
                clause.slots[-1].append(token)
            else:
                clause.firm.append(token)
                clause.slots.append([])
    return clause


def _parts(token: str) -> list[str]:
    """Return the parts of a compound, without the ending of a possessive; a sign is its own part."""
    return [part for part in token.removesuffix("'s").split("-") if part] or [token]


def _fits(written: _Clause, clauses: Sequence[_Clause], vocabulary: Vocabulary) -> bool:
    if list(chain.from_iterable(clause.firm for clause in clauses)) != written.firm or not set(written.slots[-1]) <= _LAST:
        return False
    slots = iter(written.slots)
    return all(
        _may_begin(next(slots), clause, vocabulary, first=number == 0) if place == 0 else _may_stand(next(slots), clause, place, vocabulary)
        for number, clause in enumerate(clauses)
        for place in range(len(clause.firm))
    )


def _may_begin(slot: Sequence[str], clause: _Clause, vocabulary: Vocabulary, *, first: bool) -> bool:
    """Return whether these small words may stand at the start of a clause; one that is not the first has to be set off."""
    allowed = vocabulary.articles | vocabulary.openers | _STOPS
    if clause.firm[0] == _SEEN_ON or vocabulary.prepositions & {*clause.slots[0]}:
        allowed |= vocabulary.prepositions
    if "." in clause.firm[0]:
        allowed -= {"but"}
    return set(slot) <= allowed and (first or not set(slot) <= vocabulary.articles)


def _may_stand(slot: Sequence[str], clause: _Clause, place: int, vocabulary: Vocabulary) -> bool:
    """Return whether these small words may stand before a firm word within its clause."""
    before, given = clause.firm[place - 1], {*clause.slots[place]}
    if "." in before and "." in clause.firm[place]:
        return True  # a list of placeholders has its own rule (verifier.py)
    if vocabulary.kind_of(before) == "negation":
        return set(slot) <= vocabulary.articles
    if given & vocabulary.openers:
        return set(slot) <= vocabulary.articles | given | _JOINING | _STOPS
    if given & vocabulary.prepositions:
        return set(slot) <= vocabulary.articles | vocabulary.prepositions
    return set(slot) <= vocabulary.articles | _ADVERBS or (slot[0] == "," and len(slot) > 1 and set(slot[1:]) <= vocabulary.articles)
