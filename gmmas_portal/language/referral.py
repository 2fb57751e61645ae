"""Questions that a program must not answer: recognised by fixed patterns, before anything else looks at them, and referred.

Emergencies come first. What is recognised wrongly costs a useful answer; what is missed finds only the sentences of the report, which
advise nothing. Physicians are referred less: figures on outcome stand in their report.
"""

import re
import unicodedata
from enum import StrEnum
from typing import Final

from gmmas_portal.reports.report import Audience


class Topic(StrEnum):
    """What a referred question is about."""

    EMERGENCY = "emergency"
    DISTRESS = "distress"
    STOPPING = "stopping-medicine"
    DOSE = "medicine"
    LIFETIME = "lifetime"
    DECISION = "decision"
    SYMPTOM = "symptom"
    CHANGE = "change"


_MEDICINE: Final = (
    r"(medic\w+|tablets?|pills?|drugs?|steroids?|cortisone|dexa\w*|temo\w*|tmz|pcv|keppra|levetiracetam|chemo\w*|radio\w*|radiation|treatments?|therap\w+"
    r"|vorasidenib|lomustine|procarbazine|vincristine|anticonvulsants?|infusions?)"
)
_PATTERNS: Final = {
    Topic.DISTRESS: (
        r"\b(suicid\w*|kill myself|end my life|end it all|want to die|(don't|do not|no longer) want to live|hurt myself|harm myself)\b",
    ),
    Topic.EMERGENCY: (
        r"\b(emergenc\w+|ambulance|seizures?|convuls\w+|fits?\b.*\b(having|now)|unconscious|passed out|fainted|collapsed|coma)\b",
        r"\b(sudden(ly)?|worst|terrible|unbearable|severe)\b.*\b(headaches?|weak\w*|numb\w*|vision|blind|speech|speak|confus\w+|vomit\w*|paraly\w+)\b",
        r"\b(can't|cannot|can not|unable to)\b.*\b(breathe|speak|move|see|wake|swallow|feel my)\b",
        r"\b(vomiting|throwing up)\b.*\b(blood|constant\w*|again and again|won't stop)\b",
        r"\b(head(ache)?s?)\b.*\b(vomit\w*|throw\w* up|terribl\w+|unbearabl\w+|sudden\w*)\b",
        r"\b(vomit\w*|terribl\w+|sudden\w*)\b.*\bhead(ache)?s?\b",
        r"\b(high )?fever\b.*\bchemo\w*|\bchest pain\b|\bbleeding\b|\bheadaches?\b.*\b(getting worse|unbearable)\b",
    ),
    Topic.STOPPING: (
        rf"\b(stop\w*|quit\w*|skip\w*|paus\w+|interrupt\w*|discontinu\w+|leave out|come off|wean\w*|taper\w*|refus\w+)\b.*\b{_MEDICINE}\b",
        rf"\b{_MEDICINE}\b.*\b(stop\w*|quit\w*|skip\w*|paus\w+|interrupt\w*|discontinu\w+|leave out|come off|wean\w*|taper\w*)\b",
    ),
    Topic.DOSE: (
        r"\b(dos(e|es|age|ing)|milligrams?|mg|mcg|overdos\w+|side[ -]effects?|interactions?)\b",
        rf"\bhow (much|many|often)\b.*\b(take|taking|{_MEDICINE})",
        rf"\b(double|halve|increase|reduce|lower|raise|more|less)\b.*\b{_MEDICINE}\b",
    ),
    Topic.LIFETIME: (
        r"\bhow (long|much time|many (years|months|weeks|days|birthdays))\b(?! (is|are) (it\b|the (tumou?r|area|outline|diameter|part)))",
        r"\b(life expectancy|expectancy|prognos\w+|surviv\w+|terminal|time (left|remaining)|left to live|outlook)\b",
        r"\b(die|dying|death|dead|deadly|fatal|kill(s|ed)? (me|you|him|her)|lifespan|cur(e|ed|able)|incurable)\b",
        r"\bhow soon\b|\b(gonna|going to|ever) (make it|live|recover|be (ok|okay|fine|well|healthy))\b",
        r"\bwill i\b.*\b(live|see|be alive|make it|be (here|around|there|ok|okay|fine|well|healthy)|recover|get (better|well))\b",
        r"\b(chances?|odds|likelihood)\b",
    ),
    Topic.DECISION: (
        r"\b(should|shall|ought|must|may|can|could) (i|we|my \w+|he|she|they)\b",
        r"\b(do|does) (i|he|she|we) (need|have to)\b",
        r"\bwhat (would|should|do) you (do|recommend|suggest|advise|think)\b|\b(recommend|advise|advice)\b",
        r"\b(best|better|right) (treatment|therapy|option|choice|hospital|doctor|thing)\b",
        rf"\b(which|what)\b.*\b{_MEDICINE}\b.*\b(best|better|right|take|get|need|start|have)\b",
        r"\bis it (safe|ok|okay|fine|allowed)\b|\b(alternative|homeopath\w+|herbal|cannabis|diet)\b",
    ),
    Topic.SYMPTOM: (
        r"\b(i|he|she|my \w+) (feels?|am|is|was|has|have|had|gets?|got|keeps?) .*\b(sick|pains?|tired|weak\w*|ache\w*|worse|confused)\b",
        r"\b(hurts?|headaches?|dizz\w+|nause\w+|vomit\w*|numb\w*|tingl\w+|symptoms?)\b",
    ),
    Topic.CHANGE: (
        r"\b(bigger|smaller|larger|grown|grew|growing|grow|shrunk|shrinking|changed?|worse|better)\b",
        r"\b(progress\w*|recur\w*|c[ao]me back|spread\w*)\b",
        r"\b(last|previous|earlier|next|old) (time|scan|mri|picture|examination|report)s?\b",
    ),
}

