"""What a site or the coordinator refuses: keys that are not what they seem, views that differ, secrets that must not meet."""

import re

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from gmmas_schema.errors import FederationError, ModelError, ProtocolError, ReasonCode
from gmmas_schema.secure import SecureConfig
from strategies.secure.coordinator import CoordinatorHalf
from strategies.secure.documents import (
    Advertisement,
    Agreement,
    Inbox,
    Roster,
    ShareParcel,
    Survivors,
    Terms,
    Unmasking,
    UnmaskRequest,
    write,
)
from strategies.secure.keys import KeyPair, sign
from strategies.secure.ledger import LedgerDocument, OpenedSums
from strategies.secure.site import Phase, SiteHalf
from tests.strategies.secure.attempts import IDENTITIES, KEYS, SITES, SIZES, Attempt, make_site, make_sites, make_terms, make_updates

TERMS = make_terms(threshold=3)
UPDATES, WEIGHTS = make_updates(9)


def attempt(until=5, terms=TERMS, **options):
    return Attempt(terms, UPDATES, WEIGHTS, **options).run(until=until)


def signed_by(key, advertisement):
    return advertisement.model_copy(update={"signature": sign(key, *advertisement.signed_parts())})


def advertised(site="elm", terms=TERMS):
    return Advertisement.model_validate_json(make_site(site, terms).advertise(WEIGHTS[site]))


def refused(code=ReasonCode.TRUST, match=""):
    return pytest.raises(ProtocolError, match=rf"(?s){match}.*\[{code}\]|(?s:\[{code}\].*{match})")


def bad_keys():
    true = advertised()
    stranger = ec.generate_private_key(ec.SECP384R1())
    return {
        "signed by nobody": true.model_copy(update={"signature": bytes(100)}),
        "signed by a stranger": signed_by(stranger, true),
        "signed by another site": signed_by(KEYS["ash"], true),
        "keys exchanged after signing": true.model_copy(update={"box_key": KeyPair.make().public}),
        "groups added after signing": true.model_copy(update={"seeds": {**true.seeds, "head.idh": bytes(32)}}),
        "replayed from an attempt before": advertised(terms=make_terms(threshold=3, attempt=2)),
        "replayed from a round before": advertised(terms=make_terms(threshold=3, number=2)),
        "replayed from another run": advertised(terms=make_terms(threshold=3, run="other")),
        "replayed from before a restart": advertised(terms=make_terms(threshold=3, nonce=b"\1" * 32)),
        "replayed, under this attempt's name": advertised(terms=make_terms(threshold=3, attempt=2)).model_copy(
            update={"context": TERMS.context()}
        ),
    }


@pytest.mark.parametrize("how", bad_keys())
def test_forged_replayed_and_foreign_keys_are_refused_by_the_coordinator(how):
    half = CoordinatorHalf(TERMS, IDENTITIES)
    with pytest.raises(ProtocolError):
        half.add_advertisement("elm", write(bad_keys()[how]))
    half.add_advertisement("elm", write(advertised()))  # the true one still counts


@pytest.mark.parametrize("how", bad_keys())
def test_forged_replayed_and_foreign_keys_are_refused_by_every_site(how):
    begun = attempt(until=1)
    roster = Roster(members=(*(member for name, member in begun.members.items() if name != "elm"), bad_keys()[how]))
    for name in SITES[:4]:
        with pytest.raises(ProtocolError):
            begun.sites[name].share_keys(write(roster))
        assert begun.sites[name].next is Phase.MASK  # the phase is used up, so it cannot be tried with another roster


def test_a_site_that_nobody_enrolled_is_refused():
    begun = attempt(until=1)
    stranger = ec.generate_private_key(ec.SECP384R1())
    ghost = signed_by(
        stranger, begun.members["elm"].model_copy(update={"site": "ghost", "box_key": bytes(31) + b"\1", "mask_key": bytes(31) + b"\2"})
    )
    roster = Roster(members=(*(member for name, member in begun.members.items() if name != "elm"), ghost))
    with refused(match="unknown site"):
        begun.sites["ash"].share_keys(write(roster))


def test_a_site_finds_other_keys_under_its_own_name():
    begun = attempt(until=1)
    roster = Roster(members=(*(member for name, member in begun.members.items() if name != "elm"), advertised()))
    with refused(match="other keys under this site's name"):
        begun.sites["elm"].share_keys(write(roster))


