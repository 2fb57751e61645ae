"""Secure rounds in the true round loop, over the real codec and the true client half, on an in-process grid."""

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from client.in_process import InProcessSite
from client.secure import SecureSite
from client.secure_records import SeenPeers
from gmmas_schema.errors import FederationError, ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.federation import FederationConfig
from gmmas_schema.groups import group_of
from gmmas_schema.messages import DOCUMENT, Action, TaskRequest
from gmmas_schema.secure import PAYLOAD
from server.checkpoint import RunFolder
from server.events import read_events
from server.ledger import add_up, read_ledger
from server.local_grid import LocalGrid
from server.records import Outcome
from tests.client.tiny_sites import make_config as tiny_config
from tests.client.tiny_sites import make_trainer
from tests.server.secure_federation import (
    CLIP,
    KEYS,
    SITES,
    Federation,
    kill_before_the_checkpoint,
    make_secure_config,
    models,
    phase_of,
    public,
    told,
)
from tests.server.simulated_sites import run


def test_the_next_model_is_the_mean_of_the_holders_updates_to_the_stated_error(tmp_path):
    federation = Federation(tmp_path, make_secure_config()).run()
    start, first = models(federation.folder)
    kept = {site: federation.sites[site].trained[1] for site in SITES}
    record = federation.folder.read_record(1)
    assert {site.outcome for site in record.sites} == {Outcome.ACCEPTED}
    half_a_step, opened = CLIP / (2 * (2**15 - 1)), set()
    for name, value in first.items():
        updates = [trained[name].astype(float) - received[name] for received, trained in kept.values() if name in trained]
        if len(updates) < 3:
            assert value.tobytes() == start[name].tobytes(), name
            continue
        # Every site has as many cases, so the weights are equal and only entries are rounded: on the grid, and to float32.
        float32 = 3 * 2.0**-24 * max(1.0, float(np.abs(value).max()))
        np.testing.assert_allclose(value, start[name] + np.mean(updates, axis=0), atol=half_a_step + float32, rtol=0, err_msg=name)
        opened.add(group_of(name))
    assert {"fusion", "decoder", "encoder.flair", "head.segmentation"} <= opened
    assert "encoder.t1ce" not in opened
    assert record.combined["encoder.t1ce"] == "unchanged: fewer than 3 holders"


def test_no_tensor_of_a_site_leaves_it(tmp_path):
    federation = Federation(tmp_path, make_secure_config()).run()
    kept = {site: federation.sites[site].trained[1] for site in SITES}
    replies = [message.content for message in federation.messages if message.has_content() and "report" in message.content]
    assert all("arrays" not in content for content in replies)
    everything = b"".join(bytes(content["report"].get(PAYLOAD, b"")) + content["report"][DOCUMENT].encode() for content in replies)
    for received, trained in kept.values():
        for name, value in trained.items():
            if value.size >= 8:
                assert value.tobytes() not in everything
                assert (value - received[name]).tobytes() not in everything


def test_what_the_phases_cost_is_booked_in_the_rounds_record_and_in_the_ledger(tmp_path):
    federation = Federation(tmp_path, make_secure_config(), lose={"dogwood": 3}).run()
    model_bytes = sum(value.nbytes for value in federation.folder.load_round(1).tensors.values())
    entries = [entry for entry in read_ledger(federation.folder.events_path) if entry.round == 1 and entry.action in ("train", "sum")]
    for site in federation.folder.read_record(1).sites:
        assert 0.5 * model_bytes < site.bytes_up < 1.2 * model_bytes + 50_000
        own = add_up(entry for entry in entries if entry.site == site.site)
        assert (own.bytes_up, own.bytes_down) == (site.bytes_up, site.bytes_down)
        assert (own.answered, own.asked) == ((3, 4) if site.site == "dogwood" else (5, 5))
    (missing,) = [entry for entry in entries if entry.outcome == "missing"]
    assert (missing.site, missing.action, missing.code, missing.bytes_up) == ("dogwood", "sum", "E_DEADLINE", 0)


@pytest.mark.parametrize(("phase", "outcome"), [(1, "refused"), (2, "refused"), (3, "accepted"), (4, "accepted")])
def test_a_site_that_drops_out_leaves_a_sum_of_the_others(tmp_path, phase, outcome):
    federation = Federation(tmp_path, make_secure_config(), lose={"dogwood": phase}).run()
    record = federation.folder.read_record(1)
    found = {site.site: site.outcome for site in record.sites}
    assert found == dict.fromkeys(SITES, Outcome.ACCEPTED) | {"dogwood": Outcome(outcome)}
    sites = {site.site for site in record.sites if "fusion" in site.shares}
    assert sites == set(SITES) - ({"dogwood"} if outcome == "refused" else set())
    if outcome == "refused":
        lost = next(site for site in record.sites if site.site == "dogwood")
        assert lost.code is ReasonCode.DEADLINE
        assert "dropped out of the secure sum" in lost.reason


