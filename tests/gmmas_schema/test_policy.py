"""Hours, days and names of a policy."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gmmas_schema.errors import ConfigError
from gmmas_schema.policy import DAYS, SitePolicy
from gmmas_schema.site import SiteConfig

BERLIN = ZoneInfo("Europe/Berlin")
MONDAY = datetime(2026, 11, 23, tzinfo=BERLIN)


def policy(*hours: str, zone: str = "Europe/Berlin") -> SitePolicy:
    return SitePolicy(zone=zone, hours=hours)


def test_without_hours_a_site_is_always_open() -> None:
    assert SitePolicy().is_open(MONDAY)


@pytest.mark.parametrize(
    ("hours", "moment", "is_open"),
    [
        ("19:00-07:00", "mon 18:59", False),
        ("19:00-07:00", "mon 19:00", True),
        ("19:00-07:00", "tue 06:59", True),
        ("19:00-07:00", "tue 07:00", False),
        ("08:00-17:30", "wed 17:29", True),
        ("08:00-17:30", "wed 17:30", False),
        ("mon-fri 19:00-07:00", "mon 06:00", False),  # the window of Sunday evening is none
        ("mon-fri 19:00-07:00", "sat 06:00", True),  # that of Friday evening reaches into Saturday
        ("mon-fri 19:00-07:00", "sat 19:00", False),
        ("sat-sun 00:00-24:00", "sun 23:59", True),
        ("sat-sun 00:00-24:00", "mon 00:00", False),
        ("sun 22:00-02:00", "mon 01:59", True),
        ("fri-mon 12:00-13:00", "sun 12:30", True),
        ("fri-mon 12:00-13:00", "tue 12:30", False),
        ("19:00-00:00", "thu 23:59", True),
        ("19:00-00:00", "fri 00:00", False),
    ],
)
def test_windows_hold_local_times(hours: str, moment: str, is_open: bool) -> None:
    day, clock = moment.split()
    hour, minute = map(int, clock.split(":"))
    local = MONDAY + timedelta(days=DAYS.index(day))
    local = local.replace(hour=hour, minute=minute)
    assert policy(hours).is_open(local) is is_open
    assert policy(hours).is_open(local.astimezone(UTC)) is is_open


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    moment=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
    begin=st.times(),
    end=st.times(),
)
def test_a_window_and_its_complement_cover_the_day_once(moment: datetime, begin: object, end: object) -> None:
    first, last = f"{begin:%H:%M}", f"{end:%H:%M}"
    if first != last:
        assert policy(f"{first}-{last}").is_open(moment) is not policy(f"{last}-{first}").is_open(moment)


def test_summer_time_is_kept() -> None:
    assert policy("19:00-20:00").is_open(datetime(2026, 7, 1, 17, 30, tzinfo=UTC))
    assert policy("19:00-20:00").is_open(datetime(2026, 12, 1, 18, 30, tzinfo=UTC))
    assert not policy("19:00-20:00", zone="UTC").is_open(datetime(2026, 7, 1, 17, 30, tzinfo=UTC))


def test_a_day_begins_at_the_sites_midnight() -> None:
    assert policy().midnight(datetime(2026, 7, 1, 23, 30, tzinfo=UTC)) == datetime(2026, 7, 2, tzinfo=BERLIN)


@pytest.mark.parametrize(
    "hours",
    [
        "",
        "7-19",
        "07:00-25:00",
        "07:00-24:30",
        "24:00-07:00",
        "07:60-08:00",
        "08:00-08:00",
        "mo 07:00-08:00",
        "mon-fri",
        "mon,tue 07:00-08:00",
    ],
)
def test_other_writings_of_hours_are_refused(hours: str) -> None:
    with pytest.raises(ValidationError):
        policy(hours)


@pytest.mark.parametrize("zone", ["", "Berlin", "Europe", "../etc/passwd", "/etc/localtime", "\x00", "CEST+"])
def test_an_unknown_time_zone_is_named(zone: str) -> None:
    with pytest.raises(ValidationError, match="no such time zone"):
        policy(zone=zone)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.just("mon-fri 19:00-07:00")
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=6
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(policy=st.dictionaries(st.sampled_from(sorted(SitePolicy.model_fields)), VALUES) | VALUES)
def test_any_values_are_a_policy_or_are_refused_in_words(policy: object) -> None:
    try:
        taken = SitePolicy.parse(policy, where="site.yaml")
    except ConfigError:
        return
    taken.is_open(MONDAY)
    taken.midnight(MONDAY)


def test_nothing_is_named_twice() -> None:
    with pytest.raises(ValidationError, match="tasks names one twice"):
        SitePolicy.model_validate({"tasks": ["train", "train"]})


def test_masks_need_the_resident_executor() -> None:
    site = {
        "site": "north",
        "data": {"root": "/data"},
        "coordinator": {"address": "localhost:1", "root_certificate": "a.pem"},
        "node": {"private_key": "k", "state": "s", "executor": "flower"},
        "policy": {"privacy": {"secure": True}},
    }
    with pytest.raises(ConfigError, match="masks are made by the resident executor only"):
        SiteConfig.parse(site, where="site.yaml")