@pytest.mark.parametrize("twice", ["site", "key"])
def test_a_roster_with_a_site_or_a_key_twice_is_refused(twice):
    begun = attempt(until=1)
    elm = begun.members["elm"]
    again = elm if twice == "site" else signed_by(KEYS["ash"], elm.model_copy(update={"site": "ash"}))
    members = (*(member for name, member in begun.members.items() if name != "ash" or twice == "site"), again)
    with refused(match="twice"):
        begun.sites["birch"].share_keys(write(Roster(members=members)))


def test_a_key_of_small_order_is_refused():
    with refused(match="gives no secret"):
        KeyPair.make().agree(bytes(32))


def test_a_roster_below_the_threshold_is_refused():
    begun = attempt(until=1)
    roster = Roster(members=tuple(begun.members[name] for name in SITES[:2]))
    with refused(ReasonCode.PROTOCOL, "2 sites"):
        begun.sites["ash"].share_keys(write(roster))


@pytest.mark.parametrize("how", ["changed", "of another recipient", "of another sender", "of another attempt", "short"])
def test_a_box_that_is_not_the_peers_own_is_refused(how):
    begun, before = attempt(until=2), attempt(until=2, terms=make_terms(threshold=3, attempt=2))
    boxes = dict(Inbox.model_validate_json(begun.inboxes["ash"]).boxes)
    elsewhere = Inbox.model_validate_json(begun.inboxes["birch"]).boxes
    boxes["elm"] = {
        "changed": boxes["elm"][:-1] + bytes([boxes["elm"][-1] ^ 1]),
        "of another recipient": elsewhere["elm"],
        "of another sender": boxes["cedar"],
        "of another attempt": Inbox.model_validate_json(before.inboxes["ash"]).boxes["elm"],
        "short": boxes["elm"][:-33],
    }[how]
    with refused(match="box of elm"):
        begun.sites["ash"].mask(write(Inbox(boxes=boxes)), UPDATES["ash"])


@pytest.mark.parametrize("peers", [("birch",), (), ("birch", "cedar", "nobody"), ("ash", "birch", "cedar")])
def test_an_inbox_of_too_few_unknown_or_own_boxes_is_refused(peers):
    begun = attempt(until=2)
    boxes = Inbox.model_validate_json(begun.inboxes["ash"]).boxes
    with refused(ReasonCode.PROTOCOL, "inbox"):
        begun.sites["ash"].mask(write(Inbox(boxes={peer: boxes.get(peer, boxes["elm"]) for peer in peers})), UPDATES["ash"])


@pytest.mark.parametrize("fault", ["missing", "long", "not finite"])
def test_an_update_that_does_not_fit_never_leaves(fault):
    begun = attempt(until=2)
    update = dict(UPDATES["ash"])
    update["fusion"] = {"missing": None, "long": np.zeros(6, np.float32), "not finite": np.full(5, np.nan, np.float32)}[fault]
    with pytest.raises(ModelError):
        begun.sites["ash"].mask(begun.inboxes["ash"], update)


@pytest.mark.parametrize("change", ["shorter", "longer", "another attempt", "twice", "a stranger's"])
def test_a_masked_vector_of_another_length_or_attempt_is_refused_and_not_added(change):
    begun, before = attempt(until=2), attempt(until=2, terms=make_terms(threshold=3, attempt=2))
    raw = begun.sites["elm"].mask(begun.inboxes["elm"], UPDATES["elm"])
    other = before.sites["elm"].mask(before.inboxes["elm"], UPDATES["elm"])
    if change == "twice":
        begun.half.add_masked("elm", raw)
    wrong = {"shorter": raw[:-4], "longer": raw + bytes(4), "another attempt": other}.get(change, raw)
    with refused(ReasonCode.PROTOCOL, "masked vector"):
        begun.half.add_masked("stranger" if change == "a stranger's" else "elm", wrong)
    begun.lose(["elm"])
    begun.mask()
    begun.agree()
    begun.unmask()
    expected = SITES if change == "twice" else SITES[:4]
    assert begun.result.groups["fusion"].sites == expected


