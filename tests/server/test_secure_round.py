"""Secure rounds in the true round loop: real trainers, the real codec, an in-process grid."""

import json

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from client.in_process import InProcessSite
from client.secure import SeenPeers
from gmmas_schema.errors import FederationError, ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.federation import QuorumConfig
from gmmas_schema.groups import group_of
from gmmas_schema.messages import DOCUMENT
from gmmas_schema.robustness import RobustnessConfig
from gmmas_schema.secure import PAYLOAD, SECURE_MESSAGE, SecureConfig
from gmmas_schema.vocabulary import MODALITIES, Modality
from gmmas_schema.wire import WireConfig
from server.checkpoint import RunFolder
from server.courier import Timing
from server.events import EventLog, read_events
from server.local_grid import LocalGrid
from server.records import Outcome
from server.rounds import run_federation
from tests.client.tiny_sites import make_config, make_trainer
from tests.server.simulated_sites import RecordingTracker

SITES = ("ash", "birch", "cedar", "dogwood")
KEYS = {site: ec.generate_private_key(ec.SECP384R1()) for site in SITES}
T1CE_HOLDERS = ("ash", "birch")
WITHOUT_T1CE = tuple(m for m in MODALITIES if m is not Modality.T1CE)


def public(key):
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def make_secure_config(**quorum):
    plain = make_config(len(SITES))
    fields = {"sites": 4, "replies": 3, "round_attempts": 1} | quorum
    return plain.model_copy(
        update={
            "quorum": QuorumConfig(**fields),
            "secure": SecureConfig(),
            "robustness": RobustnessConfig(norm_limit=None),
            "wire": WireConfig(down="fp32"),
        }
    )


class Federation:
    """Four sites, two of them without T1ce; `lose` takes a site from the grid when it is asked for a phase."""

    def __init__(self, tmp_path, config, *, lose=(), keys=KEYS, folders=False):
        self.lost, self.messages = dict(lose), []
        self.sites = {}
        for number, site in enumerate(SITES):
            trainer = make_trainer(site, MODALITIES if site in T1CE_HOLDERS else WITHOUT_T1CE, first=10 * number)
            folder = tmp_path / f"site-{site}" if folders else None
            self.sites[site] = InProcessSite(trainer, identity=keys.get(site), folder=folder)
        nodes = {node: self.behind(site) for node, site in enumerate(SITES, start=10)}
        enrolled = {node: public(KEYS[site]) for node, site in enumerate(SITES, start=10)}
        self.grid = LocalGrid(nodes, names=dict(enumerate(SITES, start=10)), keys=enrolled, watch=self.messages.append)
        self.folder = RunFolder.create(tmp_path / "run", config) if not (tmp_path / "run").exists() else RunFolder.open(tmp_path / "run")
        self.folder_root = tmp_path

    def behind(self, site):
        def answer(message, context):
            phase = phase_of(message)
            if phase and phase >= self.lost.get(site, 9):
                return None
            return self.sites[site](message, context)

        return answer

    def run(self):
        now = [0.0]

        def sleep(seconds):
            now[0] += max(seconds, 1.0)

        timing = Timing(clock=lambda: now[0], sleep=sleep)
        events = EventLog(self.folder.events_path)
        self.result = run_federation(self.grid, self.folder, tracker=RecordingTracker(), events=events, timing=timing)
        return self


def phase_of(message):
    if message.metadata.message_type != SECURE_MESSAGE or not message.has_content() or "task" not in message.content:
        return 0
    return json.loads(message.content["task"][DOCUMENT])["phase"]


def models(folder, rounds=2):
    return [folder.load_round(number).tensors for number in range(rounds + 1)]


def capture_training(federation):
    """Keep what each site received and trained in the first round, which in a deployment nobody but the site knows."""
    kept = {}

    def keep(site, train):
        def wrapped(tensors, request, **options):
            outcome = train(tensors, request, **options)
            kept.setdefault(site, (dict(tensors), dict(outcome.tensors)))
            return outcome

        return wrapped

    for site, node in federation.sites.items():
        node.trainer.train = keep(site, node.trainer.train)
    return kept


