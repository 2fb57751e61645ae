"""A report in the words of a language model, sentence by sentence as far as the verifier passes it.

1. The model is asked once for all sentences; what is refused, it is told, and asked once more.
2. A sentence that is refused twice keeps its template. Markup or the residue of an instruction in the second answer makes the whole answer
   untrustworthy, and every sentence keeps its template.
3. Values, figures and labels are put in after that.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from gmmas_portal.evidence.library import EvidenceLibrary, read_library
from gmmas_portal.language.aliases import Aliases
from gmmas_portal.language.endpoint import ChatEndpoint, LanguageCall, OnCall, Verdict, sha256_of
from gmmas_portal.language.prompt import ask_again, ask_to_reword
from gmmas_portal.language.verifier import Fault, FaultCode, find_faults, read_answer
from gmmas_portal.language.vocabulary import Vocabulary, read_vocabulary
from gmmas_portal.reports.report import Report, Sentence, Wording
from gmmas_portal.reports.wording import fill, outline_of
from gmmas_schema.errors import GmmasError

ATTEMPTS: Final = 2
DISTRUSTED: Final = frozenset({FaultCode.MARKUP, FaultCode.INJECTION})


@dataclass(frozen=True)
class Reworded:
    """What came of asking.

    Attributes:
        templates: accepted wordings by sentence, as templates; empty where all were refused.
        answered: the model answered at all.
        faults: of the last try.
    """

    templates: dict[str, str] = field(default_factory=dict)
    answered: bool = False
    faults: tuple[Fault, ...] = ()


def rewrite_report(
    report: Report,
    endpoint: ChatEndpoint,
    *,
    on_call: OnCall,
    library: EvidenceLibrary | None = None,
    vocabulary: Vocabulary | None = None,
) -> Report:
    """Return the report in the model's words, as far as they are accepted; else the same report, marked so.

    Args:
        report: from templates.
        endpoint: of the model.
        on_call: is handed the record of each call.
        library: the one that the report was written with.
        vocabulary: by default the one that comes with the package.
    """
    library = library or read_library()
    reworded = reword(report, report.sentences, endpoint, on_call=on_call, vocabulary=vocabulary or read_vocabulary())
    sentences = tuple(apply_wording(sentence, reworded, report, library=library) for sentence in report.sentences)
    if sentences == report.sentences:
        refused = bool(reworded.faults) or not reworded.answered
        return report.model_copy(update={"wording": Wording.TEMPLATE_AFTER_REFUSAL if refused else Wording.TEMPLATE})
    return report.model_copy(update={"sentences": sentences, "wording": Wording.LANGUAGE_MODEL, "worded_by": endpoint.settings.model})


def reword(
    report: Report,
    sentences: Sequence[Sentence],
    endpoint: ChatEndpoint,
    *,
    on_call: OnCall,
    vocabulary: Vocabulary,
    question: Sequence[str] = (),
) -> Reworded:
    """Return accepted wordings of some sentences of a report; with a question, sentences may be left out."""
    aliases = Aliases.of(sentences)
    hidden = [aliases.hide(sentence) for sentence in sentences]
    known = frozenset({*(fact.id for fact in report.facts), *aliases.evidence.values()})
    messages = ask_to_reword(hidden, labels_of(report, aliases), audience=report.audience, vocabulary=vocabulary, question=question)
    outcome = Reworded()
    for attempt in range(1, ATTEMPTS + 1):
        begun, body = time.perf_counter(), endpoint.body(messages)
        try:
            answer = endpoint.complete(body)
        except GmmasError as error:
            on_call(_record(endpoint, question, body, "", attempt, Verdict.UNREACHABLE, (str(error.code),), begun))
            break
        outcome = _judge(answer, hidden, vocabulary, known, may_choose=bool(question))
        verdict = Verdict.ACCEPTED if not outcome.faults else Verdict.PARTLY if outcome.templates else Verdict.REFUSED
        codes = tuple(dict.fromkeys(fault.code.value for fault in outcome.faults))
        on_call(_record(endpoint, question, body, answer, attempt, verdict, codes, begun))
        if not outcome.faults:
            break
        messages = ask_again(messages[:2], answer, outcome.faults)
    return replace(outcome, templates=dict(aliases.reveal(alias, template) for alias, template in outcome.templates.items()))


def _judge(answer: str, sentences: Sequence[Sentence], vocabulary: Vocabulary, known: frozenset[str], *, may_choose: bool) -> Reworded:
    """Return what of an answer is accepted, and what is wrong with the rest."""
    rewrites, faults = read_answer(answer, sentences, may_choose=may_choose)
    templates = {}
    for sentence in sentences:
        if sentence.id in rewrites:
            rewrite = rewrites[sentence.id]
            found = find_faults(rewrite, sentence, vocabulary=vocabulary, known=known)
            faults += found
            if not found:
                templates[sentence.id] = " ".join(rewrite.text.split())
    if any(fault.code in DISTRUSTED for fault in faults):
        templates = {}
    return Reworded(templates, answered=True, faults=tuple(faults))


def apply_wording(sentence: Sentence, reworded: Reworded, report: Report, *, library: EvidenceLibrary) -> Sentence:
    """Return a sentence in its accepted wording, or as it was."""
    template = reworded.templates.get(sentence.id, sentence.template)
    if template == sentence.template:
        return sentence
    text = fill(template, facts={fact.id: fact for fact in report.facts}, evidence=library.by_id(), audience=report.audience)
    return Sentence.model_validate(sentence.model_dump() | {"template": template, "text": text})


def labels_of(report: Report, aliases: Aliases) -> dict[str, str]:
    """Return what the model is told of facts and evidence: phrases without values, and of evidence that it is some."""
    facts = {fact.id: outline_of(fact, audience=report.audience) for fact in report.facts}
    return facts | dict.fromkeys(aliases.evidence.values(), "a published statement")


def _record(
    endpoint: ChatEndpoint,
    question: Sequence[str],
    body: bytes,
    answer: str,
    attempt: int,
    verdict: Verdict,
    faults: tuple[str, ...],
    begun: float,
) -> LanguageCall:
    return LanguageCall(
        purpose="question" if question else "report",
        model=endpoint.settings.model,
        prompt_sha256=sha256_of(body),
        answer_sha256=sha256_of(answer) if answer else "",
        attempt=attempt,
        verdict=verdict,
        faults=faults,
        seconds=time.perf_counter() - begun,
    )