TEXTS: Final = {
    Audience.PATIENT: {
        Topic.EMERGENCY: "This may be urgent. Call your local emergency number now. This program cannot help in an emergency.",
        Topic.DISTRESS: "You do not have to carry this alone. Please call a crisis line, or speak to somebody near you, now.",
        Topic.STOPPING: "Please do not change or stop any medicine because of this program. Ask your care team or pharmacist first.",
        Topic.DOSE: "This program says nothing about doses and effects of medicines. Please ask your care team or pharmacist.",
        Topic.LIFETIME: "No program can say what time lies ahead. Your care team can talk with you about it, as far as you wish.",
        Topic.DECISION: "What is right for you is for you and your care team to decide; this program gives no advice.",
        Topic.SYMPTOM: "This program cannot judge how you feel. Please tell your care team; if it is severe, call your emergency number.",
        Topic.CHANGE: "This report is about one examination. Whether something has changed, your doctors can tell you.",
    },
    Audience.CLINICIAN: {
        Topic.EMERGENCY: "This program cannot help in an emergency. Follow the emergency procedures of your hospital.",
        Topic.DISTRESS: "Follow your hospital's procedure for patients in crisis; this program cannot help.",
        Topic.STOPPING: "This program does not advise on stopping medicines.",
        Topic.DOSE: "This program says nothing about doses and effects of medicines.",
        Topic.LIFETIME: "This program makes no forecast for a person; published figures on groups stand in the report.",
        Topic.DECISION: "This program gives no advice on treatment; the report names what guidelines discuss.",
        Topic.SYMPTOM: "This program does not judge symptoms.",
        Topic.CHANGE: "This report is about one examination; volumes over time stand in the timeline, without a judgement.",
    },
}

ANSWERED_TO_CLINICIANS: Final = frozenset({Topic.LIFETIME, Topic.DECISION})
"""Topics on which a physician gets the sentences of the report besides."""


def normalise(question: str) -> str:
    """Return a question in lower case and plain letters: compatibility forms resolved, invisible characters and line ends gone."""
    plain = unicodedata.normalize("NFKC", question.replace("\u2019", "'"))
    return " ".join("".join(c for c in plain if c.isspace() or unicodedata.category(c) not in ("Cf", "Cc")).lower().split())


def find_topic(question: str) -> Topic | None:
    """Return the topic for which a question is referred; None where it may be answered."""
    text = normalise(question)
    return next((topic for topic, patterns in _PATTERNS.items() if any(re.search(pattern, text) for pattern in patterns)), None)
