"""Published figures and classifications that reports may cite, read from evidence.yaml.

An entry's figures are fields; its statement names them, so no number is typed into a sentence. An entry is cited only if somebody read its
source and says how (`verification`), and only until `expires`: knowledge of treatments ages.
"""

import string
from datetime import date
from enum import StrEnum
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Annotated, Final, Literal

import yaml
from pydantic import Field, model_validator

from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import ConfigError

EVIDENCE_FILE: Final = "evidence.yaml"

EvidenceId = Annotated[str, Field(pattern=r"^evidence(\.[a-z0-9_]+)+$")]


class Topic(StrEnum):
    """What an entry is about."""

    CLASSIFICATION = "classification"
    IMAGING = "imaging"
    GUIDELINE = "guideline"
    OUTCOME = "outcome"


class Figure(FrozenModel):
    """A published value with its 95 % interval, as far as the source gives one.

    Attributes:
        name: of a ratio, told before the value; empty for a value whose meaning the statement names.
        low: lower end of the interval; `high` may be missing where the source could not estimate it.
    """

    name: str = ""
    value: float
    low: float | None = None
    high: float | None = None
    unit: Literal["", "%", "months", "years"] = ""
    decimals: int = Field(default=1, ge=0, le=2)

    @model_validator(mode="after")
    def _value_lies_in_its_interval(self) -> "Figure":
        if not (self.low if self.low is not None else self.value) <= self.value <= (self.high if self.high is not None else self.value):
            raise ValueError(f"{self.value} lies outside its interval")
        return self

    def text(self) -> str:
        """Return the figure as it is told: `24.6 months (95 % interval 22.2 to 27.0)`, `hazard ratio 0.63, 95 % interval 0.52 to 0.75`."""
        told = " ".join(part for part in (self.name, self._number(self.value), self.unit) if part)
        if self.low is None:
            return told
        interval = f"from {self._number(self.low)}" if self.high is None else f"{self._number(self.low)} to {self._number(self.high)}"
        return f"{told}, 95 % interval {interval}" if self.name else f"{told} (95 % interval {interval})"

    def _number(self, value: float) -> str:
        return f"{value:.{self.decimals}f}"


class Source(FrozenModel):
    """Where an entry was published; at least one of the identifiers is there."""

    authors: str = Field(min_length=1)
    title: str = Field(min_length=1)
    journal: str = Field(min_length=1)
    year: int = Field(ge=1990, le=2100)
    doi: str | None = None
    pmid: str | None = None
    pmcid: str | None = None
    url: str | None = None

    @model_validator(mode="after")
    def _can_be_found(self) -> "Source":
        if not (self.doi or self.pmid or self.pmcid or self.url):
            raise ValueError("a source needs a DOI, a PubMed identifier or an address")
        return self

    def text(self) -> str:
        """Return the reference on one line."""
        ends = (f"doi:{self.doi}" if self.doi else "", f"PMID {self.pmid}" if self.pmid else "", self.pmcid or "", self.url or "")
        return f"{self.authors}. {self.title}. {self.journal}, {self.year}. {next(end for end in ends if end)}"


class Verification(FrozenModel):
    """Who read what. An entry without one is not cited.

    Attributes:
        read: how much of the source was read; `report` is a report of others on it, the source itself was not at hand.
        how: what was compared.
        page: that was read.
        date: of reading.
    """

    verified: Literal[True] = True
    read: Literal["full-text", "abstract", "report"]
    how: str = Field(min_length=1)
    page: str = Field(min_length=1)
    date: date


class Evidence(FrozenModel):
    """One entry.

    Attributes:
        statement: a clause without a full stop; `{n}`, `{population}` and the names of figures are filled in.
        plain: the same for patients, without figures; None where it is not told to them.
        survival: it tells how long people live, or live without progression.
        treatments: that it names; a sentence may name these only where it cites the entry.
        n: patients behind the figures.
        endpoint: what the figures are.
        verification: None is not verified, and never cited.
        expires: last day on which it may be cited.
    """

    id: EvidenceId
    topic: Topic
    statement: str = Field(min_length=1)
    plain: str | None = None
    survival: bool = False
    treatments: tuple[str, ...] = ()
    population: str = Field(min_length=1)
    n: int | None = Field(default=None, ge=1)
    endpoint: str = ""
    figures: dict[str, Figure] = Field(default_factory=dict)
    source: Source
    verification: Verification | None = None
    expires: date

    @model_validator(mode="after")
    def _statement_fits_its_figures(self) -> "Evidence":
        named = {name for _, name, _, _ in string.Formatter().parse(self.statement) if name}
        known = {*self.figures, "population", *(["n"] if self.n is not None else [])}
        if missing := sorted(named - known) + sorted(set(self.figures) - named):
            raise ValueError(f"{self.id}: the statement and the figures do not name the same: {', '.join(missing)}")
        if self.plain is not None and any(character.isdigit() for character in self.plain.replace("1p/19q", "")):
            raise ValueError(f"{self.id}: the plain statement has a figure in it")
        if bool(self.figures) != bool(self.endpoint):
            raise ValueError(f"{self.id}: figures and their endpoint come together")
        return self

    def text(self) -> str:
        """Return the statement with its figures: a clause without a full stop."""
        fields = {name: figure.text() for name, figure in self.figures.items()}
        return self.statement.strip().format_map({**fields, "population": self.population, "n": str(self.n)})

    def may_be_cited(self, *, on: date) -> bool:
        """Return whether it was verified and has not expired."""
        return self.verification is not None and on <= self.expires


class EvidenceLibrary(FrozenModel):
    """All entries, each id once."""

    entries: tuple[Evidence, ...]

    @model_validator(mode="after")
    def _ids_differ(self) -> "EvidenceLibrary":
        ids = [entry.id for entry in self.entries]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            raise ValueError(f"two entries have the same id: {', '.join(twice)}")
        return self

    def entry(self, name: str) -> Evidence:
        """Return an entry.

        Raises:
            ConfigError: there is none of that name.
        """
        for entry in self.entries:
            if entry.id == name:
                return entry
        raise ConfigError(
            "an evidence entry is not in the library",
            where=EVIDENCE_FILE,
            got=name,
            expected="the id of an entry",
            remedy="mend the rule or add it",
        )

    def by_id(self) -> MappingProxyType[str, Evidence]:
        """Return the entries under their ids."""
        return MappingProxyType({entry.id: entry for entry in self.entries})


@cache
def read_library() -> EvidenceLibrary:
    """Return the library that comes with the package.

    Raises:
        ConfigError: an entry is incomplete or contradicts itself.
    """
    raw = yaml.safe_load(files("gmmas_portal.evidence").joinpath(EVIDENCE_FILE).read_text(encoding="utf-8"))
    return EvidenceLibrary.parse({"entries": raw}, where=EVIDENCE_FILE)
