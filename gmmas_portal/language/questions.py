"""Answers from the sentences of a report, and from nothing else.

1. A question that belongs to the care team is referred (referral.py).
2. The sentences of the report that share most with the question are found: shared words by their rarity (Spaerck Jones, Journal of
   Documentation 1972), and parts of the report that a word points to.
3. Where a language model is configured it may word them anew or leave some out, under the same verifier. It never sees the question itself.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Final

from gmmas_portal.evidence.library import EvidenceLibrary, read_library
from gmmas_portal.evidence.rules import BY_MGMT, EVERYDAY_CARE, TRIALS
from gmmas_portal.language.endpoint import ChatEndpoint, OnCall, sha256_of
from gmmas_portal.language.referral import ANSWERED_TO_CLINICIANS, TEXTS, Topic, find_topic, normalise
from gmmas_portal.language.rewriting import apply_wording, reword
from gmmas_portal.language.vocabulary import Vocabulary, read_vocabulary, split_words
from gmmas_portal.reports.report import PLACEHOLDER, Audience, Report, Section, Sentence, Wording
from gmmas_schema.base import FrozenModel
from gmmas_schema.case_record import NOTICE

LONGEST_QUESTION: Final = 500
LONGEST_LETTER: Final = 10 * LONGEST_QUESTION
"""Characters that are looked at for what has to be referred: an emergency may stand at the end of a long message."""
MOST_SENTENCES: Final = 3
LEAST_SCORE: Final = 1.0
POINTED: Final = 3.0
"""What it adds to a sentence's score that the question points to its part of the report."""
NOTHING_FOUND: Final = {
    Audience.PATIENT: "The report says nothing about this. Please ask your care team; if it is urgent, call your emergency number.",
    Audience.CLINICIAN: "The report and its evidence say nothing about this.",
}

POINTERS: Final = {
    Section.SIZE: "big large small size volume long wide diameter length measure grow number many core oedema swelling necrosis",
    Section.PLACE: "where side left right location lobe place middle midline part region",
    Section.PREDICTED: "kind type cancer benign malignant glioma idh codeletion marker gene predict subtype pattern",
    Section.TISSUE: "tissue biopsy kind type cancer benign malignant glioma laboratory grade gene idh mgmt diagnosis called",
    Section.OPEN: "open unknown unsure missing why unclear uncertain mgmt abstain",
    Section.EVIDENCE: "guideline treatment therapy study evidence source survival trial published general literature prognosis outcome",
    Section.IMAGES: "picture image scan mri sequence accuracy accurate reliable trust good contrast flair test",
    Section.ORIGIN: "program software model computer ai version hospital made who device signed",
}

_EMPTY: Final = frozenset(
    split_words(
        "the and for are was were that this with from what how does did has have had not can you your our its they them there here then"
        " than over exactly still where which when who whose why"
    )
)
"""Words of a question that say nothing about what it asks for; some of them point to a part of the report all the same."""


class AnswerKind(StrEnum):
    """What an answer is."""

    FOUND = "found"
    REFERRED = "referred"
    NOTHING = "nothing"


class Answer(FrozenModel):
    """The answer to one question.

    Attributes:
        lead: fixed text before the sentences: a referral, or that nothing was found; empty otherwise.
        sentences: of the report, with the facts and evidence they rest on.
        topic: for which the question was referred.
        question_sha256: of the question as it was asked.
    """

    kind: AnswerKind
    lead: str = ""
    sentences: tuple[Sentence, ...] = ()
    topic: Topic | None = None
    wording: Wording = Wording.TEMPLATE
    question_sha256: str
    notice: str = NOTICE

    def text(self) -> str:
        """Return the answer as it is read."""
        return " ".join(part for part in (self.lead, *(sentence.text for sentence in self.sentences)) if part)


def answer_question(
    question: str,
    report: Report,
    *,
    endpoint: ChatEndpoint | None = None,
    on_call: OnCall | None = None,
    library: EvidenceLibrary | None = None,
    vocabulary: Vocabulary | None = None,
) -> Answer:
    """Answer a question from a report; its audience is who asks.

    Args:
        question: as it was asked; its first LONGEST_QUESTION characters are answered.
        report: the version that the asker may read.
        endpoint: of a language model; None answers with the report's own sentences.
        on_call: is handed the record of each call.
        library: the one that the report was written with.
        vocabulary: by default the one that comes with the package.
    """
    asked, digest = question[:LONGEST_QUESTION], sha256_of(question)
    topic = find_topic(question[:LONGEST_LETTER])
    lead = "" if topic is None else TEXTS[report.audience][topic]
    if topic is not None and not (report.audience is Audience.CLINICIAN and topic in ANSWERED_TO_CLINICIANS):
        return Answer(kind=AnswerKind.REFERRED, lead=lead, topic=topic, question_sha256=digest)
    found = find_sentences(asked, report)
    if not found:
        kind = AnswerKind.REFERRED if topic else AnswerKind.NOTHING
        return Answer(kind=kind, lead=lead or NOTHING_FOUND[report.audience], topic=topic, question_sha256=digest)
    wording = Wording.TEMPLATE
    if endpoint is not None:
        found, wording = _reword(
            asked, found, report, endpoint, on_call or (lambda _: None), library or read_library(), vocabulary or read_vocabulary()
        )
    return Answer(
        kind=AnswerKind.REFERRED if topic else AnswerKind.FOUND,
        lead=lead,
        sentences=found,
        topic=topic,
        wording=wording,
        question_sha256=digest,
    )


