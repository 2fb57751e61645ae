"""Whom the attempts at a secure round are for, in the true round loop: drop-outs, sites that join, a coordinator that was killed."""

import numpy as np
import pytest

from gmmas_schema.errors import ConfigError, FederationError, ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.federation import FederationConfig
from server.secure_company import COMPANY_FILE, Company
from strategies.secure.site import SiteHalf
from tests.server.kills import Killed
from tests.server.secure_federation import (
    SITES,
    Federation,
    kill_before_the_checkpoint,
    make_secure_config,
    models,
    phase_of,
    told,
)

JOIN_DEADLINE_S = 60.0


def config(*, rounds=1, attempts=2, replies=3, **secure):
    quorum = {"sites": 4, "replies": replies, "round_attempts": attempts, "join_deadline_s": JOIN_DEADLINE_S}
    changes = {"quorum": quorum, "secure": {"clip": 1.0} | secure}
    return FederationConfig.parse(make_secure_config(rounds=rounds).model_dump() | changes, where="test")


def asked(federation):
    """Return who was asked in each attempt, by round and attempt."""
    return {(event.round, event.detail["attempt"]): event.detail["sites"] for event in told(federation, EventKind.ROUND_STARTED)}


def moved(federation, number):
    before, after = models(federation.folder)[number - 1 : number + 1]
    return any(value.tobytes() != before[name].tobytes() for name, value in after.items())


def after(federation, kind, number, act):
    """Do something at the first event of a kind in a round."""
    done = []

    def hear(event):
        if (event.kind, event.round) == (kind, number) and not done:
            done.append(event)
            act()

    federation.on_event = hear


def test_a_fixed_threshold_that_one_site_is_short_of_costs_an_attempt_and_not_the_run(tmp_path):
    federation = Federation(tmp_path, config(rounds=2, attempts=5, threshold=4))

    def leave_for_longer_than_is_waited():
        federation.leave("dogwood")
        federation.clock.at[federation.clock.now + 1.5 * JOIN_DEADLINE_S] = lambda: federation.join("dogwood")

    after(federation, EventKind.ROUND_FINISHED, 1, leave_for_longer_than_is_waited)
    federation.run()
    (failed,) = told(federation, EventKind.ROUND_FAILED)
    assert (failed.round, failed.code, failed.detail) == (2, ReasonCode.QUORUM, {"attempt": 1})
    assert "secure.threshold (4)" in failed.message
    assert federation.folder.read_record(2).attempt == 2
    assert moved(federation, 2)


def test_a_site_that_does_not_come_back_ends_the_run_after_its_attempts_with_the_reason(tmp_path):
    federation = Federation(tmp_path, config(rounds=2, attempts=3, threshold=4))
    after(federation, EventKind.ROUND_FINISHED, 1, lambda: federation.leave("dogwood"))
    with pytest.raises(FederationError, match=r"secure\.threshold \(4\) must be .* at most all") as caught:
        federation.run()
    assert caught.value.code is ReasonCode.QUORUM
    assert len(told(federation, EventKind.ROUND_FAILED)) == 3
    assert federation.clock.now >= 3 * JOIN_DEADLINE_S
    federation.join("dogwood")
    assert federation.run().result.rounds == 2


@pytest.mark.parametrize(
    ("secure", "newcomers", "reason"),
    [({"threshold": 3}, ("elm", "fir"), "secure.threshold (3)"), ({"bits": 10, "ring_bits": 16}, ("elm",), "12 steps for the weights")],
    ids=["threshold", "grid"],
)
def test_sites_that_are_too_many_cost_an_attempt_and_not_the_run(tmp_path, secure, newcomers, reason):
    """They come after the first round, and one of them leaves again once an attempt has failed for that."""
    federation = Federation(tmp_path, config(rounds=2, attempts=2, **secure))

    def hear(event):
        if (event.kind, event.round) == (EventKind.ROUND_FINISHED, 1):
            federation.join(*newcomers)
        if event.kind is EventKind.ROUND_FAILED:
            federation.leave(newcomers[0])

    federation.on_event = hear
    federation.run()
    (failed,) = told(federation, EventKind.ROUND_FAILED)
    assert failed.code is ReasonCode.QUORUM
    assert len(asked(federation)[2, 2]) == 4 + len(newcomers) - 1
    assert reason in failed.message
    assert moved(federation, 2)


def lose_after_the_masks(federation, *sites):
    """Let these sites be silent in phase 3 of the first attempt, once."""
    silent = set(sites)
    for site in sites:
        node = federation.sites[site]

        def answer(message, context, site=site, node=node):
            if phase_of(message) == 3 and site in silent:
                silent.discard(site)
                return None
            return node(message, context)

        federation.sites[site] = answer


def test_a_round_whose_updates_have_left_is_finished_by_its_own_sites(tmp_path):
    """Two are silent after the masks; then one is gone and another has come. Three of the four finish; the other joins with the next."""
    federation = Federation(tmp_path, config(rounds=2, attempts=2), folders=True)
    lose_after_the_masks(federation, "cedar", "dogwood")

    def change():
        federation.leave("dogwood")
        federation.join("elm")

    after(federation, EventKind.ROUND_FAILED, 1, change)
    federation.run()
    assert asked(federation) == {
        (1, 1): list(SITES),
        (1, 2): ["ash", "birch", "cedar"],
        (2, 1): ["ash", "birch", "cedar", "elm"],
    }
    opened = {event.round: event.detail["opened"]["fusion"] for event in told(federation, EventKind.SUM_OPENED)}
    assert opened == {1: ["ash", "birch", "cedar"], 2: ["ash", "birch", "cedar", "elm"]}
    assert moved(federation, 1)
    assert moved(federation, 2)


