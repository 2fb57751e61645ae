"""Events of a run as the coordinator writes them."""

from gmmas_schema.errors import ReasonCode
from gmmas_schema.events import Event, EventKind

START = 1_800_000_000.0


def event(
    kind: EventKind,
    at: float,
    *,
    number: int | None = None,
    site: str | None = None,
    code: ReasonCode | None = None,
    message: str = "",
    **detail: object,
) -> Event:
    return Event(time=START + at, kind=kind, round=number, site=site, code=code, message=message, detail=detail)


def joined(site: str, *modalities: str, at: float = 1.0) -> Event:
    return event(EventKind.SITE_JOINED, at, site=site, modalities=list(modalities), cases=20, labelled={"segmentation": 20})


def accepted(site: str, number: int, at: float) -> Event:
    detail = {"bytes_down": 4_000_000, "bytes_up": 3_500_000, "round_trip_s": 12.5, "action": "train", "split": "validation"}
    return event(EventKind.REPLY_ACCEPTED, at, number=number, site=site, **detail)


def finished(number: int, at: float, *, seconds: float = 15.0, **metrics: float) -> Event:
    validation = {"model_round": number - 1, "split": "validation", "metrics": metrics, "score": 0.5}
    coordinator = {"seconds": {"ask": seconds}, "cpu_seconds": 1.5, "peak_memory_mib": 300}
    return event(EventKind.ROUND_FINISHED, at, number=number, seconds=seconds, validation=validation, coordinator=coordinator)


def whole_run() -> list[Event]:
    """Two rounds of three; one site misses the second."""
    return [
        event(EventKind.RUN_STARTED, 0, number=0, run="demo-1234", name="demo", rounds=3),
        event(EventKind.WAITING_FOR_SITES, 0.5, joined=0, needed=2),
        joined("north", "t1", "t1ce", "t2", "flair"),
        joined("east", "t2", "flair"),
        event(EventKind.ROUND_STARTED, 2, number=1, attempt=1, sites=["north", "east"]),
        accepted("east", 1, 10),
        accepted("north", 1, 12),
        finished(1, 17, seconds=15.0, dice_wt=0.1, dice_tc=0.05, auc_idh=0.5),
        event(EventKind.ROUND_STARTED, 17, number=2, attempt=1, sites=["north", "east"]),
        accepted("north", 2, 30),
        event(EventKind.REPLY_MISSING, 40, number=2, site="east", code=ReasonCode.DEADLINE, bytes_down=4_000_000),
        finished(2, 42, seconds=25.0, dice_wt=0.6, dice_tc=0.3, auc_idh=0.8),
    ]
