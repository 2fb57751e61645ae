import pytest

from gmmas_schema.errors import ReasonCode
from server.drift import LONG, drift_of, length_ratios
from server.records import Outcome, RoundRecord, SiteRecord


def site(
    name: str, *, outcome: Outcome = Outcome.ACCEPTED, cosine: float | None = None, clipped: float = 1.0, **norms: float
) -> SiteRecord:
    code = None if outcome is Outcome.ACCEPTED else ReasonCode.REPLY_REFUSED
    factors = {"decoder": clipped} if clipped < 1 else {}
    return SiteRecord(
        site=name,
        node="1",
        outcome=outcome,
        code=code,
        norms={k.replace("_", "."): v for k, v in norms.items()},
        cosine=cosine,
        clipped=factors,
    )


def record(number: int, *sites: SiteRecord) -> RoundRecord:
    return RoundRecord(run="r", round=number, rounds=9, started_at=0, seconds=1, model_sha256="", peak_memory_mib=0, attempt=1, sites=sites)


def test_lengths_are_compared_where_at_least_three_hold_the_part() -> None:
    ratios = length_ratios(
        record(
            1,
            site("north", decoder=1.0, head_idh=9.0, encoder_t1ce=50.0),
            site("east", decoder=2.0, head_idh=3.0),
            site("south", decoder=4.0, head_idh=3.0, encoder_t1ce=1.0),
        )
    )
    assert ratios == {"north": pytest.approx((0.5 + 3.0) / 2), "east": 1.0, "south": pytest.approx((2.0 + 1.0) / 2)}


def test_single_values_and_sums_over_patients_are_no_updates() -> None:
    assert length_ratios(record(1, *(site(name, anchors=9.0, uncertainty_idh=5.0) for name in ("a", "b", "c")))) == {}
    assert length_ratios(record(1, *(site(name, decoder=0.0) for name in ("a", "b", "c")))) == {}


def rounds_with(lengths: list[float]) -> list[RoundRecord]:
    return [
        record(n, site("odd", decoder=length), site("b", decoder=1.0), site("c", decoder=1.0)) for n, length in enumerate(lengths, start=1)
    ]


def test_one_odd_round_is_chance_and_two_of_three_are_a_flag() -> None:
    assert not any(each.flags for each in drift_of(rounds_with([1.0, 1.0, 5.0])))
    early = drift_of(rounds_with([5.0, 5.0]))
    assert not any(each.flags for each in early)
    assert max(each.length or 0 for each in early) == 5.0, "shown before it is flagged"
    flagged = {each.site: each.flags for each in drift_of(rounds_with([1.0, 5.0, 5.0]))}
    assert flagged == {"odd": ("its updates are 5.0 times as long as the others'",), "b": (), "c": ()}
    (odd, *_) = sorted(drift_of(rounds_with([1.0, 0.1, 0.1])), key=lambda each: each.site != "odd")
    assert odd.flags == ("its updates are 0.10 times as long as the others'",)
    assert LONG == 2.0
    assert odd.lengths == (1.0, 0.1, 0.1)


def test_only_the_last_rounds_count() -> None:
    assert not any(each.flags for each in drift_of(rounds_with([9.0] * 5 + [1.0] * 3)))
    assert len(drift_of(rounds_with([1.0] * 9))[0].lengths) == 5


def test_directions_refusals_and_shortenings_are_told() -> None:
    records = [
        record(
            n, site("turned", cosine=-0.2), site("refused", outcome=Outcome.REFUSED), site("long", clipped=0.3), site("fine", cosine=0.1)
        )
        for n in (1, 2, 3)
    ]
    flags = {each.site: each.flags for each in drift_of(records)}
    assert flags == {
        "turned": ("its updates point away from the others' (mean cosine -0.20)",),
        "refused": ("its reply was refused in 3 of 3 rounds",),
        "long": ("its update was shortened in 3 of 3 rounds",),
        "fine": (),
    }


def test_a_stricter_limit_of_the_run_is_taken() -> None:
    (only,) = drift_of([record(1, site("a", cosine=0.1))], cosine_limit=0.2)
    assert only.flags


def test_without_rounds_there_is_nothing_to_compare() -> None:
    assert drift_of([]) == ()
