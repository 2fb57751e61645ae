"""Names without meaning for sentences and sources while they are with a language model: `evidence.who_cns5_glioblastoma` is a diagnosis."""

from collections.abc import Sequence
from dataclasses import dataclass

from gmmas_portal.reports.report import EVIDENCE_PREFIX, PLACEHOLDER, Sentence


@dataclass(frozen=True)
class Aliases:
    """Aliases of the sentences and sources of one call, by their order.

    Attributes:
        sentences: `s1`, `s2`, ... by id.
        evidence: `evidence.source_1`, ... by id.
    """

    sentences: dict[str, str]
    evidence: dict[str, str]

    @classmethod
    def of(cls, sentences: Sequence[Sentence]) -> "Aliases":
        """Return aliases for these sentences; the same sentences get the same."""
        sources = dict.fromkeys(name for sentence in sentences for name in sentence.evidence)
        return cls(
            {sentence.id: f"s{number}" for number, sentence in enumerate(sentences, start=1)},
            {name: f"{EVIDENCE_PREFIX}source_{number}" for number, name in enumerate(sources, start=1)},
        )

    def hide(self, sentence: Sentence) -> Sentence:
        """Return a sentence under its alias, its sources too; its text is left out."""
        template = self.hide_template(sentence.template)
        evidence = tuple(self.evidence[name] for name in sentence.evidence)
        return sentence.model_copy(update={"id": self.sentences[sentence.id], "template": template, "text": "", "evidence": evidence})

    def hide_template(self, template: str) -> str:
        """Return a template with aliases in the place of sources."""
        return _replace(template, self.evidence)

    def reveal(self, alias: str, template: str) -> tuple[str, str]:
        """Return the id of a sentence and its template with the sources themselves."""
        ids = {short: name for name, short in self.sentences.items()}
        return ids[alias], _replace(template, {short: name for name, short in self.evidence.items()})


def _replace(template: str, names: dict[str, str]) -> str:
    return PLACEHOLDER.sub(lambda match: f"{{{{{names.get(match[1], match[1])}}}}}", template)
