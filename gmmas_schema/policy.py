"""A hospital's policy (the `policy` block of site.yaml): what its trainer does for a coordinator, when, and under which safeguards.

The trainer enforces it (client.policy) before anything is loaded. What the coordinator says it does with updates comes with every request
as Safeguards; a policy is held against them.
"""

import re
from datetime import UTC, datetime, time, timedelta, tzinfo
from enum import StrEnum
from typing import Annotated, Final, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from gmmas_schema.base import FrozenModel
from gmmas_schema.privacy import PrivacyConfig
from gmmas_schema.robustness import NormClip
from gmmas_schema.secure import LARGEST_FEDERATION, SMALLEST_SUM, SecureConfig
from gmmas_schema.vocabulary import TASKS, Task

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW: Final = re.compile(rf"(?:({'|'.join(DAYS)})(?:-({'|'.join(DAYS)}))? )?([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)")


class SiteTask(StrEnum):
    """What a coordinator can ask of a site."""

    DESCRIBE = "describe"
    TRAIN = "train"
    EVALUATE = "evaluate"
    CALIBRATE = "calibrate"


class Safeguards(FrozenModel):
    """What the coordinator says it does with updates; part of every request, and so of what the site keeps a record of.

    Of a run with `secure` no request to train is answered that brings no terms of a secure round (client.policy), and what these terms say
    the site does itself (strategies.secure). Noise and clip of a run without it are made at the coordinator, after the update has arrived:
    they are its word.

    Attributes:
        privacy: differential privacy of the run.
        secure: secure aggregation of the run.
        clip: limit on an update's length without either.
    """

    privacy: PrivacyConfig | None = None
    secure: SecureConfig | None = None
    clip: NormClip | None = None


def _window(text: str) -> str:
    match = _WINDOW.fullmatch(text)
    if match is None or (match[5] == "24" and match[6] != "00"):
        raise ValueError("hours are written as 19:00-07:00, mon-fri 19:00-07:00 or sat 00:00-24:00")
    if (match[3], match[4]) == (match[5], match[6]):
        raise ValueError("beginning and end are the same; a whole day is 00:00-24:00")
    return text


Window = Annotated[str, AfterValidator(_window)]
"""`[days ]from-to`; a window whose end is before its beginning goes over midnight and belongs to the day it begins on."""


class FewestPatients(FrozenModel):
    """Smallest cohorts the site answers for, in patients.

    Attributes:
        train: of the training split; with fewer, training is refused.
        evaluate: of the split that is measured; with fewer, figures are withheld, and a request for nothing else is refused.
        calibrate: of the split whose sums are asked for; with fewer they are withheld.
    """

    train: int = Field(default=1, ge=1)
    evaluate: int = Field(default=1, ge=1)
    calibrate: int = Field(default=2, ge=2)


class LargestModel(FrozenModel):
    """Bounds on what is trained here; None for no bound.

    Attributes:
        parameters: numbers of the network; one takes 4 bytes on the wire and about 16 while it is trained.
        voxels: of the grid that every case is resampled to; memory and disk follow from it.
    """

    parameters: PositiveInt | None = None
    voxels: PositiveInt | None = None


class PrivacyPolicy(FrozenModel):
    """What a run must do for the site to train in it.

    Attributes:
        secure: updates leave under masks only (strategies.secure), behind sums of at least `holders` sites.
        holders: sites behind every sum.
        epsilon: most that a run with differential privacy may promise to spend; None asks for none.
        delta: largest delta of such a run.
        clipped: an update's influence is bounded: by secure aggregation, by differential privacy or by `robustness.clip`.
    """

    secure: bool = False
    holders: int = Field(default=SMALLEST_SUM, ge=SMALLEST_SUM, le=LARGEST_FEDERATION)
    epsilon: PositiveFloat | None = None
    delta: float = Field(default=1e-5, gt=0, lt=1)
    clipped: bool = False


class SitePolicy(FrozenModel):
    """A hospital's policy. The default asks for nothing that a coordinator does not keep anyway.

    Attributes:
        tasks: what may be asked; without `describe` no run takes the site in.
        heads: tasks whose labels are used here; those of others are left unread, as if the site had none.
        zone: time zone of hours and days (IANA name).
        hours: when requests are answered; empty for always. A request that has begun is finished.
        rounds_per_day: most rounds of training that are answered from midnight to midnight, over all runs.
        patients: smallest cohorts.
        largest_model: bounds on a model.
        privacy: safeguards that a run must have.
    """

    tasks: tuple[SiteTask, ...] = tuple(SiteTask)
    heads: tuple[Task, ...] = TASKS
    zone: str = "UTC"
    hours: tuple[Window, ...] = ()
    rounds_per_day: PositiveInt | None = None
    patients: FewestPatients = FewestPatients()
    largest_model: LargestModel = LargestModel()
    privacy: PrivacyPolicy = PrivacyPolicy()

    @field_validator("zone")
    @classmethod
    def _zone_is_known(cls, zone: str) -> str:
        find_zone(zone)
        return zone

    @model_validator(mode="after")
    def _nothing_is_named_twice(self) -> Self:
        for name, values in (("tasks", self.tasks), ("heads", self.heads)):
            if len(set(values)) != len(values):
                raise ValueError(f"{name} names one twice")
        return self

    def is_open(self, moment: datetime) -> bool:
        """Tell whether requests are answered at a moment (with its time zone)."""
        local = moment.astimezone(find_zone(self.zone))
        return not self.hours or any(_covers(window, local) for window in self.hours)

    def midnight(self, moment: datetime) -> datetime:
        """Return the beginning of the moment's day in the site's time zone."""
        return moment.astimezone(find_zone(self.zone)).replace(hour=0, minute=0, second=0, microsecond=0)


def find_zone(name: str) -> tzinfo:
    """Return a time zone by its IANA name.

    Raises:
        ValueError: there is none of that name on this machine.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("no such time zone on this machine; names are as in Europe/Berlin (Debian's package tzdata has them)") from error


def _covers(window: str, local: datetime) -> bool:
    """Tell whether a window holds a local time; its days are those on which it begins."""
    match = _WINDOW.fullmatch(window)
    assert match is not None, "checked when the policy was read"
    first, last, *digits = match.groups()
    begin_hour, begin_minute, end_hour, end_minute = map(int, digits)
    begin, end = time(begin_hour, begin_minute), time(end_hour % 24, end_minute)
    now, today = local.time(), local.date()
    if end_hour == 24 or begin < end:
        return _is_among(first, last, today.weekday()) and begin <= now and (end_hour == 24 or now < end)
    yesterday = (today - timedelta(days=1)).weekday()
    return (now >= begin and _is_among(first, last, today.weekday())) or (now < end and _is_among(first, last, yesterday))


def _is_among(first: str | None, last: str | None, weekday: int) -> bool:
    """Tell whether a weekday (0 is Monday) lies in a range of days, which may go over the weekend."""
    if first is None:
        return True
    begin = DAYS.index(first)
    end = DAYS.index(last or first)
    return (weekday - begin) % 7 <= (end - begin) % 7
