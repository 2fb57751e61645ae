"""What a coordinator that lies gets from a site: another model, another weighting, the same request again, two questions for one."""

import numpy as np
import pytest

from client.secure import SecureSite
from client.secure_records import LEDGER_FILE
from gmmas_schema.errors import PolicyError, ProtocolError, ReasonCode
from gmmas_schema.privacy import PrivacyConfig
from gmmas_schema.strategy import HoldersStrategy, PseudoTerms
from gmmas_schema.vocabulary import Region
from strategies.secure.coordinator import CoordinatorHalf
from strategies.secure.documents import Advertisement, UnmaskRequest, write
from strategies.secure.ledger import LedgerDocument
from strategies.secure.vectors import group_hashes
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