def test_both_secrets_of_one_site_are_not_given():
    begun = attempt(until=4)
    asked = UnmaskRequest.model_validate_json(begun.request)
    with refused(match="both secrets of elm asked for"):
        begun.sites["ash"].unmask(write(asked.model_copy(update={"dropped": ("elm",)})))


@pytest.mark.parametrize(
    "change", ["a survivor missing", "a survivor called dropped", "a dropped one called survivor", "the dropped missing"]
)
def test_secrets_of_other_sites_than_were_agreed_on_are_not_given(change):
    begun = Attempt(TERMS, UPDATES, WEIGHTS).run(until=4, gone_at=((), (), ("elm",)))
    asked = UnmaskRequest.model_validate_json(begun.request)
    assert asked.dropped == ("elm",)
    survivors, dropped = {
        "a survivor missing": (asked.survivors[:-1], asked.dropped),
        "a survivor called dropped": (asked.survivors[:-1], (*asked.dropped, asked.survivors[-1])),
        "a dropped one called survivor": ((*asked.survivors, "elm"), ()),
        "the dropped missing": (asked.survivors, ()),
    }[change]
    with refused(match="other sites than this site has signed"):
        begun.sites["ash"].unmask(write(asked.model_copy(update={"survivors": survivors, "dropped": dropped})))


def test_different_survivors_shown_to_different_sites_are_detected():
    """Half of the sites are told that elm dropped out, the other half that it did not: nobody gives any share."""
    begun = attempt(until=3)
    stories = {name: SITES if name in ("ash", "elm") else SITES[:4] for name in SITES}
    signatures = {
        name: Agreement.model_validate_json(begun.sites[name].agree(write(Survivors(sites=story)))).signature
        for name, story in stories.items()
    }
    for name, story in stories.items():
        request = UnmaskRequest(
            agreements={other: signatures[other] for other in story}, survivors=story, dropped=tuple(set(SITES) - set(story))
        )
        with refused(match="a signature that does not fit"):
            begun.sites[name].unmask(write(request))


def test_agreements_of_too_few_are_not_enough():
    begun = attempt(until=3)
    stories = {name: SITES if name in ("ash", "elm") else SITES[:4] for name in SITES}
    signatures = {
        name: Agreement.model_validate_json(begun.sites[name].agree(write(Survivors(sites=story)))).signature
        for name, story in stories.items()
    }
    same = {name: signature for name, signature in signatures.items() if stories[name] == stories["ash"]}
    with refused(match="2 agreements"):
        begun.sites["ash"].unmask(write(UnmaskRequest(agreements=same, survivors=SITES, dropped=())))


def test_different_rosters_or_inboxes_shown_to_different_sites_are_detected():
    begun = attempt(until=1)
    short = write(Roster(members=tuple(begun.members[name] for name in SITES[:4])))
    views = {name: short if name in ("ash", "birch") else begun.roster for name in SITES}
    shares = {name: begun.sites[name].share_keys(views[name]) for name in SITES}
    boxes = {name: ShareParcel.model_validate_json(raw).boxes for name, raw in shares.items()}
    first = SITES[:4]
    for name in first:
        begun.sites[name].mask(write(Inbox(boxes={peer: boxes[peer][name] for peer in first if peer != name})), UPDATES[name])
    signatures = {name: Agreement.model_validate_json(begun.sites[name].agree(write(Survivors(sites=first)))).signature for name in first}
    for name in first:
        with refused(match="a signature that does not fit"):
            begun.sites[name].unmask(write(UnmaskRequest(agreements=signatures, survivors=first, dropped=())))


@pytest.mark.parametrize(
    "sites", [("ash", "birch"), ("birch", "cedar", "elm"), ("ash", "birch", "nobody"), ("ash", "ash", "birch", "cedar")]
)
def test_survivors_too_few_without_this_site_unknown_or_twice_are_not_signed(sites):
    begun = attempt(until=3)
    with refused(ReasonCode.PROTOCOL, "survivors"):
        begun.sites["ash"].agree(write(Survivors(sites=sites)))


def test_a_phase_is_answered_once_and_in_its_turn():
    begun = attempt(until=4)
    with refused(ReasonCode.PROTOCOL, "AGREE"):
        begun.sites["ash"].agree(begun.survivors)
    assert begun.sites["ash"].next is Phase.OVER
    with refused(ReasonCode.PROTOCOL, "OVER"):
        begun.sites["ash"].unmask(begun.request)
    begun.sites["birch"].unmask(begun.request)
    with refused(ReasonCode.PROTOCOL, "each phase once"):
        begun.sites["birch"].unmask(begun.request)


