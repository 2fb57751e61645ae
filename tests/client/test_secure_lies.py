"""What a coordinator that lies gets from a site: another model, another weighting, the same request again, two questions for one."""

import numpy as np
import pytest

from client.secure import SecureSite
from client.secure_records import LEDGER_FILE
from gmmas_schema.errors import FederationError, PolicyError, ProtocolError, ReasonCode
from gmmas_schema.privacy import PrivacyConfig
from gmmas_schema.strategy import HoldersStrategy, PseudoTerms
from gmmas_schema.vocabulary import Region
from strategies.secure.coordinator import CoordinatorHalf
from strategies.secure.documents import Advertisement, UnmaskRequest, write
from strategies.secure.ledger import LedgerDocument
from strategies.secure.vectors import group_hashes
from strategies.secure_letters import write_phase
from tests.client.secure_rounds import (
    MODEL,
    SITES,
    TRAINED,
    Round,
    ask,
    begin,
    make_request,
    make_sites,
    openssh,
    question,
    report_of,
)
from tests.strategies.secure.attempts import IDENTITIES, KEYS


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
    [
        {"strategy": HoldersStrategy(weights="uniform")},
        {"pseudo": PseudoTerms(weights={Region.WT: 1.0})},
        {"pseudo": PseudoTerms(limits={"decoder": 0.0})},
    ],
    ids=["another strategy", "other pseudo-labels", "other limits"],
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


FOUR = ("ash", "birch", "cedar", "dogwood")
THREE = FOUR[1:]


def test_a_smaller_attempt_at_a_round_is_refused_before_training_and_after_a_restart(tmp_path):
    """Its sum, taken from that of the first attempt, would be ash's update; dogwood, which helps, need not care who opened which."""
    sites = make_sites(tmp_path, FOUR)
    first = Round(sites, invited=FOUR, threshold=3)
    first.share()
    first.mask()
    _, smaller = make_request(invited=THREE, threshold=2, attempt=2)
    again = SecureSite(KEYS["birch"], folder=tmp_path / "birch")
    for site in (sites["birch"], again):
        with pytest.raises(ProtocolError, match="under another threshold") as caught:
            site.check(smaller, MODEL)
        assert caught.value.code is ReasonCode.TRUST
    for changes in ({"threshold": 4}, {"invited": (*FOUR, "elm")}, {"invited": FOUR[:3]}):
        with pytest.raises(ProtocolError, match="under another threshold"):
            again.check(make_request(**({"invited": FOUR, "threshold": 3, "attempt": 2} | changes))[1], MODEL)
    again.check(make_request(invited=FOUR, threshold=3, attempt=2)[1], MODEL)
    again.check(make_request(2, invited=THREE, threshold=2)[1], MODEL)


def test_a_private_round_is_not_released_twice_by_attempts_of_other_sizes(tmp_path):
    """Without a rule for companies both noisy sums were opened: each site had been asked for one, and had booked one round."""
    privacy = PrivacyConfig(clip_norm=1.0, noise_multiplier=2.0, epsilon=4.0)
    sites = make_sites(tmp_path, FOUR)
    first = Round(sites, privacy=privacy, invited=FOUR, threshold=3)
    first.share()
    first.mask()
    with pytest.raises(ProtocolError, match="under another threshold"):
        Round({name: sites[name] for name in THREE}, privacy=privacy, invited=THREE, threshold=2, attempt=2)


def test_a_round_is_tried_again_by_those_of_its_sites_that_are_left(tmp_path):
    """Masked updates have left when two are lost, one with its process and secrets: three of the four the round began with finish it."""
    sites = make_sites(tmp_path, FOUR)
    trained = {name: {key: value + np.float32(0.01 * number) for key, value in MODEL.items()} for number, name in enumerate(FOUR, start=1)}
    first = Round(sites, invited=FOUR, threshold=3, trained=trained)
    first.share()
    first.mask()
    first.lose("birch", "dogwood")
    with pytest.raises(FederationError, match="too few sites are left"):
        first.agree()
    sites["birch"] = SecureSite(KEYS["birch"], folder=tmp_path / "birch")
    second = Round({name: sites[name] for name in FOUR[:3]}, invited=FOUR, threshold=3, attempt=2, trained=trained)
    found = second.finish().groups["fusion"]
    assert found.sites == FOUR[:3]
    np.testing.assert_allclose(found.mean_E, 0.02, atol=4e-6)


PRIVATE = {"privacy": PrivacyConfig(clip_norm=1.0, noise_multiplier=2.0, epsilon=4.0)}


@pytest.mark.parametrize("changes", [{"run": "another run"}, {"round": 9}, {"run": "another run", "round": 9}], ids=str)
@pytest.mark.parametrize("phase", [1, 2, 3, 4])
def test_a_phase_cannot_be_booked_under_another_run_or_round(tmp_path, changes, phase):
    """The site books, answers and records by the terms that it trained for: else the budget would be that of a run with nothing in it."""
    sites = make_sites(tmp_path)
    led = Round(sites, 3, **PRIVATE)
    for step in (led.share, led.mask, led.agree)[: phase - 1]:
        step()
    payload = {1: led.roster, 2: led.inboxes["ash"] if phase > 1 else b"", 3: b"", 4: b""}[phase]
    asked = question(phase, number=3, identities=led.identities if phase == 1 else {}, attempt=led.attempt, **changes)
    with pytest.raises(ProtocolError, match="does not take part"):
        sites["ash"].answer(write_phase(asked, payload))
    for step in (led.share, led.mask, led.agree, led.unmask)[phase - 1 :]:
        result = step()
    assert set(result.groups) == {"fusion", "decoder"}, "a message with a foreign name does no harm to the attempt"
    kept = LedgerDocument.model_validate_json((tmp_path / "ash" / LEDGER_FILE).read_bytes())
    assert kept.released == {"run": (3,)}
    assert set(kept.opened) == set(kept.masked) == {"run"}
    assert set(kept.opened["run"]) == set(kept.masked["run"]) == {3}


def test_an_account_is_held_against_every_round_whatever_a_phase_calls_it(tmp_path):
    """Three rounds are affordable; the fourth is refused although each phase was asked for in the name of a first round elsewhere."""
    sites = make_sites(tmp_path)
    for number in (1, 2, 3):
        led = Round(sites, number, **PRIVATE)
        led.share()
        masked = question(2, number=1, attempt=led.attempt, run="another run")
        with pytest.raises(ProtocolError, match="does not take part"):
            sites["ash"].answer(write_phase(masked, led.inboxes["ash"]))
        led.mask()
    with pytest.raises(PolicyError, match="budget of this run is spent"):
        begin_private(sites["ash"], 4, PRIVATE["privacy"])


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
    begin_private(sites["ash"], 2, privacy)
    with pytest.raises(PolicyError, match="another than it began with") as caught:
        begin_private(SecureSite(KEYS["ash"], folder=tmp_path / "ash"), 2, privacy.model_copy(update={"epsilon": 400.0}))
    assert caught.value.code is ReasonCode.POLICY_PRIVACY
    with pytest.raises(PolicyError, match="another than it began with"):
        begin_private(sites["ash"], 2, privacy.model_copy(update={"noise_multiplier": 1.0}))


def begin_private(site, number, privacy):
    begin(site, make_request(number, promised=privacy, privacy=privacy)[1])
