"""A site's side of secure rounds: what it refuses, whom it trusts, what it keeps."""

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization

from client.app import KEY_VARIABLE, PEERS_VARIABLE
from client.node import make_specs
from client.secure import LEDGER_FILE, PEERS_FILE, SecureSite
from gmmas_schema.errors import ConfigError, ProtocolError, ReasonCode
from gmmas_schema.federation import TrainingPlan
from gmmas_schema.messages import REPORT, Action, SiteReport, TaskRequest
from gmmas_schema.model import ModelDefinition
from gmmas_schema.policy import Safeguards
from gmmas_schema.privacy import PrivacyConfig
from gmmas_schema.secure import PAYLOAD, PhaseRequest, SecureTask
from gmmas_schema.site import SiteConfig
from gmmas_schema.strategy import FedAvgStrategy, HoldersStrategy
from gmmas_schema.vocabulary import MODALITIES, Task
from strategies.secure.coordinator import CoordinatorHalf
from strategies.secure.documents import Advertisement, UnmaskRequest, write
from strategies.secure.ledger import LedgerDocument
from strategies.secure.vectors import group_hashes, group_sizes
from strategies.secure_letters import read_phase_reply, write_phase
from tests.client.sites import write_site
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


def foreign_models():
    nudged = {**MODEL, "fusion.a": MODEL["fusion.a"] + np.float32(2.0**-20)}
    return {"another value": nudged, "another name": {"fusion.x": MODEL["fusion.a"], "decoder.b": MODEL["decoder.b"]}}


@pytest.mark.parametrize("how", foreign_models())
def test_a_model_that_the_terms_do_not_name_is_refused_before_training(how):
    """One by which the others' updates vanish would leave this site's alone in the sum (Pasquini et al., CCS 2022)."""
    _, request = make_request()
    received = foreign_models()[how]
    with pytest.raises(ProtocolError, match="the model") as caught:
        SecureSite(KEYS["ash"]).check(request, received)
    assert caught.value.code is ReasonCode.TRUST
    with pytest.raises(ProtocolError, match="the model"):
        SecureSite(KEYS["ash"]).begin(request, report_of("ash"), received=received, trained=TRAINED)


def test_sites_that_are_told_of_different_models_do_not_share_keys(tmp_path):
    """The coordinator fits the terms to what it sends each site: the keys are signed for the terms."""
    sites = make_sites(tmp_path)
    theirs = foreign_models()["another value"]
    _, own = make_request()
    terms, other = make_request(model=group_hashes(theirs))
    half = CoordinatorHalf(terms, IDENTITIES)
    for name in ("birch", "cedar"):
        raw = sites[name].begin(other, report_of(name), received=theirs, trained=TRAINED).secure
        half.add_advertisement(name, raw.encode())
    begin(sites["ash"], own)
    with pytest.raises(ProtocolError) as caught:
        ask(sites["ash"], 1, half.roster(), identities={name: openssh(name) for name in SITES})
    assert caught.value.code is ReasonCode.TRUST


@pytest.mark.parametrize(
    "changes",
    [{"strategy": HoldersStrategy(weights="uniform")}, {"pseudo": {Task.SEGMENTATION: 1e9}}],
    ids=["another strategy", "other pseudo-labels"],
)
def test_a_weighting_that_the_terms_do_not_name_is_refused(changes):
    """Who weighs a thousand times the others has its update in the quotient of the sums."""
    _, request = make_request()
    assert request.secure is not None
    with pytest.raises(ProtocolError, match="another request"):
        SecureSite(KEYS["ash"]).check(request.model_copy(update={"secure": request.secure.model_copy(update=changes)}), MODEL)


def test_noise_other_than_the_coordinator_promises_is_refused():
    privacy = PrivacyConfig(clip_norm=1.0, noise_multiplier=2.0, epsilon=4.0)
    _, request = make_request(privacy=privacy)
    with pytest.raises(ProtocolError, match="not what the coordinator promises"):
        SecureSite(KEYS["ash"]).check(request, MODEL)


def test_a_request_that_is_sent_again_gets_new_secrets_and_the_old_ones_are_gone(tmp_path):
    """Shares and boxes of the first attempt are worth nothing in the second, although the terms are the same bytes."""
    sites = make_sites(tmp_path)
    first = Round(sites)
    first.share()
    second = Round(sites)
    keys = [Advertisement.model_validate_json(half._advertisements["ash"].model_dump_json()) for half in (first.half, second.half)]
    assert not {keys[0].box_key, keys[0].mask_key, *keys[0].seeds.values()} & {keys[1].box_key, keys[1].mask_key, *keys[1].seeds.values()}
    with pytest.raises(ProtocolError, match="other keys under this site's name"):
        ask(sites["ash"], 1, first.roster, identities=first.identities)
    again = Round(sites)
    again.share()
    with pytest.raises(ProtocolError) as caught:
        ask(sites["birch"], 2, first.inboxes["birch"])
    assert caught.value.code is ReasonCode.TRUST