def test_nothing_secret_is_left_at_a_site_when_the_attempt_is_over():
    begun = attempt()
    for site in begun.sites.values():
        assert not site._seeds
        assert not site._pairs
        assert not site._shares
        assert not site._own_shares
        assert not site._mask.private
        assert not site._box.private


def test_private_keys_are_in_no_representation():
    pair = KeyPair.make()
    assert repr(pair.private)[2:-1] not in repr(pair)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"threshold": 2}, "threshold"),
        ({"threshold": 6}, "threshold"),
        ({"minimum_holders": 2}, "minimum_holders"),
        ({"sites": 2}, "sites"),
        ({"ring_bits": 8}, "ring_bits"),
        ({"sizes": {}}, "sizes"),
        ({"sizes": {"weights": 3}}, "sizes"),
        ({"clip": {}}, "clip"),
        ({"sizes": {**SIZES, "fusion": 2**40}}, "fusion"),
        ({"weight_limit": 0}, "weight_limit"),
    ],
)
def test_unsound_terms_are_no_terms(change, key):
    with pytest.raises(ValidationError, match=re.escape(key)):
        Terms.model_validate(TERMS.model_dump() | change)


@pytest.mark.parametrize("own", [{"sizes": {**SIZES, "fusion": 6}}, {"subject": "1" * 64}])
def test_a_site_refuses_terms_for_another_model_or_request(own):
    known = {"sizes": SIZES, "subject": TERMS.subject} | own
    with refused(ReasonCode.PROTOCOL, "another model or another request"):
        SiteHalf("ash", terms=TERMS, identity=KEYS["ash"], identities=IDENTITIES, opened=OpenedSums(), **known)


@pytest.mark.parametrize("weights", [{"fusion": 0.0}, {"fusion": -1.0}, {"fusion": float("nan")}, {"head.idh": 1.0}])
def test_a_weight_that_is_none_is_refused(weights):
    with pytest.raises(ModelError, match="weight"):
        make_site("ash", TERMS).advertise(weights)


def test_a_document_that_is_too_long_is_not_parsed():
    half = CoordinatorHalf(TERMS, IDENTITIES)
    with refused(ReasonCode.PROTOCOL, "at most 49152"):
        half.add_advertisement("elm", b"{" * 49153)
    for raw in (b"", b"[]", b"{}", b"\xff\xfe", b'{"site": 1}'):
        with refused(ReasonCode.PROTOCOL):
            half.add_advertisement("elm", raw)


def test_a_false_share_is_noticed():
    begun = attempt(until=4)
    for name in SITES:
        raw = begun.sites[name].unmask(begun.request)
        if name == "ash":
            answer = Unmasking.model_validate_json(raw)
            seeds = {site: dict(shares) for site, shares in answer.seeds.items()}
            seeds["elm"]["fusion"] = bytes(33)
            raw = write(answer.model_copy(update={"seeds": seeds}))
        begun.half.add_unmasking(name, raw)
    with pytest.raises(FederationError, match="the seed of elm for fusion"):
        begun.half.result()


def test_a_false_share_of_a_dropped_sites_key_is_noticed():
    begun = Attempt(TERMS, UPDATES, WEIGHTS).run(until=4, gone_at=((), (), ("elm",)))
    for name in begun.alive:
        answer = Unmasking.model_validate_json(begun.sites[name].unmask(begun.request))
        begun.half.add_unmasking(name, write(answer.model_copy(update={"keys": {"elm": bytes(33)}}) if name == "ash" else answer))
    with pytest.raises(FederationError, match="the mask key of elm"):
        begun.half.result()


@pytest.mark.parametrize("change", ["another group", "another site", "no keys"])
def test_an_answer_with_other_shares_than_were_asked_for_is_refused(change):
    begun = attempt(until=4)
    answer = Unmasking.model_validate_json(begun.sites["ash"].unmask(begun.request))
    seeds = {site: dict(shares) for site, shares in answer.seeds.items()}
    keys = dict(answer.keys)
    if change == "another group":
        del seeds["elm"]["fusion"]
    elif change == "another site":
        del seeds["elm"]
    else:
        keys["elm"] = bytes(33)
    with refused(ReasonCode.PROTOCOL, "other sites or groups"):
        begun.half.add_unmasking("ash", write(answer.model_copy(update={"seeds": seeds, "keys": keys})))


