"""Secure rounds with noise that the sites make: planned, booked, opened once, counted at the sites."""

import json
import math

import numpy as np
import pytest

from gmmas_schema.errors import FederationError, ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.federation import FederationConfig
from server.events import read_events
from server.privacy_ledger import LEDGER_FILE as BOOKED
from server.tracking import round_metrics
from strategies.accountant import epsilon_of
from strategies.secure.ledger import OpenedSums
from tests.server.kills import Killed
from tests.server.secure_federation import (
    SITES,
    Federation,
    SecureSimulatedSite,
    kill_before_the_checkpoint,
    make_secure_config,
    models,
    phase_of,
    told,
)

PRIVACY = {"clip_norm": 1.0, "noise_multiplier": 2.0, "epsilon": 4.0, "full_weight": 1.0, "colluders": 1}
"""Affords three rounds."""


def make_private_config(*, rounds=1, **changes):
    secure = {"secure": {"phase_deadline_s": 30}, "privacy": PRIVACY | changes, "quorum": {"sites": 4, "replies": 3, "round_attempts": 1}}
    return FederationConfig.parse(make_secure_config(rounds=rounds).model_dump() | secure, where="test")


def test_a_private_secure_run_makes_the_rounds_of_its_budget_and_books_each(tmp_path):
    federation = Federation(tmp_path, make_private_config(rounds=5), folders=True).run()
    assert federation.result.rounds == 3
    spent = [federation.folder.read_record(number).privacy.epsilon for number in (1, 2, 3)]
    assert spent == [epsilon_of(number, noise_multiplier=2.0, delta=1e-5) for number in (1, 2, 3)]
    finished = told(federation, EventKind.ROUND_FINISHED)
    assert [event.detail["privacy"]["epsilon"] for event in finished] == spent
    assert finished[1].message == f"epsilon {spent[1]:.3g} spent at delta 1e-05, 2 of 3 affordable releases"
    assert round_metrics(federation.folder.read_record(2))["privacy/epsilon"] == spent[1]
    for site in SITES:
        assert OpenedSums(federation.sites[site].secure._opened.document()).releases("r1", with_round=3) == 3


def test_the_noise_of_a_private_secure_round_is_that_of_its_sites_over_a_fixed_number(tmp_path):
    """Of four sites one drops out; noise of at least 2 over 4 a value, and exactly 2 sqrt(3 / 2) / 4: three shares, two of them needed."""
    federation = Federation(tmp_path, make_private_config(), lose={"dogwood": 2}).run()
    start, first = models(federation.folder)
    wide = [name for name in start if name.startswith(("decoder", "fusion", "bottleneck"))]
    change = np.concatenate([(first[name].astype(float) - start[name]).ravel() for name in wide])
    assert change.std() == pytest.approx(2.0 * math.sqrt(3 / 2) / 4, rel=0.04)
    for name, value in first.items():
        if ".t1ce." in name:
            assert value.tobytes() == start[name].tobytes()
    shares = federation.folder.read_record(1).sites[0].shares
    assert shares["fusion"] == 1 / 4


def booked(federation):
    return json.loads((federation.folder.path / BOOKED).read_text())["rounds"]


def test_a_private_sum_that_was_opened_is_not_opened_again(tmp_path, monkeypatch):
    """Killed before the checkpoint: the release is booked and lost, the round changes nothing, and the run goes on with the next."""
    config = make_private_config(rounds=2)
    federation = Federation(tmp_path, config, folders=True)
    kill_before_the_checkpoint(federation, monkeypatch)
    assert booked(federation) == [1]
    again = Federation(tmp_path, config, folders=True).run()
    start, first, second = models(again.folder)
    assert all(value.tobytes() == start[name].tobytes() for name, value in first.items())
    assert any(value.tobytes() != start[name].tobytes() for name, value in second.items())
    assert booked(again) == [1, 2]


def test_a_private_sum_that_too_few_have_opened_is_opened_in_the_next_attempt(tmp_path):
    """One site has given its shares and the coordinator died: nothing was released, and the others can still open the round once."""
    config = make_private_config()
    federation = Federation(tmp_path, config, folders=True)
    answer = SecureSimulatedSite.__call__

    def die_when_asked_to_unmask(self, message, context):
        reply = answer(self, message, context)
        if phase_of(message) == 4:
            raise Killed
        return reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SecureSimulatedSite, "__call__", die_when_asked_to_unmask)
        with pytest.raises(Killed):
            federation.run()
    assert booked(federation) == [1], "before anybody was asked"
    again = Federation(tmp_path, config, folders=True).run()
    assert any(value.tobytes() != models(again.folder)[0][name].tobytes() for name, value in models(again.folder)[1].items())
    assert booked(again) == [1]


def test_a_round_that_is_paid_for_and_not_opened_is_tried_again_at_the_end_of_the_budget(tmp_path):
    federation = Federation(tmp_path, make_private_config(rounds=5), folders=True)
    (federation.folder.path / BOOKED).write_text('{"rounds": [1, 2, 3]}')
    assert federation.run().result.rounds == 3
    assert booked(federation) == [1, 2, 3]


def test_a_hospital_counts_for_itself_and_refuses_beyond_the_budget(tmp_path):
    """The coordinator has lost its account and goes on; the hospitals have theirs."""
    federation = Federation(tmp_path, make_private_config(rounds=3), folders=True)
    promise = federation.folder.config.privacy.digest()
    for site in SITES:
        for number in (7, 8, 9):
            federation.sites[site].secure._opened.release("r1", number, promise=promise)
    with pytest.raises(FederationError):
        federation.run()
    record = [event for event in read_events(federation.folder.events_path) if event.kind is EventKind.REPLY_REFUSED]
    assert {event.code for event in record} == {ReasonCode.POLICY_PRIVACY}
    assert not any(site.trained for site in federation.sites.values())
