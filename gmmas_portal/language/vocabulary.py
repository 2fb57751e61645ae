"""The words of rewrites (words.yaml): which a rewrite may use besides those it was given, and which carry meaning.

The list of allowed words is what a rewrite has to pass; lists of forbidden ones only give a refusal its name. A word that nobody thought of
is refused.
"""

import re
from functools import cache
from importlib.resources import files
from typing import Final

import yaml
from pydantic import Field, field_validator

from gmmas_schema.base import FrozenModel

WORDS_FILE: Final = "words.yaml"
_WORD: Final = re.compile(r"[a-z]+(?:['-][a-z]+)*")


class Vocabulary(FrozenModel):
    """The lists of words.yaml.

    Attributes:
        neutral: words that state nothing by themselves.
        cautious: kinds of which a sentence keeps its words in their order (order.py).
        articles: small words that may be added to it; so may `openers` and `prepositions`, in some places.
        connectives: words that may stand between two placeholders.
        kept: words that carry meaning, by kind; of each kind a rewrite has as many as the given sentence.
        followed: words that keep the word after them.
        limited: kinds of which it may also have fewer.
        verbatim: kinds of which it has the very same words.
        named: words by the name of the refusal they stand for.
    """

    neutral: frozenset[str]
    cautious: frozenset[str]
    articles: frozenset[str]
    openers: frozenset[str]
    prepositions: frozenset[str]
    connectives: frozenset[str]
    kept: dict[str, frozenset[str]]
    followed: dict[str, str] = Field(default_factory=dict)
    limited: frozenset[str] = Field(default_factory=frozenset)
    verbatim: frozenset[str] = Field(default_factory=frozenset)
    named: dict[str, frozenset[str]]

    @field_validator("neutral", "articles", "openers", "prepositions", "connectives", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return frozenset(value.split()) if isinstance(value, str) else value

    @field_validator("kept", "named", mode="before")
    @classmethod
    def _split_each(cls, value: object) -> object:
        return {name: frozenset(words.split()) for name, words in value.items()} if isinstance(value, dict) else value

    @property
    def fillers(self) -> frozenset[str]:
        """Small words that a cautious sentence may have more or fewer of."""
        return self.articles | self.openers | self.prepositions

    def kind_of(self, word: str) -> str | None:
        """Return the kind of a word that carries meaning; None for others."""
        return next((kind for kind, words in self.kept.items() if word in words), None)

    def meaning_of(self, word: str) -> str | None:
        """Return what a word counts as: itself or its kind; None where it carries no meaning."""
        kind = self.kind_of(word)
        return word if kind in self.verbatim else kind

    def name_of(self, word: str) -> str | None:
        """Return what a refusal of this word is called, where it has a name."""
        return next((name for name, words in self.named.items() if word in words), None)


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case; `wild-type` is one word."""
    return _WORD.findall(text.lower())


@cache
def read_vocabulary() -> Vocabulary:
    """Return the lists that come with the package.

    Raises:
        ConfigError: the file has a fault.
    """
    raw = yaml.safe_load(files("gmmas_portal.language").joinpath(WORDS_FILE).read_text(encoding="utf-8"))
    return Vocabulary.parse(raw, where=WORDS_FILE)
