"""Rounds among a few sites without a network, for tests of a site's side of them."""

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
    fields = {"subject": task.subject(plain.subject()), "invited": SITES, "threshold": 2, "round": number} | changes
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
    """An attempt at a round, led by the pure half of a coordinator.

    Args:
        sites: that are asked.
        number: of the round.
        model: they are sent.
        privacy: clip and noise.
        trained: what a site makes of the model, where it is not TRAINED.
        changes: of the terms, as `invited`, `threshold` and `attempt`.
    """

    def __init__(self, sites, number=1, *, model=MODEL, privacy=None, trained=None, **changes):
        self.sites, self.number = dict(sites), number
        self.terms, request = make_request(number, promised=privacy, privacy=privacy, model=group_hashes(model), **changes)
        self.half, self.attempt = CoordinatorHalf(self.terms, IDENTITIES), self.terms.context().hex()
        for name, site in sites.items():
            report = site.begin(request, report_of(name, number), received=model, trained=(trained or {}).get(name, TRAINED))
            self.half.add_advertisement(name, report.secure.encode())
        self.roster = self.half.roster()
        self.identities = {name: openssh(name) for name in sites}

    def ask(self, name, phase, payload, **identities):
        return ask(self.sites[name], phase, payload, number=self.number, attempt=self.attempt, **identities)

    def lose(self, *names):
        for name in names:
            del self.sites[name]

    def share(self):
        for name in self.sites:
            self.half.add_shares(name, self.ask(name, 1, self.roster, identities=self.identities))
        self.inboxes = self.half.inboxes()

    def ask_all(self, phase, asked, add):
        for name in self.sites:
            add(name, self.ask(name, phase, asked[name]))

    def mask(self):
        self.ask_all(2, self.inboxes, self.half.add_masked)
        self.survivors = self.half.survivors()

    def agree(self):
        self.ask_all(3, dict.fromkeys(self.sites, self.survivors), self.half.add_agreement)
        self.request = self.half.unmask_request()

    def unmask(self):
        self.ask_all(4, dict.fromkeys(self.sites, self.request), self.half.add_unmasking)
        return self.half.result()

    def finish(self):
        self.share()
        self.mask()
        self.agree()
        return self.unmask()


def make_sites(tmp_path, names=SITES, **peers):
    return {name: SecureSite(KEYS[name], folder=tmp_path / name, peers=peers.get(name)) for name in names}