def test_below_the_threshold_the_round_fails_and_says_why(tmp_path):
    federation = Federation(tmp_path, make_secure_config(), lose={"dogwood": 2, "cedar": 4, "birch": 4})
    with pytest.raises(FederationError, match="too few good replies"):
        federation.run()
    assert list(federation.folder.finished_rounds()) == [0]
    told = [event for event in read_events(federation.folder.events_path) if event.kind is EventKind.REPLY_DISMISSED]
    assert {event.code for event in told} == {ReasonCode.QUORUM, ReasonCode.DEADLINE}
    assert any("phase: unmask" in event.message and "1 (ash)" in event.message for event in told)


def test_a_sum_of_too_few_for_the_round_stays_closed_so_that_the_next_attempt_can_open_its_own(tmp_path):
    config = make_secure_config().model_dump() | {"quorum": {"sites": 4, "replies": 4, "round_attempts": 2}}
    federation = Federation(tmp_path, FederationConfig.parse(config, where="test"))
    dogwood = federation.sites["dogwood"]
    lost = []

    def miss_the_mask_once(message, context):
        if phase_of(message) == 2 and not lost:
            return lost.append(message)
        return dogwood(message, context)

    federation.sites["dogwood"] = miss_the_mask_once
    federation.run()
    start, first = models(federation.folder)
    assert [event.detail["attempt"] for event in told(federation, EventKind.SUM_OPENED)] == [2]
    assert federation.folder.read_record(1).attempt == 2
    assert any(value.tobytes() != start[name].tobytes() for name, value in first.items())


def test_a_site_without_a_key_refuses_before_it_trains(tmp_path):
    keys = {site: key for site, key in KEYS.items() if site != "dogwood"}
    federation = Federation(tmp_path, make_secure_config(), keys=keys)
    federation.run()
    record = federation.folder.read_record(1)
    assert {site.site: site.code for site in record.sites}["dogwood"] is ReasonCode.CONFIG
    assert not federation.sites["dogwood"].trained


def test_a_site_with_another_key_than_the_enrolled_one_is_refused(tmp_path):
    keys = {**KEYS, "dogwood": ec.generate_private_key(ec.SECP384R1())}
    federation = Federation(tmp_path, make_secure_config(), keys=keys).run()
    record = federation.folder.read_record(1)
    assert {site.site: site.code for site in record.sites}["dogwood"] is ReasonCode.TRUST
    assert sum(site.outcome is Outcome.ACCEPTED for site in record.sites) == 3


def test_peers_and_ledger_are_kept_privately_and_a_changed_key_is_refused(tmp_path):
    federation = Federation(tmp_path, make_secure_config(), folders=True).run()
    assert federation.result.rounds == 1
    for site in SITES:
        for name in ("opened-sums.json", "peers.json"):
            assert (tmp_path / f"site-{site}" / name).stat().st_mode & 0o777 == 0o600
    ledger = (tmp_path / "site-ash" / "opened-sums.json").read_text()
    assert federation.folder.run in ledger
    peers = tmp_path / "site-ash" / "peers.json"
    other = ec.generate_private_key(ec.SECP384R1()).public_key()
    text = other.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    seen = SeenPeers.model_validate_json(peers.read_bytes())
    peers.write_text(seen.model_copy(update={"keys": {**seen.keys, "birch": text}}).model_dump_json())
    again = Federation(tmp_path, make_secure_config(), folders=True)
    again.folder = RunFolder.create(tmp_path / "run2", make_secure_config(), run="r2")
    again.run()
    record = again.folder.read_record(1)
    found = {site.site: (site.outcome, site.code) for site in record.sites}
    assert found["ash"] == (Outcome.REFUSED, ReasonCode.TRUST)
    assert found["birch"] == (Outcome.ACCEPTED, None)


class DyingSite:
    """A real trainer of a tiny network whose process dies, with its secrets, once it has masked its update of round 2."""

    def __init__(self, site, number, *, dies=False):
        self.trainer, self.key, self.dies = make_trainer(site, first=10 * number), KEYS[site], dies
        self.updates, self.secure = {}, SecureSite(self.key)

    def __call__(self, message, context):
        answered = InProcessSite(self.trainer, secure=self.secure)(message, context)
        if self.dies and phase_of(message) == 2 and "2" in message.metadata.group_id:
            self.secure = SecureSite(self.key)
        return answered

    def train_again(self, folder, number):
        """Return the change and the weight by which this site took part in a round: both follow from the model and the request."""
        received = folder.load_round(number - 1).tensors
        config = folder.config
        request = TaskRequest(
            action=Action.TRAIN, run=folder.run, round=number, rounds=2, seed=config.seed, model=config.model, plan=config.training
        )
        outcome = self.trainer.train(received, request)
        return {name: value - received[name] for name, value in outcome.tensors.items()}, outcome.report.cases


