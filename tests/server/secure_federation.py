"""Simulated sites with the true client half of secure rounds, four and two that may join, which drop out where a test says so."""

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message

from client.app import refuse
from client.secure import SecureSite
from gmmas_schema.errors import GmmasError
from gmmas_schema.federation import FederationConfig
from gmmas_schema.messages import DOCUMENT
from gmmas_schema.secure import SECURE_MESSAGE
from gmmas_schema.vocabulary import MODALITIES, Modality
from server.checkpoint import RunFolder
from server.events import EventLog, read_events
from server.local_grid import LocalGrid
from strategies.codec import write_report
from tests.server.kills import Killed
from tests.server.simulated_sites import Clock, SimulatedSite, make_config, run

SITES = ("ash", "birch", "cedar", "dogwood")
EVERYBODY = (*SITES, "elm", "fir")
KEYS = {site: ec.generate_private_key(ec.SECP384R1()) for site in EVERYBODY}
NODES = {site: node for node, site in enumerate(EVERYBODY, start=10)}
T1CE_HOLDERS = ("ash", "birch")
CLIP = 1.0
WITHOUT_T1CE = tuple(m for m in MODALITIES if m is not Modality.T1CE)


def public(key):
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def make_secure_config(*, rounds=1):
    changes = {
        "rounds": rounds,
        "quorum": {"sites": 4, "replies": 3, "round_attempts": 1},
        "secure": {"clip": CLIP},
        "robustness": {"norm_limit": None},
        "wire": {"down": "fp32"},
        "calibration": None,
    }
    return FederationConfig.parse(make_config().model_dump() | changes, where="test")


class SecureSimulatedSite:
    """A simulated site whose update goes through the true client half; `trained` is what nobody else may know."""

    def __init__(self, site, key, folder):
        modalities = MODALITIES if site in T1CE_HOLDERS else WITHOUT_T1CE
        self.site, self.secure, self.trained = SimulatedSite(site, modalities), SecureSite(key, folder=folder), {}

    def __call__(self, message, context):
        try:
            if phase_of(message):
                return Message(self.secure.answer(message.content), reply_to=message)
            request, tensors = self.site.wire.open(message.content)
            if request.secure is None:
                return self.site(message, context)
            self.secure.check(request, tensors)
            trained = self.site.train(request, tensors)
            self.trained.setdefault(request.round, (tensors, trained))
            report = self.secure.begin(request, self.site.report(request), received=tensors, trained=trained)
            return Message(write_report(report), reply_to=message)
        except GmmasError as error:
            return refuse(message, error.code)


class Federation:
    """Four sites, two of them with T1ce, and two more that are not there yet; `lose` are the sites that do not answer from a phase on."""

    def __init__(self, tmp_path, config, *, lose=(), keys=KEYS, folders=False, path="run", run="r1"):
        self.lost, self.messages = dict(lose), []
        self.sites = {site: SecureSimulatedSite(site, keys.get(site), tmp_path / f"site-{site}" if folders else None) for site in EVERYBODY}
        nodes = {NODES[site]: self.behind(site) for site in EVERYBODY}
        enrolled = {NODES[site]: public(KEYS[site]) for site in EVERYBODY}
        self.grid = LocalGrid(nodes, names={NODES[site]: site for site in EVERYBODY}, keys=enrolled, watch=self.messages.append)
        self.leave("elm", "fir")
        self.folder = RunFolder.open(tmp_path / path) if (tmp_path / path).exists() else RunFolder.create(tmp_path / path, config, run=run)
        self.clock, self.on_event = Clock(), None

    def leave(self, *sites):
        for site in sites:
            self.grid.take_offline(NODES[site])

    def join(self, *sites):
        for site in sites:
            self.grid.bring_online(NODES[site])

    def behind(self, site):
        def answer(message, context):
            phase = phase_of(message)
            return None if phase and phase >= self.lost.get(site, 9) else self.sites[site](message, context)

        return answer

    def run(self):
        events = EventLog(self.folder.events_path, on_event=self.on_event)
        self.result = run(self.grid, self.folder, clock=self.clock, events=events)
        return self


def phase_of(message):
    if message.metadata.message_type != SECURE_MESSAGE or not message.has_content() or "task" not in message.content:
        return 0
    return json.loads(message.content["task"][DOCUMENT])["phase"]


def models(folder):
    return [folder.load_round(number).tensors for number in folder.finished_rounds()]


def kill_before_the_checkpoint(federation, monkeypatch):
    write = RunFolder.write_round

    def die_with_a_record(self, model, **kept):
        if kept["record"]:
            raise Killed
        return write(self, model, **kept)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_round", die_with_a_record)
        with pytest.raises(Killed):
            federation.run()


def told(federation, kind):
    return read_events(federation.folder.events_path, kinds={kind})
