"""Rounds among three sites without a network, for tests of a site's side of them."""

import numpy as np
from cryptography.hazmat.primitives import serialization

from client.secure import SecureSite
from gmmas_schema.federation import TrainingPlan
from gmmas_schema.messages import Action, SiteReport, TaskRequest
from gmmas_schema.model import ModelDefinition
from gmmas_schema.policy import Safeguards
from gmmas_schema.secure import PhaseRequest, SecureTask
from gmmas_schema.strategy import FedAvgStrategy
from gmmas_schema.vocabulary import MODALITIES, Task
from strategies.secure.coordinator import CoordinatorHalf
from strategies.secure.vectors import group_hashes, group_sizes
from strategies.secure_letters import read_phase_reply, write_phase
from tests.strategies.secure.attempts import IDENTITIES, KEYS, make_terms

SITES = ("ash", "birch", "cedar")
MODEL = {"fusion.a": np.zeros((2, 2), np.float32), "decoder.b": np.zeros(3, np.float32)}
TRAINED = {name: value + np.float32(0.1) for name, value in MODEL.items()}
PLAIN = TaskRequest(action=Action.TRAIN, run="run", round=1, rounds=2, seed=0, model=ModelDefinition(), plan=TrainingPlan())


def make_request(number=1, promised=None, **changes):
    plain = PLAIN.model_copy(update={"round": number, "safeguards": Safeguards(privacy=promised)})
    task = SecureTask(terms="", strategy=FedAvgStrategy())
    fields = {"subject": task.subject(plain.subject()), "sites": 3, "threshold": 2, "round": number} | changes
    terms = make_terms(sizes=group_sizes(MODEL), model=group_hashes(MODEL)).model_copy(update=fields)
    return terms, plain.model_copy(update={"secure": task.model_copy(update={"terms": terms.model_dump_json()})})


def report_of(site, number=1):
    labelled = {Task.SEGMENTATION: 4}
    return SiteReport(site=site, run="run", round=number, model_digest="", modalities=MODALITIES, cases=4, labelled=labelled)


def openssh(site):
    form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return IDENTITIES[site].public_bytes(*form).decode()


def begin(site, request, name="ash", received=MODEL):
    return site.begin(request, report_of(name, request.round), received=received, trained=TRAINED)


def question(phase, *, number=1, identities=None, attempt=None, **changes):
    attempt = attempt or make_request(number)[0].context().hex()
    request = PhaseRequest(run="run", round=number, attempt=attempt, phase=phase, identities=identities or {})
    return request.model_copy(update=changes)


def ask(site, phase, payload, *, number=1, identities=None, attempt=None):
    asked = question(phase, number=number, identities=identities, attempt=attempt)
    return read_phase_reply(site.answer(write_phase(asked, payload)))[1]


class Round:
    """A round among three sites, led by the pure half of a coordinator."""

    def __init__(self, sites, number=1, *, model=MODEL, privacy=None):
        self.sites, self.number = sites, number
        terms, request = make_request(number, promised=privacy, privacy=privacy, model=group_hashes(model))
        self.half, self.attempt = CoordinatorHalf(terms, IDENTITIES), terms.context().hex()
        for name, site in sites.items():
            self.half.add_advertisement(name, begin(site, request, name, model).secure.encode())
        self.roster = self.half.roster()
        self.identities = {name: openssh(name) for name in sites}

    def share(self):
        for name, site in self.sites.items():
            self.half.add_shares(name, ask(site, 1, self.roster, identities=self.identities, attempt=self.attempt))
        self.inboxes = self.half.inboxes()

    def ask_all(self, phase, asked, add):
        for name, site in self.sites.items():
            add(name, ask(site, phase, asked[name], attempt=self.attempt))

    def finish(self):
        self.share()
        self.ask_all(2, self.inboxes, self.half.add_masked)
        self.ask_all(3, dict.fromkeys(self.sites, self.half.survivors()), self.half.add_agreement)
        self.ask_all(4, dict.fromkeys(self.sites, self.half.unmask_request()), self.half.add_unmasking)
        return self.half.result()


def make_sites(tmp_path, **peers):
    return {name: SecureSite(KEYS[name], folder=tmp_path / name, peers=peers.get(name)) for name in SITES}
