"""What templates write from: facts, what tissue amounts to, chosen evidence; and the pen that makes sentences of it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from gmmas_portal.evidence.diagnosis import TissueFinding
from gmmas_portal.evidence.library import Evidence, Topic
from gmmas_portal.evidence.rules import Chosen
from gmmas_portal.reports.provenance import reason_of
from gmmas_portal.reports.report import EVIDENCE_PREFIX, PLACEHOLDER, Audience, Section, Sentence
from gmmas_portal.reports.wording import fill, join_words
from gmmas_schema.case_record import CaseRecord, Fact, FactStatus

UNTOLD_SUFFIXES = (".p", "_share")
UNTOLD_PREFIXES = ("spread.", "location.mni_", "subtype.", "context.", "sequences.", "accuracy.", "model.", "outline.", "reason.")


@dataclass(frozen=True)
class Material:
    """What a report is written from.

    Attributes:
        record: the case.
        facts: all facts by id, those about images, model and outline included.
        tissue: what the results on tissue amount to.
        chosen: evidence that may be cited, without what is not to be shown.
        evidence: entries by id.
    """

    record: CaseRecord
    facts: Mapping[str, Fact]
    tissue: TissueFinding
    chosen: tuple[Chosen, ...]
    evidence: Mapping[str, Evidence]

    def found(self, names: Iterable[str]) -> list[str]:
        """Return those of these facts that may be told."""
        return [name for name in names if name in self.facts and self.facts[name].status is FactStatus.FOUND]

    def value(self, name: str) -> object:
        """Return the value of a fact that may be told; None otherwise."""
        return self.facts[name].value if self.found([name]) else None

    def outlines_nothing(self) -> bool:
        """Return whether the outline is known to be empty, or too small to count."""
        return 0 in (self.value("volume.wt"), self.value("foci.wt"))

    def outlines_too_little(self) -> bool:
        """Return whether something may be outlined that is too small to count, so that `none` would be said of what is measured."""
        return self.outlines_nothing() and self.value("volume.wt") != 0

    def has_several(self, name: str) -> bool:
        """Return whether more than one part was counted."""
        return isinstance(count := self.value(name), int) and count > 1

    def with_status(self, status: FactStatus) -> list[str]:
        """Return the facts of the case in this state that prose speaks of."""
        return [fact.id for fact in self.record.facts if fact.status is status and (fact.id == "subtype.told" or not is_untold(fact.id))]

    def by_reason(self, status: FactStatus) -> list[tuple[str, list[str]]]:
        """Return the facts in a state that is not told, gathered by their reason: the reason's fact, then theirs."""
        reasons = {str(fact.value): name for name, fact in self.facts.items() if name.startswith("reason.")}
        groups: dict[str, list[str]] = {}
        for name in self.with_status(status):
            groups.setdefault(reasons[reason_of(self.facts[name])], []).append(name)
        return list(groups.items())

    def of_topic(self, *topics: Topic) -> list[Chosen]:
        """Return the chosen evidence on these topics."""
        return [entry for entry in self.chosen if self.evidence[entry.evidence].topic in topics]


@dataclass
class Pen:
    """Makes sentences and remembers which facts of the case they tell."""

    material: Material
    audience: Audience
    sentences: list[Sentence] = field(default_factory=list)

    def write(self, section: Section, name: str, template: str, *, facts: Iterable[str] = (), evidence: Iterable[str] = ()) -> None:
        """Add a sentence; it rests on its placeholders, and on the facts and evidence named beside."""
        placed = PLACEHOLDER.findall(template)
        self.sentences.append(
            Sentence(
                id=name,
                section=section,
                template=template,
                text=fill(template, facts=self.material.facts, evidence=self.material.evidence, audience=self.audience),
                facts=tuple(dict.fromkeys([*(p for p in placed if not p.startswith(EVIDENCE_PREFIX)), *facts])),
                evidence=tuple(dict.fromkeys([*(p for p in placed if p.startswith(EVIDENCE_PREFIX)), *evidence])),
            )
        )

    def write_list(self, section: Section, name: str, opening: str, names: Iterable[str], *, evidence: Iterable[str] = ()) -> None:
        """Add `opening a, b and c.` of the facts that may be told; nothing where there are none."""
        if found := self.material.found(names):
            self.write(section, name, f"{opening} {list_of(found)}.", evidence=evidence)

    def told(self) -> set[str]:
        """Return the facts that sentences rest on so far."""
        return {name for sentence in self.sentences for name in sentence.facts}


def list_of(names: Iterable[str]) -> str:
    """Return placeholders as in a sentence: `{{a}}, {{b}} and {{c}}`."""
    return join_words([f"{{{{{name}}}}}" for name in names])


def is_untold(name: str) -> bool:
    """Return whether a fact stands in tables alone."""
    return name.endswith(UNTOLD_SUFFIXES) or name.startswith(UNTOLD_PREFIXES)


def contradicting_predictions(material: Material) -> Iterator[tuple[str, str]]:
    """Yield predicted facts that do not go together by WHO CNS5."""
    idh, codeletion, told = (material.value(name) for name in ("marker.idh", "marker.codeletion", "subtype.told"))
    if idh == "wildtype" and codeletion == "codeleted":
        yield "marker.idh", "marker.codeletion"
    if told is not None and idh is not None and (told == "glioblastoma") != (idh == "wildtype"):
        yield "subtype.told", "marker.idh"
    if (told, codeletion) in (("oligodendroglioma", "intact"), ("astrocytoma", "codeleted")):
        yield "subtype.told", "marker.codeletion"