def test_the_next_model_is_the_mean_of_the_holders_updates_to_the_stated_error(tmp_path):
    federation = Federation(tmp_path, make_secure_config())
    kept = capture_training(federation)
    federation.run()
    start, first, _ = models(federation.folder)
    record = federation.folder.read_record(1)
    assert {site.outcome for site in record.sites} == {Outcome.ACCEPTED}
    half_a_step, opened = 0.25 / (2 * (2**15 - 1)), set()
    for name, value in first.items():
        updates = [trained[name].astype(float) - received[name] for received, trained in kept.values() if name in trained]
        if len(updates) < 3:
            assert value.tobytes() == start[name].tobytes(), name
            continue
        # Every site has three cases, so FedAvg's weights are equal and only entries are rounded: on the grid, and to float32.
        float32 = 3 * 2.0**-24 * max(1.0, float(np.abs(value).max()))
        np.testing.assert_allclose(value, start[name] + np.mean(updates, axis=0), atol=half_a_step + float32, rtol=0, err_msg=name)
        opened.add(group_of(name))
    assert {"fusion", "decoder", "encoder.flair", "head.segmentation"} <= opened
    assert "encoder.t1ce" not in opened
    assert record.combined["encoder.t1ce"] == "unchanged: fewer than 3 holders"


def test_no_tensor_of_a_site_leaves_it(tmp_path):
    federation = Federation(tmp_path, make_secure_config())
    kept = capture_training(federation)
    federation.run()
    replies = [message.content for message in federation.messages if message.has_content() and "report" in message.content]
    assert all("arrays" not in content for content in replies)
    everything = b"".join(bytes(content["report"].get(PAYLOAD, b"")) + content["report"][DOCUMENT].encode() for content in replies)
    for received, trained in kept.values():
        for name, value in trained.items():
            if value.size >= 8:
                assert value.tobytes() not in everything
                assert (value - received[name]).tobytes() not in everything


def test_what_the_phases_cost_is_booked(tmp_path):
    federation = Federation(tmp_path, make_secure_config()).run()
    model_bytes = sum(value.nbytes for value in federation.folder.load_round(1).tensors.values())
    for site in federation.folder.read_record(1).sites:
        assert 0.5 * model_bytes < site.bytes_up < 1.2 * model_bytes + 50_000


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


def test_a_site_without_a_key_refuses_before_it_trains(tmp_path):
    keys = {site: key for site, key in KEYS.items() if site != "dogwood"}
    federation = Federation(tmp_path, make_secure_config(), keys=keys)
    trained = []
    train = federation.sites["dogwood"].trainer.train
    federation.sites["dogwood"].trainer.train = lambda *args, **options: trained.append(1) or train(*args, **options)
    federation.run()
    record = federation.folder.read_record(1)
    assert {site.site: site.code for site in record.sites}["dogwood"] is ReasonCode.CONFIG
    assert not trained


def test_a_site_with_another_key_than_the_enrolled_one_is_refused(tmp_path):
    keys = {**KEYS, "dogwood": ec.generate_private_key(ec.SECP384R1())}
    federation = Federation(tmp_path, make_secure_config(), keys=keys).run()
    record = federation.folder.read_record(1)
    assert {site.site: site.code for site in record.sites}["dogwood"] is ReasonCode.TRUST
    assert sum(site.outcome is Outcome.ACCEPTED for site in record.sites) == 3


def test_peers_and_ledger_are_kept_privately_and_a_changed_key_is_refused(tmp_path):
    federation = Federation(tmp_path, make_secure_config(), folders=True).run()
    assert federation.result.rounds == 2
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
    again.folder = RunFolder.create(tmp_path / "run2", make_secure_config())
    again.run()
    record = again.folder.read_record(1)
    found = {site.site: (site.outcome, site.code) for site in record.sites}
    assert found["ash"] == (Outcome.REFUSED, ReasonCode.TRUST)
    assert found["birch"] == (Outcome.ACCEPTED, None)


def test_secrets_are_gone_when_the_round_is_over(tmp_path):
    federation = Federation(tmp_path, make_secure_config()).run()
    assert all(site._secure._attempt is None for site in federation.sites.values())