def test_real_trainers_add_up_to_their_plain_sum_although_one_died_with_its_secrets(tmp_path):
    """Bounded twin of tests/integration/test_secure_federation.py."""
    changes = {"quorum": {"sites": 3, "replies": 3}, "secure": {}, "robustness": {"norm_limit": None}, "wire": {"down": "fp32"}}
    config = FederationConfig.parse(tiny_config(3).model_dump() | changes | {"rounds": 2, "calibration": None}, where="test")
    sites = [DyingSite(site, number, dies=site == "birch") for number, site in enumerate(SITES[:3])]
    messages = []
    grid = LocalGrid(dict(enumerate(sites)), keys={node: public(site.key) for node, site in enumerate(sites)}, watch=messages.append)
    folder = RunFolder.create(tmp_path / "run", config, run="r1")
    run(grid, folder)
    phases = [event for event in read_events(folder.events_path, kinds={EventKind.SUM_PHASE}) if event.round == 2]
    assert [event.detail["dropped"] for event in phases] == [{}, {}, {"birch": "E_PROTOCOL"}, {}]
    assert {site.outcome for site in folder.read_record(2).sites} == {Outcome.ACCEPTED}
    answers = [message.content for message in messages if message.has_content() and "report" in message.content]
    everything = b"".join(bytes(content["report"].get(PAYLOAD, b"")) for content in answers)
    start, end = (folder.load_round(number).tensors for number in (1, 2))
    updates = [site.train_again(folder, 2) for site in sites]
    assert any(group_of(name) == "encoder.t1ce" for name in updates[0][0])
    for name in updates[0][0]:
        # As many cases everywhere, so the weights are equal and only entries are rounded: on the grid, and to float32.
        mean = np.mean([np.clip(update[name], -0.25, 0.25) for update, _ in updates], axis=0, dtype=float)
        float32 = 3 * 2.0**-24 * max(1.0, float(np.abs(end[name]).max()))
        np.testing.assert_allclose(end[name], start[name] + mean, atol=0.25 / (2 * (2**15 - 1)) + float32, rtol=0, err_msg=name)
        assert all(update[name].tobytes() not in everything for update, _ in updates if update[name].size >= 8)


def test_secrets_are_gone_when_the_round_is_over(tmp_path):
    federation = Federation(tmp_path, make_secure_config()).run()
    assert all(site.secure._attempt is None for site in federation.sites.values())


def test_the_events_tell_the_phases_who_dropped_out_and_what_stays_closed(tmp_path):
    federation = Federation(tmp_path, make_secure_config(), lose={"dogwood": 3}).run()
    phases = told(federation, EventKind.SUM_PHASE)
    assert [event.detail["phase"] for event in phases] == ["sharing keys", "masking", "agreeing", "unmasking"]
    assert [len(event.detail["answered"]) for event in phases] == [4, 4, 3, 3]
    assert phases[1].message == "masking: 4 of 4 answered, 3 needed"
    assert phases[2].message == "agreeing: 3 of 4 answered, 3 needed; dropped out: dogwood (E_DEADLINE)"
    assert phases[2].detail["dropped"] == {"dogwood": "E_DEADLINE"}
    (opened,) = told(federation, EventKind.SUM_OPENED)
    assert opened.detail["opened"]["fusion"] == list(SITES)
    assert opened.detail["closed"] == {"encoder.t1ce": "fewer than 3 holders", "gate.t1ce": "fewer than 3 holders"}
    assert "closed, fewer than 3 holders: encoder.t1ce, gate.t1ce" in opened.message


def test_a_phase_below_the_threshold_carries_the_code(tmp_path):
    federation = Federation(tmp_path, make_secure_config(), lose={"dogwood": 2, "cedar": 2})
    with pytest.raises(FederationError):
        federation.run()
    last = told(federation, EventKind.SUM_PHASE)[-1]
    assert (last.detail["phase"], last.code) == ("masking", ReasonCode.QUORUM)
    assert not told(federation, EventKind.SUM_OPENED)


def test_a_coordinator_killed_before_the_checkpoint_opens_the_same_sums_again(tmp_path, monkeypatch):
    """The sites keep their ledgers; the round is trained again to the same updates, and the same sums may be opened."""
    unbroken = Federation(tmp_path / "unbroken", make_secure_config(rounds=2)).run()
    broken = tmp_path / "broken"
    kill_before_the_checkpoint(Federation(broken, make_secure_config(rounds=2), folders=True), monkeypatch)
    again = Federation(broken, make_secure_config(rounds=2), folders=True).run()
    for one, other in zip(models(unbroken.folder), models(again.folder), strict=True):
        assert {name: value.tobytes() for name, value in one.items()} == {name: value.tobytes() for name, value in other.items()}


def test_after_a_crash_a_smaller_sum_is_not_opened(tmp_path, monkeypatch):
    """Its difference to the sum before the crash would be the missing site's update."""
    kill_before_the_checkpoint(Federation(tmp_path, make_secure_config(rounds=2), folders=True), monkeypatch)
    again = Federation(tmp_path, make_secure_config(rounds=2), folders=True, lose={"dogwood": 2}).run()
    record = again.folder.read_record(1)
    assert record.combined["fusion"] == "unchanged: opened for other sites before"
    start, first_model, second_model = models(again.folder)
    assert all(value.tobytes() == start[name].tobytes() for name, value in first_model.items())
    assert any(value.tobytes() != start[name].tobytes() for name, value in second_model.items())
