"""What the language model is told: the rules, the allowed words, sentences as templates, and the phrases that replace their placeholders.

No value, no name, no pseudonym and no identifier is part of it; of a question only those words that the vocabulary or the sentences know.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Final

from gmmas_portal.language.endpoint import Message
from gmmas_portal.language.verifier import Fault
from gmmas_portal.language.vocabulary import Vocabulary
from gmmas_portal.reports.report import PLACEHOLDER, Audience, Sentence

RULES: Final = """You word sentences of a medical report anew. You do not add, drop, judge or explain anything.
Answer with JSON alone: {"sentences": [{"id": "...", "text": "...", "cites": ["..."]}]}
- One entry for each given sentence, with its id and its cites unchanged.
- Each text is one English sentence with one full stop at its end, about as long as the given one.
- Copy every placeholder such as {{volume.wt}} exactly, as often as it is given. What `labels` says of it, with its value, replaces it.
- Write no figures and no number words, no markup, no addresses, no quotation marks.
- Keep every not, no, left open, alone, consistent, required, tissue, exactly, patients, person and forecast that is there; add none.
- Between two placeholders write only commas, "and", "as well as", "also" or "with".
- Name no treatment, give no advice, state no certainty, no change and no outlook.
- Use only words of the given sentence and these: """

READERS: Final = {
    Audience.CLINICIAN: "The reader is a physician.",
    Audience.PATIENT: "The reader is a patient: use short and plain sentences.",
}


def ask_to_reword(
    sentences: Sequence[Sentence], labels: Mapping[str, str], *, audience: Audience, vocabulary: Vocabulary, question: Sequence[str] = ()
) -> list[Message]:
    """Return the messages that ask for other words.

    Args:
        sentences: to be worded anew.
        labels: of facts and evidence: phrases without values.
        audience: who will read them.
        vocabulary: its neutral words are named.
        question: known words of a question; sentences that do not answer it may then be left out.
    """
    chosen = "" if not question else "\nSentences that do not help with the question may be left out, but not all of them."
    placed = {name for sentence in sentences for name in PLACEHOLDER.findall(sentence.template)}
    material = {
        "labels": {name: labels[name] for name in sorted(placed)},
        "sentences": [{"id": sentence.id, "text": sentence.template, "cites": list(sentence.evidence)} for sentence in sentences],
        **({"question words": list(question)} if question else {}),
    }
    return [
        {"role": "system", "content": f"{RULES}{' '.join(sorted(vocabulary.neutral))}.\n{READERS[audience]}{chosen}"},
        {"role": "user", "content": json.dumps(material, ensure_ascii=False)},
    ]


def ask_again(messages: Sequence[Message], answer: str, faults: Sequence[Fault]) -> list[Message]:
    """Return the messages of the second try: the same, the first answer, and what was wrong with it."""
    reasons = "\n".join(f"- {fault.sentence or 'the answer'}: {fault.detail}" for fault in faults)
    return [
        *messages,
        {"role": "assistant", "content": answer},
        {"role": "user", "content": f"Not accepted:\n{reasons}\nAnswer again with the whole JSON, all sentences."},
    ]