def test_a_round_whose_updates_have_left_waits_for_its_own_sites(tmp_path):
    """Of the four two are gone and two others have come: that is no round, until one of the four is back."""
    federation = Federation(tmp_path, config(attempts=4), folders=True)
    lose_after_the_masks(federation, "cedar", "dogwood")

    def change():
        federation.leave("cedar", "dogwood")
        federation.join("elm", "fir")
        federation.clock.at[federation.clock.now + 1.5 * JOIN_DEADLINE_S] = lambda: federation.join("cedar")

    after(federation, EventKind.ROUND_FAILED, 1, change)
    federation.run()
    failed = told(federation, EventKind.ROUND_FAILED)
    assert [event.detail["attempt"] for event in failed] == [1, 2]
    assert "too few of the sites with which the round began" in failed[1].message
    assert federation.folder.read_record(1).attempt == 3
    assert asked(federation)[1, 3] == ["ash", "birch", "cedar"]
    assert moved(federation, 1)


def test_a_round_that_did_not_come_to_the_masks_is_tried_with_whoever_is_there(tmp_path):
    federation = Federation(tmp_path, config(attempts=2), folders=True, lose={"cedar": 1, "dogwood": 1})

    def change():
        federation.lost = {}
        federation.leave("dogwood")
        federation.join("elm", "fir")

    after(federation, EventKind.ROUND_FAILED, 1, change)
    federation.run()
    assert asked(federation)[1, 2] == ["ash", "birch", "cedar", "elm", "fir"]


def test_a_killed_coordinator_goes_on_with_the_sites_whose_updates_have_left(tmp_path, monkeypatch):
    """Killed between the masks and the agreement, and back when one site is gone and another has come."""
    agree = SiteHalf.agree

    def die(self, survivors):
        raise Killed

    monkeypatch.setattr(SiteHalf, "agree", die)
    with pytest.raises(Killed):
        Federation(tmp_path, config(), folders=True).run()
    monkeypatch.setattr(SiteHalf, "agree", agree)
    kept = Company.model_validate_json((tmp_path / "run" / COMPANY_FILE).read_bytes())
    assert kept == Company(round=1, invited=SITES, threshold=3)
    again = Federation(tmp_path, config(), folders=True)
    again.join("elm")
    again.leave("dogwood")
    again.run()
    started = [event.detail["sites"] for event in told(again, EventKind.ROUND_STARTED)]
    assert started == [list(SITES), ["ash", "birch", "cedar"]]
    assert moved(again, 1)


def test_a_hospital_that_masked_for_others_refuses_before_it_trains(tmp_path, monkeypatch):
    """The coordinator's own record of the round is lost, and a site is gone: what it asks then, nobody does."""
    monkeypatch.setattr(SiteHalf, "agree", lambda self, survivors: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        Federation(tmp_path, config(), folders=True).run()
    monkeypatch.undo()
    (tmp_path / "run" / COMPANY_FILE).unlink()
    again = Federation(tmp_path, config(attempts=1), folders=True)
    again.join("elm")
    again.leave("dogwood")
    with pytest.raises(FederationError, match="too few good replies"):
        again.run()
    refusals = told(again, EventKind.REPLY_REFUSED)
    assert {event.site: event.code for event in refusals} == dict.fromkeys(("ash", "birch", "cedar"), ReasonCode.TRUST)
    assert not any(again.sites[site].trained for site in ("ash", "birch", "cedar"))


def test_a_damaged_record_of_a_round_stops_the_run(tmp_path):
    federation = Federation(tmp_path, config())
    (federation.folder.path / COMPANY_FILE).write_text("{")
    with pytest.raises(ConfigError, match=COMPANY_FILE):
        federation.run()


def test_a_run_that_is_begun_anew_with_the_same_configuration_trains(tmp_path):
    """The hospitals keep what they opened by run and round: equal choices must not give an equal run."""
    runs = [Federation(tmp_path, config(rounds=2), folders=True, path=path, run=None).run() for path in ("first", "second")]
    assert len({federation.folder.run for federation in runs}) == 2
    for federation in runs:
        assert moved(federation, 1)
        assert moved(federation, 2)


def test_a_round_that_every_part_of_is_withheld_fails_where_this_run_has_not_opened_it(tmp_path):
    """The same sites, and another seed's updates: none of the sums is the one that the hospitals have opened."""
    first = Federation(tmp_path, config(rounds=2), folders=True).run()
    other = config(rounds=2).model_copy(update={"seed": 99})
    again = Federation(tmp_path, other, folders=True, path="copy")
    with pytest.raises(FederationError, match="have opened this round before") as caught:
        again.run()
    assert caught.value.code is ReasonCode.TRUST
    assert "identifier of another" in caught.value.remedy
    assert again.folder.finished_rounds() == (0,)
    assert first.result.rounds == 2


def test_a_round_that_this_run_has_opened_and_lost_is_gone_on_from(tmp_path, monkeypatch):
    """Its own crash, and another sum than before: one round without effect, as the events say, and then the next."""
    kill_before_the_checkpoint(Federation(tmp_path, config(rounds=2), folders=True), monkeypatch)
    again = Federation(tmp_path, config(rounds=2), folders=True, lose={"dogwood": 2}).run()
    assert not moved(again, 1)
    assert moved(again, 2)
    assert again.folder.read_record(1).combined["fusion"] == "unchanged: opened for other sites before"
    start, first = models(again.folder)[:2]
    assert all(np.array_equal(first[name], value) for name, value in start.items())