def test_shares_of_one_site_are_given_once_so_never_both_kinds(tmp_path):
    """cedar is called a survivor first and dropped out later, in two attempts under the same terms: its keys are others then."""
    sites = make_sites(tmp_path)
    first = Round(sites)
    first.share()
    first.ask_all(2, first.inboxes, first.half.add_masked)
    survivors = first.half.survivors()
    first.ask_all(3, dict.fromkeys(SITES, survivors), first.half.add_agreement)
    request = first.half.unmask_request()
    told = UnmaskRequest.model_validate_json(request)
    swapped = told.model_copy(update={"survivors": ("ash", "birch"), "dropped": ("cedar",)})
    ask(sites["birch"], 4, request)
    with pytest.raises(ProtocolError, match="does not take part"):
        ask(sites["birch"], 4, write(swapped))
    with pytest.raises(ProtocolError, match="other sites than this site has signed"):
        ask(sites["ash"], 4, write(swapped))
    with pytest.raises(ProtocolError, match="does not take part"):
        ask(sites["ash"], 4, request)


def test_a_sum_over_another_model_is_not_opened_in_the_same_round(tmp_path):
    sites = make_sites(tmp_path)
    assert set(Round(sites).finish().groups) == {"fusion", "decoder"}
    moved = foreign_models()["another value"]
    result = Round(sites, model=moved).finish()
    assert result.groups == {}
    assert set(result.refused) == {"fusion", "decoder"}


def test_a_private_update_is_counted_before_it_leaves(tmp_path):
    """Whether or not this site is asked to open the sum: the others may do so without it."""
    privacy = PrivacyConfig(clip_norm=1.0, noise_multiplier=2.0, epsilon=4.0)
    sites = make_sites(tmp_path)
    led = Round(sites, privacy=privacy)
    led.share()
    assert not (tmp_path / "ash" / LEDGER_FILE).exists()
    ask(sites["ash"], 2, led.inboxes["ash"], attempt=led.attempt)
    kept = LedgerDocument.model_validate_json((tmp_path / "ash" / LEDGER_FILE).read_bytes())
    assert kept.released == {"run": (1,)}
    assert kept.opened == {}


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


@pytest.mark.parametrize("text", ["", "ssh-ed25519 AAAA", "ecdsa-sha2-nistp384 AAAA"])
def test_what_is_no_key_is_refused(tmp_path, text):
    led = Round(make_sites(tmp_path))
    led.identities["birch"] = text
    with pytest.raises(ProtocolError) as caught:
        ask(led.sites["ash"], 1, led.roster, identities=led.identities)
    assert caught.value.code is ReasonCode.TRUST


def write_peers(folder, **keys):
    folder.mkdir()
    for site, key in keys.items():
        (folder / f"{site}.pub").write_text(key + "\n")
    return folder


def test_only_peers_that_the_hospitals_exchanged_are_trusted(tmp_path):
    peers = write_peers(tmp_path / "peers", birch=openssh("birch"), cedar=openssh("cedar"))
    Round(make_sites(tmp_path, ash=peers)).share()
    assert not (tmp_path / "ash" / PEERS_FILE).exists()


@pytest.mark.parametrize(
    ("known", "match"), [({}, "not among this site's peers"), ({"cedar": "dogwood"}, "another key than in node.peers")]
)
def test_a_site_that_the_coordinator_slipped_in_is_refused(tmp_path, known, match):
    peers = write_peers(tmp_path / "peers", birch=openssh("birch"), **{site: openssh(key) for site, key in known.items()})
    led = Round(make_sites(tmp_path, ash=peers))
    with pytest.raises(ProtocolError, match=match):
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
    assert len(content[REPORT][PAYLOAD]) == 32 + 4 * (4 + 1 + 3 + 1)
    assert led.sites["ash"]._attempt.update == {}


@pytest.mark.parametrize("executor", ["resident", "flower"])
def test_only_a_process_that_lives_on_is_given_the_key(tmp_path, executor):
    config = SiteConfig.from_yaml(write_site(tmp_path, executor=executor))
    config = config.model_copy(update={"node": config.node.model_copy(update={"peers": tmp_path / "peers"})})
    spec = next(spec for spec in make_specs(config, config_path=tmp_path / "site.yaml") if spec.name == "executor")
    given = {KEY_VARIABLE, PEERS_VARIABLE} & set(spec.environment)
    assert given == ({KEY_VARIABLE, PEERS_VARIABLE} if executor == "resident" else set())
