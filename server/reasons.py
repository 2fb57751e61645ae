"""What a reason code means to the people at the coordinator, and what they can do. A site tells nothing but the code."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from gmmas_schema.errors import ReasonCode


@dataclass(frozen=True)
class Reason:
    """One code in words.

    Attributes:
        meaning: what happened.
        remedy: what to do about it, and who.
    """

    meaning: str
    remedy: str


_ASK_DATA: Final = "Ask the hospital to run `gmmas site check`: its report names the cases. They stay there."
_UNKNOWN: Final = Reason(
    "something went wrong that this version has no words for", "Ask the hospital for `gmmas site status` and its logs."
)

REASONS: Final = MappingProxyType(
    {
        ReasonCode.CONFIG: Reason("a configuration is wrong", "Read the message; mend site.yaml there, or federation.yaml here."),
        ReasonCode.DATA: Reason("the hospital's cohort cannot be used", _ASK_DATA),
        ReasonCode.DATA_UNREADABLE: Reason("a scan cannot be read", _ASK_DATA),
        ReasonCode.DATA_GRID: Reason("scans of one case do not lie on one grid", _ASK_DATA),
        ReasonCode.DATA_NOT_FINITE: Reason("a scan holds values that are no numbers", _ASK_DATA),
        ReasonCode.DATA_EMPTY: Reason("no case is left that could be used", _ASK_DATA),
        ReasonCode.DATA_LABEL: Reason("a segmentation holds labels of another convention", _ASK_DATA),
        ReasonCode.DATA_TABLE: Reason("the table of molecular labels cannot be read", _ASK_DATA),
        ReasonCode.TRUST: Reason(
            "a key or a certificate is missing, expired or not the enrolled one",
            "See `gmmas server sites`; enrol the hospital's key again.",
        ),
        ReasonCode.MODEL: Reason("weights do not fit the model", "Both sides must run the same version of gmmas-fed."),
        ReasonCode.MODEL_DEFINITION: Reason(
            "the hospital builds another network from this configuration", "Both sides must run the same version of gmmas-fed."
        ),
        ReasonCode.PROTOCOL: Reason("a message was not of the expected form", "Both sides must run the same version of gmmas-fed."),
        ReasonCode.PROTOCOL_VERSION: Reason("the hospital speaks another version of the protocol", "Let the older side upgrade gmmas-fed."),
        ReasonCode.REPLY_REFUSED: Reason(
            "the reply did not pass the coordinator's checks",
            "Read the message. Once may be chance; if it stays, compare the hospital's labels and preprocessing with the others'.",
        ),
        ReasonCode.MODEL_NEEDED: Reason(
            "the hospital no longer held the model and was sent it again", "Nothing is to be done; often means restarts there."
        ),
        ReasonCode.QUORUM: Reason(
            "too few hospitals were there, or too few of them answered",
            "See who is offline; resume the run when they are back, or lower `quorum` in a new run.",
        ),
        ReasonCode.DEADLINE: Reason(
            "no answer came in time",
            "If it stays: the hospital's node is off, its line is slow, or `quorum.round_deadline_s` is short for its computer.",
        ),
        ReasonCode.TRAINER: Reason(
            "training failed at the hospital", "Ask the hospital for the trainer's log (`gmmas site status` names it)."
        ),
        ReasonCode.TRAINER_UNREACHABLE: Reason(
            "the hospital's node runs but its trainer does not", "Its supervisor starts it again; if it stays, ask for `gmmas site status`."
        ),
        ReasonCode.PAUSED: Reason(
            "the hospital has paused its node", "It takes part again after `gmmas site resume`; that is the hospital's to decide."
        ),
        ReasonCode.POLICY_TASK: Reason(
            "the hospital's policy does not allow this kind of request",
            "Agree with the hospital on `policy.tasks` and `policy.heads` there.",
        ),
        ReasonCode.POLICY_HOURS: Reason(
            "it is outside the hours that the hospital allows", "It is asked again, and takes part when its hours begin."
        ),
        ReasonCode.POLICY_ROUNDS: Reason(
            "the hospital's rounds of the day are used up", "It takes part again after its midnight, or once it allows more."
        ),
        ReasonCode.POLICY_COHORT: Reason(
            "fewer patients than the hospital answers for", "Do without the hospital, or without this question."
        ),
        ReasonCode.POLICY_MODEL: Reason("the model is larger than the hospital allows", "Use a smaller network or grid in a new run."),
        ReasonCode.POLICY_PRIVACY: Reason(
            "the run lacks a safeguard that the hospital requires",
            "Set `secure` or `privacy` in federation.yaml of a new run as the hospital asks.",
        ),
        ReasonCode.AUDIT_LOG: Reason(
            "the hospital's node cannot keep its record of requests, so it answers none",
            "Ask the hospital for `gmmas site audit verify`, and whether its disk is full.",
        ),
        ReasonCode.CANCELLED: Reason("the work was stopped before its end", "Nothing is to be done, if somebody here stopped the run."),
        ReasonCode.OUT_OF_MEMORY: Reason(
            "the hospital's computer ran out of memory", "A smaller `training.batch_size` or network, or more memory there."
        ),
        ReasonCode.DISK: Reason(
            "a disk is full or cannot be written",
            "Make room where the message says, and resume; if it names a hospital, ask it for `gmmas site check`.",
        ),
        ReasonCode.PROCESS: Reason(
            "a process ended unexpectedly", "It is started again; if it stays, read the log that the message names."
        ),
        ReasonCode.INTERNAL: Reason("a fault of gmmas-fed itself", "Please report it, with the log of the side where it happened."),
    }
)


def reason_of(code: ReasonCode) -> Reason:
    """Return a code in words."""
    return REASONS.get(code, _UNKNOWN)