def find_sentences(question: str, report: Report) -> tuple[Sentence, ...]:
    """Return the sentences of a report that share most with a question, in the report's order; none where they share too little."""
    asked = normalise(question)
    words, pointing = set(_stems(asked)), {*split_words(asked), *_stems(asked)}
    texts = {sentence.id: set(_stems(f"{sentence.text} {' '.join(sentence.facts)}".lower())) for sentence in report.sentences}
    frequency = Counter(stem for stems in texts.values() for stem in stems)
    sections = {section for section, pointers in POINTERS.items() if pointing & {*split_words(pointers), *_stems(pointers)}}
    scores = {
        sentence.id: sum(math.log(1 + len(texts) / frequency[stem]) for stem in words & texts[sentence.id])
        + POINTED * (sentence.section in sections)
        for sentence in report.sentences
    }
    best = max(scores.values(), default=0.0)
    if best < LEAST_SCORE:
        return ()
    likely = sorted((name for name, score in scores.items() if score >= max(LEAST_SCORE, best / 2)), key=lambda name: -scores[name])
    chosen = set(likely[:MOST_SENTENCES])
    return tuple(sentence for sentence in report.sentences if sentence.id in chosen | companions_of(chosen, report))


def companions_of(names: Collection[str], report: Report) -> set[str]:
    """Return the sentences that these are never told without, as far as the report has them.

    Evidence goes with the sentences that it is no forecast and that the care team decides, figures of trials with those of everyday care
    (gmmas_portal.evidence.rules), a prediction with what tissue says instead, and lengths with the sentence that they are those of the
    largest part.
    """
    quoted = any(sentence.id in names and sentence.section is Section.EVIDENCE for sentence in report.sentences)
    companions = {"evidence.groups", "evidence.team"} if quoted else set[str]()
    if {*TRIALS, *BY_MGMT} & set(names):
        companions |= {*EVERYDAY_CARE}
    companions |= {f"{name}_differs" for name in names if name.startswith("markers.")}
    if "measures.diameters" in names:
        companions |= {"measures.largest", "measures.foci"}
    return companions


def _reword(
    question: str,
    found: Sequence[Sentence],
    report: Report,
    endpoint: ChatEndpoint,
    on_call: OnCall,
    library: EvidenceLibrary,
    vocabulary: Vocabulary,
) -> tuple[tuple[Sentence, ...], Wording]:
    """Return the sentences as the model worded or chose them; as they were where that is refused."""
    words = known_words(question, found, vocabulary)
    reworded = reword(report, found, endpoint, on_call=on_call, vocabulary=vocabulary, question=words or ("question",))
    if not reworded.templates or reworded.faults:
        return tuple(found), Wording.TEMPLATE_AFTER_REFUSAL
    keeps = {*reworded.templates, *companions_of(reworded.templates, report)}
    chosen = tuple(apply_wording(sentence, reworded, report, library=library) for sentence in found if sentence.id in keeps)
    return chosen, Wording.LANGUAGE_MODEL


def known_words(question: str, sentences: Sequence[Sentence], vocabulary: Vocabulary) -> tuple[str, ...]:
    """Return the words of a question that may be sent: neutral ones, and those of the sentences' templates and labels of facts.

    A name, a number or an instruction does not get through.
    """
    own = {word for sentence in sentences for word in split_words(PLACEHOLDER.sub(" ", sentence.template))}
    asked = dict.fromkeys(split_words(normalise(question)))
    return tuple(word for word in asked if word in vocabulary.neutral or word in own)


def _stems(text: str) -> list[str]:
    """Return the words of a text without common endings, those left out that are short or say nothing."""
    words = (word for word in re.findall(r"[a-z0-9]+", text) if len(word) > 2 and word not in _EMPTY)
    return [re.sub(r"(ies|ing|ed|es|s|e)$", "", word) if len(word) > 4 else word.removesuffix("s") for word in words]
