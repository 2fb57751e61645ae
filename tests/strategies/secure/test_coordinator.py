"""What the coordinator refuses of a site, and what it notices when the masks are off."""

import tracemalloc

import pytest

from gmmas_schema.errors import FederationError, ProtocolError, ReasonCode
from strategies.secure.coordinator import CoordinatorHalf
from strategies.secure.documents import HEAD_BYTES, Unmasking, write
from tests.strategies.secure.attempts import IDENTITIES, KEYS, SITES, Attempt, make_terms, make_updates
from tests.strategies.secure.refusals import TERMS, UPDATES, WEIGHTS, advertised, attempt, bad_keys, refused, signed_by


@pytest.mark.parametrize("how", bad_keys())
def test_forged_replayed_and_foreign_keys_are_refused_by_the_coordinator(how):
    half = CoordinatorHalf(TERMS, IDENTITIES)
    with pytest.raises(ProtocolError):
        half.add_advertisement("elm", write(bad_keys()[how]))
    half.add_advertisement("elm", write(advertised()))  # the true one still counts


@pytest.mark.parametrize("fault", ["another site's key", "one key for both", "small order"])
def test_keys_that_every_site_would_refuse_are_refused_of_their_sender_alone(fault):
    half, elm, ash = CoordinatorHalf(TERMS, IDENTITIES), advertised("elm"), advertised("ash")
    half.add_advertisement("ash", write(ash))
    keys = {
        "another site's key": {"mask_key": ash.box_key},
        "one key for both": {"mask_key": elm.box_key},
        "small order": {"mask_key": bytes(32)},
    }[fault]
    with refused():
        half.add_advertisement("elm", write(signed_by(KEYS["elm"], elm.model_copy(update=keys))))


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
        begun.half.add_masked(name, raw[:HEAD_BYTES] + bytes(len(raw) - HEAD_BYTES) if name == "cedar" else raw)
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
    assert {len(raw) for raw in begun.masked.values()} == {HEAD_BYTES + 6 * 4}  # not even a masked vector of it leaves


def test_a_group_whose_holders_dropped_out_to_two_stays_closed():
    held = {name: ("fusion", "decoder") if name in ("ash", "birch", "cedar") else ("fusion",) for name in SITES}
    updates, weights = make_updates(3, held=held)
    begun = Attempt(TERMS, updates, weights).run(gone_at=((), (), ("cedar",)))
    assert begun.result.refused == {"decoder": "fewer than 3 holders"}
    answers = [Unmasking.model_validate_json(raw) for raw in begun.unmaskings.values()]
    assert all("decoder" not in shares for answer in answers for shares in answer.seeds.values())


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


def test_the_coordinator_holds_one_sum_however_many_vectors_come():
    """Peak memory of taking masked vectors of 1.6 MB, two against five of them."""

    def peak(sites):
        sizes = {"fusion": 400_000}
        updates, weights = make_updates(4, sites=SITES, sizes=sizes)
        begun = Attempt(make_terms(threshold=3, sizes=sizes), updates, weights).run(until=2)
        for name in sites[:1]:  # the sum itself
            begun.half.add_masked(name, begun.sites[name].mask(begun.inboxes[name], updates[name]))
        tracemalloc.start()
        for name in sites[1:]:
            begun.half.add_masked(name, begun.sites[name].mask(begun.inboxes[name], updates[name]))
        found = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return found

    (left_of_two, peak_of_two), (left_of_five, peak_of_five) = peak(SITES[:2]), peak(SITES)
    assert left_of_five - left_of_two < 100_000
    assert peak_of_five - peak_of_two < 100_000
