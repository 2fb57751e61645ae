"""What a site refuses: keys that are not what they seem, views that differ, secrets that must not meet."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gmmas_schema.errors import ModelError, ProtocolError, ReasonCode
from strategies.secure.coordinator import CoordinatorHalf
from strategies.secure.documents import (
    DIGEST_BYTES,
    HEAD_BYTES,
    Agreement,
    Inbox,
    Roster,
    ShareParcel,
    Survivors,
    UnmaskRequest,
    write,
)
from strategies.secure.ledger import OpenedSums
from strategies.secure.site import Phase, SiteHalf
from tests.strategies.secure.attempts import IDENTITIES, KEYS, SITES, SIZES, Attempt, make_site, make_sites, make_terms
from tests.strategies.secure.refusals import TERMS, UPDATES, WEIGHTS, advertised, attempt, bad_keys, refused, signed_by


@pytest.mark.parametrize("how", bad_keys())
def test_forged_replayed_and_foreign_keys_are_refused_by_every_site(how):
    begun = attempt(until=1)
    roster = Roster(members=(*(member for name, member in begun.members.items() if name != "elm"), bad_keys()[how]))
    for name in SITES[:4]:
        with pytest.raises(ProtocolError):
            begun.sites[name].share_keys(write(roster))
        assert begun.sites[name].next is Phase.MASK  # the phase is used up, so it cannot be tried with another roster


def with_a_ghost(members):
    """Return a roster in which a stranger stands for elm."""
    stranger = ec.generate_private_key(ec.SECP384R1())
    keys = {"site": "ghost", "box_key": bytes(31) + b"\1", "mask_key": bytes(31) + b"\2"}
    ghost = signed_by(stranger, members["elm"].model_copy(update=keys))
    return write(Roster(members=(*(member for name, member in members.items() if name != "elm"), ghost)))


def test_a_site_that_nobody_enrolled_is_refused():
    terms = make_terms(threshold=4, invited=(*SITES, "ghost"))
    begun = attempt(until=1, terms=terms)
    with refused(match="unknown site"):
        begun.sites["ash"].share_keys(with_a_ghost(begun.members))


def test_a_site_that_is_not_invited_is_refused_whatever_its_key():
    begun = attempt(until=1)
    with refused(ReasonCode.PROTOCOL, "ghost"):
        begun.sites["ash"].share_keys(with_a_ghost(begun.members))
    with refused(ReasonCode.PROTOCOL, "terms that invite this site"):
        make_site("ash", make_terms(invited=SITES[1:]))


def test_one_identity_under_two_names_is_refused():
    """birch, which helps the coordinator, stands for elm as well: two of the three behind a sum, and two of the threshold."""
    begun = attempt(until=1)
    again = signed_by(KEYS["birch"], begun.members["elm"])
    roster = Roster(members=(*(member for name, member in begun.members.items() if name != "elm"), again))
    for name in ("ash", "cedar"):
        begun.sites[name]._identities = IDENTITIES | {"elm": IDENTITIES["birch"]}
    with refused(match="one key under two names, birch and elm"):
        begun.sites["ash"].share_keys(write(roster))
    half = CoordinatorHalf(TERMS, IDENTITIES | {"elm": IDENTITIES["birch"]})
    half.add_advertisement("birch", begun.advertisements["birch"])
    with refused(match="one key under two names, birch and elm"):
        half.add_advertisement("elm", write(again))


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


def test_a_roster_below_the_threshold_is_refused():
    begun = attempt(until=1)
    roster = Roster(members=tuple(begun.members[name] for name in SITES[:2]))
    with refused(ReasonCode.PROTOCOL, "3 or more of ash"):
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


def survivors(begun, names):
    """Return what a coordinator tells of survivors, with what each signed when it masked, as far as it did."""
    signed = Survivors.model_validate_json(begun.survivors).sites
    return write(Survivors(sites={name: signed.get(name, bytes(96)) for name in names}))


def boxes_for(boxes, name, masking):
    """Return a site's inbox from these sites."""
    return write(Inbox(boxes={peer: boxes[peer][name] for peer in masking if peer != name}))


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
        name: Agreement.model_validate_json(begun.sites[name].agree(survivors(begun, story))).signature for name, story in stories.items()
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
        name: Agreement.model_validate_json(begun.sites[name].agree(survivors(begun, story))).signature for name, story in stories.items()
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
    signed = {name: begun.sites[name].mask(boxes_for(boxes, name, first), UPDATES[name])[DIGEST_BYTES:HEAD_BYTES] for name in first}
    for name in first:
        with refused(match="those among whom (cedar|ash) has masked"):
            begun.sites[name].agree(write(Survivors(sites=signed)))


@pytest.mark.parametrize("sites", [("ash", "birch"), ("birch", "cedar", "elm"), ("ash", "birch", "nobody")])
def test_survivors_too_few_without_this_site_or_unknown_are_not_signed(sites):
    begun = attempt(until=3)
    with refused(ReasonCode.PROTOCOL, "survivors"):
        begun.sites["ash"].agree(survivors(begun, sites))


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


@pytest.mark.parametrize("own", [{"sizes": {**SIZES, "fusion": 6}}, {"subject": "1" * 64}])
def test_a_site_refuses_terms_for_another_model_or_request(own):
    known = {"sizes": SIZES, "subject": TERMS.subject} | own
    with refused(ReasonCode.PROTOCOL, "another model or another request"):
        SiteHalf("ash", terms=TERMS, identity=KEYS["ash"], identities=IDENTITIES, opened=OpenedSums(), **known)


@pytest.mark.parametrize("weights", [{"fusion": 0.0}, {"fusion": -1.0}, {"fusion": float("nan")}, {"head.idh": 1.0}])
def test_a_weight_that_is_none_is_refused(weights):
    with pytest.raises(ModelError, match="weight"):
        make_site("ash", TERMS).advertise(weights)


def test_sites_are_made_for_each_attempt_anew():
    first, second = make_sites(TERMS), make_sites(TERMS)
    assert first["ash"].advertise(WEIGHTS["ash"]) != second["ash"].advertise(WEIGHTS["ash"])
