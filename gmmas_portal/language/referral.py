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
    OTHER_PERSON = "other-person"


_MEDICINE: Final = (
    r"(medic\w+|tablets?|pills?|capsules?|drugs?|steroids?|cortisone|dexa\w*|temo\w*|tmz|pcv|keppra|levetiracetam|chemo\w*|radio(?!log)\w*|radiation"
    r"|treatments?|therap\w+|vorasidenib|lomustine|procarbazine|vincristine|anticonvulsants?|infusions?)"
)
_DISABLED: Final = r"(cant|cannot|can not|could not|couldnt|unable to|trouble|difficult\w*)"
_NOT: Final = r"(not|wont|isnt|doesnt|wasnt|stopped|stops|hardly|barely)"
_PATTERNS: Final = {
    Topic.DISTRESS: (
        r"\bsuicid\w*|\b(kill|hurt|harm|cut|poison)(ing)? (my ?self|him ?self|her ?self|themselves)\b|\blethal\b",
        r"\b(end|ending|take|taking) (my|his|her|their) (own )?(life|lives)\b|\b(end|ending) (it all|it|everything|all this)\b",
        r"\b(want|wants|wanted|wish\w*|rather|ready|better|hope) (to |i |he |she |was |were |be |just |could )*(die|dead|death)\b",
        r"\b(dont|do not|no longer|doesnt|does not) (want|wish|like) (to )?(live|living|be alive|be here|wake up|go on|exist)\b",
        r"\b(cant|cannot|can not) (go on|cope|take (it|this) any ?more)\b|\bbetter off without me\b|\bhopeless\b",
        r"\bno (reason|point|use|sense) (in |to )?(live|living|going on|go on)\b|\bnot worth living\b",
        r"\bhow (much|many)\b.*\b(kill (me|my ?self)|to die)\b|\btake all (my|the|of my|of the) (pills|tablets|medic\w+)\b",
        r"\bwant to (hurt|kill|harm) (my|him|her|them|some\w+)\b",
    ),
    Topic.EMERGENCY: (
        r"\b(emergenc\w+|ambulance|seizures?|seizing|convuls\w+|unconscious\w*|pass(ed|ing|es)? out|faint(ed|ing|s)?|collaps\w+|coma)\b",
        r"\bfits?\b.*\b(having|now)\b|\b(had|having|has|have|another|getting) (a |\w+ )?fits?\b(?! for)",
        r"\b(lost|loses|losing) consciousness\b",
        r"\b(sudden(ly)?|worst|terrible|unbearable|severe)\b.*\b(headaches?|weak\w*|numb\w*|vision|blind|speech|speak|confus\w+|vomit\w*|paraly\w+)\b",
        rf"\b{_DISABLED}\b.*\b(breath\w*|speak\w*|talk\w*|mov(e|ing)|see|seeing|wak\w+|swallow\w*|feel(ing)? my)\b",
        rf"\b{_NOT}\b.{{0,20}}\b(breath\w*|wak(e|ing)|respond\w*)\b|\bshort(ness)? of breath\b",
        r"\bface\b.{0,30}\b(droop\w*|hang\w*|lopsided|crooked|paraly\w+|numb)\b|\bslurr\w+|\bdouble vision\b|\bpupils?\b",
        r"\b(went|gone|goes|going|turned|became) (\w+ )?(numb|limp|blind|black|dark|paraly\w+)\b|\bthunderclap\b|\bstiff neck\b",
        r"\b(hit|bang\w*|injur\w+) (my|his|her) head\b",
        r"\b(wound|scar|incision|stitches)\b.*\b(leak\w*|ooz\w*|open(ed|s|ing)?|pus|swell\w*|swollen|burst)\b",
        r"\b(took|taken|swallowed)\b.*\btoo (much|many)\b",
        rf"\b(took|taken|swallowed)\b.*\b(twice|all|whole|double)\b.*\b({_MEDICINE}|box|pack|bottle)\b",
        r"\boverdosed\b|\btook an overdose\b",
        r"\b(vomiting|throwing up)\b.*\b(blood|constant\w*|again and again|wont stop)\b",
        r"\b(head(ache)?s?)\b.*\b(vomit\w*|throw\w* up|terribl\w+|unbearabl\w+|sudden\w*)\b",
        r"\b(vomit\w*|terribl\w+|sudden\w*)\b.*\bhead(ache)?s?\b",
        r"\bfever\b.*\b(chemo\w*|operation|surgery|wound)\b|\b(chemo\w*|operation|surgery|wound)\b.*\bfever\b",
        r"\bchest pain\b|\bbleeding\b|\bheadaches?\b.*\b(getting worse|unbearable)\b",
    ),
    Topic.STOPPING: (
        rf"\b(stop\w*|quit\w*|skip\w*|paus\w+|interrupt\w*|discontinu\w+|leave out|come off|wean\w*|taper\w*|refus\w+)\b.*\b{_MEDICINE}\b",
        rf"\b{_MEDICINE}\b.*\b(stop\w*|quit\w*|skip\w*|paus\w+|interrupt\w*|discontinu\w+|leave out|come off|wean\w*|taper\w*)\b",
        rf"\b(forgot\w*|missed|still need|dont want|do not want)\b.*\b{_MEDICINE}\b",
    ),
    Topic.DOSE: (
        r"\b(dos(e|es|age|ing)|milligrams?|mg|mcg|overdos\w+|side[ -]effects?|interactions?)\b|\d ?(mg|mcg)\b",
        rf"\bhow (much|many|often)\b.*\b(take|taking|{_MEDICINE})\b",
        rf"\b(double|halve|increase|reduce|lower|raise|more|less)\b.*\b{_MEDICINE}\b",
        rf"\btoo (much|many|little|few)\b.*\b{_MEDICINE}\b|\b{_MEDICINE}\b.*\btoo (much|many|little|few)\b",
    ),
    Topic.LIFETIME: (
        r"\bhow (long|much time|many (years|months|weeks|days|birthdays))\b(?! (is|are) (it\b|the (tumou?r|area|outline|diameter|part)))",
        r"\b(life expectancy|expectancy|prognos\w+|surviv\w+|terminal|time (left|remaining)|left to live|outlook)\b",
        r"\b(die|dying|death|dead|deadly|fatal|kill(s|ed)? (me|you|him|her)|lifespan|cur(e|ed|able)|incurable|heal(ed|ing)?)\b",
        r"\bhow soon\b|\b(gonna|going to|ever) (make it|live|recover|be (ok|okay|fine|well|healthy))\b",
        r"\bwill i\b.*\b(live|see|be alive|make it|be (here|around|there|ok|okay|fine|well|healthy)|recover|get (better|well))\b",
        r"\b(chances?|odds|likelihood)\b|\b(any|no|still) hope\b|\bwhat (happens|will happen) (next|to me|now)\b",
        r"\bhow (bad|serious|severe|dangerous|advanced|aggressive)\b",
        r"\b(is|are) (it|this|that|they|the tumou?r) (\w+ )?(bad|serious|dangerous|aggressive)\b",
    ),
    Topic.DECISION: (
        r"\b(should|shall|ought|must|may|can|could) (i|we|my \w+|he|she|they)\b",
        r"\b(do|does) (i|he|she|we) (need|have to)\b|\b(am|are|is) (i|we|he|she) allowed\b",
        r"\bwhat (would|should|do) you (do|recommend|suggest|advise|think)\b|\b(recommend|advise|advice)\b|\bnext steps?\b",
        r"\b(best|better|right) (treatment|therapy|option|choice|hospital|doctor|thing)\b|\b(second opinion|another doctor)\b",
        r"\b(doctors?|surgeon|oncologist|radiologist|hospital)\b.*\b(wrong|mistaken?|mistakes?)\b|\byou agree\b",
        rf"\b(which|what)\b.*\b{_MEDICINE}\b.*\b(best|better|right|take|get|need|start|have)\b",
        r"\b(in)?operable\b|\b(can|could|will) (it|this|the tumou?r) be (removed|operated|taken out|cut out)\b",
        r"\b(surgery|operation)\b.*\b(possible|necessary|needed|dangerous|safe|risk\w*)\b",
        r"\btrials?\b.*\b(for me|join|enrol\w*|eligible|take part)\b|\b(join|enrol\w*|eligible|take part)\b.*\btrials?\b",
        r"\bis it (safe|ok|okay|fine|allowed)\b",
        r"\b(alternative|homeopath\w+|herbal|cannabis|diet|sugar|food|eat(ing)?|alcohol|smok(e|ing)|pregnan\w+)\b",
    ),
    Topic.SYMPTOM: (
        r"\b(i|he|she|my \w+) (feels?|am|is|was|has|have|had|gets?|got|keeps?) .*\b(sick|pains?|tired|weak\w*|ache\w*|worse|confused)\b",
        r"\b(hurts?|headaches?|dizz\w+|nause\w+|vomit\w*|numb\w*|tingl\w+|symptoms?|fever|forget\w*)\b",
        r"\b(i|he|she) (am|is|gets?|became|feels?) (\w+ )?(aggressive|angry|scared|afraid|anxious|worried|depressed|exhausted|sad)\b",
        r"\bso (tired|weak)\b",
    ),
    Topic.CHANGE: (
        r"\b(bigger|smaller|larger|grown|grew|growing|grow|shr[aiu]nk(s|ing)?|changed?|worse|better|stable)\b",
        r"\b(progress\w*|recur\w*|c[ao]me back|spread\w*)\b",
        r"\bcompar\w+ (with|to) (my|the|his|her|an?) (\w+ )?(scans?|mri|report) (from|of|in)\b",
        r"\b(last|previous|earlier|next|old) (time|scan|mri|picture|examination|report)s?\b",
        rf"\b{_MEDICINE}\b.*\b(work|works|working|worked)\b",
    ),
    Topic.OTHER_PERSON: (r"\b(other|another|different) (patients?|persons?|cases?)\b|\b(bed|room|ward) (number )?\d+\b",),
}

_APOSTROPHES: Final = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4`", "'"))

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
        Topic.OTHER_PERSON: "This program speaks only of the report that is open, and of no other person.",
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
        Topic.OTHER_PERSON: "This program speaks only of the report that is open, and of no other case.",
    },
}

ANSWERED_TO_CLINICIANS: Final = frozenset({Topic.LIFETIME, Topic.DECISION})
"""Topics on which a physician gets the sentences of the report besides."""


def normalise(question: str) -> str:
    """Return a question in lower case and plain letters: compatibility forms resolved, invisible characters and line ends gone."""
    plain = unicodedata.normalize("NFKC", question.translate(_APOSTROPHES))
    return " ".join("".join(c for c in plain if c.isspace() or unicodedata.category(c) not in ("Cf", "Cc")).lower().split())


def find_topic(question: str) -> Topic | None:
    """Return the topic for which a question is referred; None where it may be answered."""
    text = normalise(question).replace("'", "")  # who is in need writes `dont` as often as `don't`
    return next((topic for topic, patterns in _PATTERNS.items() if any(re.search(pattern, text) for pattern in patterns)), None)