def test_a_vector_that_is_no_update_is_noticed():
    begun = attempt(until=2)
    for name in SITES:
        raw = begun.sites[name].mask(begun.inboxes[name], UPDATES[name])
        begun.half.add_masked(name, raw[:32] + bytes(len(raw) - 32) if name == "cedar" else raw)
    begun.survivors = begun.half.survivors()
    begun.agree()
    with pytest.raises(FederationError, match="the sum of"):
        begun.unmask()


def test_a_group_of_two_holders_is_never_opened():
    held = {name: ("fusion", "decoder") if name in ("ash", "birch") else ("fusion",) for name in SITES}
    updates, weights = make_updates(3, held=held)
    begun = Attempt(TERMS, updates, weights).run()
    assert begun.result.refused == {"decoder": "fewer than 3 holders"}
    assert set(begun.result.groups) == {"fusion"}
    assert {len(raw) for raw in begun.masked.values()} == {32 + 6 * 4}  # not even a masked vector of it leaves


def test_a_group_whose_holders_dropped_out_to_two_stays_closed():
    held = {name: ("fusion", "decoder") if name in ("ash", "birch", "cedar") else ("fusion",) for name in SITES}
    updates, weights = make_updates(3, held=held)
    begun = Attempt(TERMS, updates, weights).run(gone_at=((), (), ("cedar",)))
    assert begun.result.refused == {"decoder": "fewer than 3 holders"}
    answers = [Unmasking.model_validate_json(raw) for raw in begun.unmaskings.values()]
    assert all("decoder" not in shares for answer in answers for shares in answer.seeds.values())


def again(ledgers, **options):
    return Attempt(make_terms(threshold=3, attempt=2, **options), UPDATES, WEIGHTS, ledgers=ledgers)


def test_the_same_sum_may_be_opened_again_and_a_smaller_one_may_not():
    ledgers = {name: OpenedSums() for name in SITES}
    first = attempt(ledgers=ledgers).result
    kept = {name: OpenedSums(LedgerDocument.model_validate_json(ledger.document().model_dump_json())) for name, ledger in ledgers.items()}
    second = again(kept).run().result
    assert second.refused == {}
    assert all(second.groups[group].mean_E.tobytes() == first.groups[group].mean_E.tobytes() for group in SIZES)
    third = again(kept).run(gone_at=((), (), ("elm",))).result
    assert third.groups == {}
    assert third.refused == dict.fromkeys(SIZES, "opened for other sites before")
    fourth = Attempt(make_terms(threshold=3, number=2), UPDATES, WEIGHTS, ledgers=kept).run(gone_at=((), (), ("elm",)))
    assert set(fourth.result.groups) == set(SIZES)  # another round is another sum


def test_the_same_sites_are_not_asked_with_other_weights_or_clips():
    ledgers = {name: OpenedSums() for name in SITES}
    attempt(ledgers=ledgers)
    for config in (SecureConfig(weight_limit=1.0), SecureConfig(clip=0.01), SecureConfig(bits=12)):
        assert again(ledgers, config=config).run().result.groups == {}


def test_the_coordinator_refuses_what_it_did_not_ask_for():
    begun = attempt(until=1)
    with refused(ReasonCode.TRUST, "keys of elm"):
        begun.half.add_advertisement("ash", begun.advertisements["elm"])
    with refused(ReasonCode.TRUST, "twice"):
        begun.half.add_advertisement("elm", begun.advertisements["elm"])
    raw = begun.sites["ash"].share_keys(begun.roster)
    with refused(ReasonCode.PROTOCOL):
        begun.half.add_shares("elm", raw)
    with pytest.raises(FederationError, match="too few sites are left"):
        begun.half.inboxes()


def test_sites_are_made_for_each_attempt_anew():
    first, second = make_sites(TERMS), make_sites(TERMS)
    assert first["ash"].advertise(WEIGHTS["ash"]) != second["ash"].advertise(WEIGHTS["ash"])
