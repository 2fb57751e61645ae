"""A site's side of secure rounds: what it refuses, whom it trusts, what it keeps."""

import numpy as np
import pytest

from client.app import KEY_VARIABLE, PEERS_VARIABLE
from client.node import make_specs
from client.secure import SecureSite
from client.secure_records import LEDGER_FILE, PEERS_FILE
from gmmas_schema.errors import ConfigError, ProtocolError
from gmmas_schema.messages import REPORT
from gmmas_schema.secure import PAYLOAD
from gmmas_schema.site import SiteConfig
from strategies.secure.documents import HEAD_BYTES, Advertisement
from strategies.secure_letters import write_phase
from tests.client.secure_rounds import (
    MODEL,
    PLAIN,
    Round,
    ask,
    begin,
    make_request,
    make_sites,
    openssh,
    question,
)
from tests.client.sites import write_site
from tests.strategies.secure.attempts import KEYS


def test_a_report_brings_keys_for_the_groups_that_were_trained():
    _, request = make_request()
    report = begin(SecureSite(KEYS["ash"]), request)
    assert set(Advertisement.model_validate_json(report.secure).seeds) == {"fusion", "decoder"}


def test_three_sites_add_up(tmp_path):
    result = Round(make_sites(tmp_path)).finish()
    for found in result.groups.values():
        np.testing.assert_allclose(found.mean_E, 0.1, atol=4e-6)


def test_a_process_that_cannot_keep_a_secret_takes_no_part():
    _, request = make_request()
    with pytest.raises(ConfigError, match="executor: resident"):
        SecureSite(None).check(request, MODEL)
    SecureSite(None).check(PLAIN, MODEL)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"threshold": 1}, "unsound"),
        ({"minimum_holders": 2}, "unsound"),
        ({"round": 2}, "another round"),
        ({"run": "other"}, "another round"),
        ({"subject": "0" * 64}, "another round, or another request"),
    ],
)
def test_terms_that_are_unsound_or_about_something_else_are_refused_before_training(changes, match):
    _, request = make_request()
    _, changed = make_request(**changes)
    with pytest.raises(ProtocolError, match=match):
        SecureSite(KEYS["ash"]).check(request.model_copy(update={"secure": changed.secure}), MODEL)


def test_terms_for_another_model_are_refused():
    _, request = make_request(sizes={"fusion": 5, "decoder": 3})
    with pytest.raises(ProtocolError, match="another model"):
        begin(SecureSite(KEYS["ash"]), request)


def test_a_phase_of_another_attempt_is_refused_and_does_no_harm(tmp_path):
    with pytest.raises(ProtocolError, match="does not take part"):
        ask(SecureSite(KEYS["ash"]), 1, b"")
    led = Round(make_sites(tmp_path))
    earlier = make_request()[0].model_copy(update={"attempt": 7}).context().hex()
    with pytest.raises(ProtocolError, match="does not take part"):
        led.sites["ash"].answer(write_phase(question(1, attempt=earlier), led.roster))
    assert set(led.finish().groups) == {"fusion", "decoder"}


def test_after_a_refusal_the_attempt_is_over(tmp_path):
    led = Round(make_sites(tmp_path))
    with pytest.raises(ProtocolError):
        ask(led.sites["ash"], 2, b"{}")
    with pytest.raises(ProtocolError, match="does not take part"):
        ask(led.sites["ash"], 1, led.roster, identities=led.identities)


def test_a_site_knows_its_own_key(tmp_path):
    led = Round(make_sites(tmp_path))
    led.identities["ash"] = openssh("birch")
    with pytest.raises(ProtocolError, match="own name"):
        ask(led.sites["ash"], 1, led.roster, identities=led.identities)


def test_ledger_and_peers_outlive_the_process_and_hold_no_secret(tmp_path):
    Round(make_sites(tmp_path)).finish()
    for name in (LEDGER_FILE, PEERS_FILE):
        path = tmp_path / "ash" / name
        assert path.stat().st_mode & 0o777 == 0o600
        assert b"PRIVATE" not in path.read_bytes()
    again = Round(make_sites(tmp_path)).finish()
    assert set(again.groups) == {"fusion", "decoder"}


def test_a_damaged_ledger_stops_the_site(tmp_path):
    (tmp_path / LEDGER_FILE).write_text("{")
    with pytest.raises(ConfigError, match=LEDGER_FILE):
        SecureSite(KEYS["ash"], folder=tmp_path)


def test_an_answer_holds_no_trained_value(tmp_path):
    led = Round(make_sites(tmp_path))
    led.share()
    content = led.sites["ash"].answer(write_phase(question(2), led.inboxes["ash"]))
    assert set(content) == {REPORT}
    assert len(content[REPORT][PAYLOAD]) == HEAD_BYTES + 4 * (4 + 1 + 3 + 1)
    assert led.sites["ash"]._attempt.update == {}


@pytest.mark.parametrize("executor", ["resident", "flower"])
def test_only_a_process_that_lives_on_is_given_the_key(tmp_path, executor):
    config = SiteConfig.from_yaml(write_site(tmp_path, executor=executor))
    config = config.model_copy(update={"node": config.node.model_copy(update={"peers": tmp_path / "peers"})})
    spec = next(spec for spec in make_specs(config, config_path=tmp_path / "site.yaml") if spec.name == "executor")
    given = {KEY_VARIABLE, PEERS_VARIABLE} & set(spec.environment)
    assert given == ({KEY_VARIABLE, PEERS_VARIABLE} if executor == "resident" else set())
