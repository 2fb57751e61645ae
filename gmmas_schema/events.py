"""What the coordinator notes of a run, event by event (server.events keeps them)."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import ReasonCode


class EventKind(StrEnum):
    """What happened."""

    RUN_STARTED = "run_started"
    RUN_RESUMED = "run_resumed"
    WAITING_FOR_SITES = "waiting_for_sites"
    SITE_JOINED = "site_joined"
    SITE_LEFT = "site_left"
    SITE_REFUSED = "site_refused"
    ROUND_STARTED = "round_started"
    REPLY_ACCEPTED = "reply_accepted"
    REPLY_REFUSED = "reply_refused"
    REPLY_MISSING = "reply_missing"
    REPLY_DISMISSED = "reply_dismissed"
    SUM_PHASE = "sum_phase"
    SUM_OPENED = "sum_opened"
    BUDGET_SPENT = "budget_spent"
    ROUND_FINISHED = "round_finished"
    ROUND_FAILED = "round_failed"
    MODEL_UNREADABLE = "model_unreadable"
    MODEL_REGISTERED = "model_registered"
    MODEL_VALIDATED = "model_validated"
    MODEL_PROMOTED = "model_promoted"
    RUN_FINISHED = "run_finished"
    RUN_FAILED = "run_failed"


class Event(FrozenModel):
    """One event; `detail` holds plain JSON values."""

    time: float = Field(description="seconds since 1970-01-01 UTC")
    kind: EventKind
    round: int | None = None
    site: str | None = None
    code: ReasonCode | None = None
    message: str = ""
    detail: dict[str, Any] = {}
