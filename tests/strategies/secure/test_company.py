"""One company a round: what attempts with other sites, other thresholds or other inboxes would uncover, and do not.

Each attack is also made with the defence taken out: it must succeed there, or the test would show nothing.
"""

from itertools import combinations

import numpy as np
import pytest

from gmmas_schema.errors import ProtocolError
from strategies.secure import site as site_module
from strategies.secure.documents import (
    ALL_GROUPS,
    HEAD_BYTES,
    Agreement,
    Inbox,
    ShareParcel,
    Survivors,
    Unmasking,
    UnmaskRequest,
    write,
)
from strategies.secure.keys import KeyPair, check_signature
from strategies.secure.ledger import LedgerDocument, OpenedSums
from strategies.secure.masks import apply_mask
from strategies.secure.shamir import recover_bytes, weigh_shares
from strategies.secure.view import mask_label
from tests.strategies.secure.attempts import MORE_SITES, Attempt, make_terms, make_updates, sum_in_the_clear
from tests.strategies.secure.refusals import refused

FOUR = ("ash", "birch", "cedar", "dogwood")
THREE = ("birch", "cedar", "dogwood")
SIZES = {"fusion": 5}
UPDATES, WEIGHTS = make_updates(11, sites=FOUR, sizes=SIZES)


def among(names, ledgers, *, threshold, attempt=1, **changes):
    """Return an attempt that is about to begin; every site has its ledger of the attempts before."""
    terms = make_terms(invited=names, threshold=threshold, sizes=SIZES, attempt=attempt, **changes)
    return Attempt(terms, {name: UPDATES[name] for name in names}, WEIGHTS, ledgers=ledgers)


def open_by(attempt, asked):
    """Finish an attempt with the shares of these sites alone, and return the integers of the opened sum."""
    attempt.run(until=4)
    for name in asked:
        attempt.half.add_unmasking(name, attempt.sites[name].unmask(attempt.request))
    kept, decode = [], attempt.half._decode
    attempt.half._decode = lambda group, total, *, sites: kept.append(total.copy()) or decode(group, total, sites=sites)
    attempt.half.result()
    return kept


def subtract(ledgers):
    """Ask ash, birch and dogwood to open the sum of all four, then cedar and dogwood that of the three; return the difference."""
    (of_four,) = open_by(among(FOUR, ledgers, threshold=3), ("ash", "birch", "dogwood"))
    (of_three,) = open_by(among(THREE, ledgers, threshold=2, attempt=2), ("cedar", "dogwood"))
    return of_four - of_three


class Helper(OpenedSums):
    """The ledger of a site that helps the coordinator."""

    def check_company(self, run, number, *, company):
        pass

    def admit(self, run, number, *, question, sums, once=False):
        return frozenset()


def fresh():
    return {name: Helper() if name == "dogwood" else OpenedSums() for name in FOUR}


def test_a_smaller_attempt_after_a_larger_one_does_not_tell_the_difference():
    """Three of four and then two of three: no honest site opens both, and dogwood alone helps, where one may (c < 2 t - n = 2)."""
    with refused(match="another threshold"):
        subtract(fresh())


def test_without_the_rule_the_difference_is_an_update(monkeypatch):
    monkeypatch.setattr(OpenedSums, "check_company", lambda *_, **__: None)
    terms = make_terms(invited=FOUR, sizes=SIZES)
    # Three and four sites have other weight steps, which costs the attacker a rounding; with equal ones the difference is exact.
    monkeypatch.setattr("strategies.secure.fixed_point.weight_steps", lambda *_, **__: 1000)
    alone = sum_in_the_clear(terms, UPDATES, WEIGHTS, "fusion", ["ash"])
    assert subtract(fresh()).tobytes() == alone.tobytes()


@pytest.mark.parametrize(
    ("names", "threshold"),
    [(THREE, 2), (THREE, 3), (FOUR, 4), (("ash", "birch", "cedar"), 3), ((*FOUR, "elm"), 3), (("ash", "birch", "cedar", "elm"), 3)],
    ids=str,
)
def test_an_update_leaves_for_one_list_and_one_threshold_a_round(names, threshold):
    """Whether or not anything of the first attempt was opened: others may have done that."""
    ledger = OpenedSums()
    among(FOUR, {"birch": ledger}, threshold=3).run(until=3)
    kept = OpenedSums(LedgerDocument.model_validate_json(ledger.document().model_dump_json()))
    updates, weights = make_updates(11, sites=names, sizes=SIZES)
    terms = make_terms(invited=names, threshold=threshold, sizes=SIZES, attempt=2)
    again = Attempt(terms, updates, weights, ledgers={"birch": kept}).run(until=2)
    with refused(match="another threshold"):
        again.sites["birch"].mask(again.inboxes["birch"], updates["birch"])
    # Another round, and another run, have a company of their own.
    for changes in ({"number": 2}, {"run": "other"}):
        other = make_terms(invited=names, threshold=threshold, sizes=SIZES, **changes)
        Attempt(other, updates, weights, ledgers={"birch": kept}).run(until=3)


def test_an_attempt_that_did_not_come_to_the_masks_binds_nobody():
    ledgers = {name: OpenedSums() for name in FOUR}
    among(FOUR, ledgers, threshold=3).run(until=2)
    result = among(THREE, ledgers, threshold=2, attempt=2).run().result
    assert result.groups["fusion"].sites == THREE


def test_a_round_is_tried_again_with_those_of_its_sites_that_are_left():
    """dogwood is gone before the second attempt, elm of five in it: three of five are enough as they were in the first."""
    names = MORE_SITES[:5]
    updates, weights = make_updates(12, sites=names, sizes=SIZES)
    ledgers = {name: OpenedSums() for name in names}
    terms = [make_terms(invited=names, threshold=3, sizes=SIZES, attempt=number) for number in (1, 2)]
    Attempt(terms[0], updates, weights, ledgers=ledgers).run(until=4)
    left = {name: updates[name] for name in names if name != "dogwood"}
    again = Attempt(terms[1], left, weights, ledgers=ledgers).run(gone_at=((), (), ("elm",)))
    found = again.result.groups["fusion"]
    assert found.sites == ("ash", "birch", "cedar")
    total = sum_in_the_clear(terms[1], updates, weights, "fusion", found.sites)
    mean, _ = terms[1].grid().decode(total, clip=terms[1].clip["fusion"], limit=terms[1].weight_limit, sites=3)
    assert found.mean_E.tobytes() == mean.tobytes()


def can_open_both(helpers, first, second):
    """Return whether two sums with an honest site in both can be opened by disjoint sets of honest sites.

    Args:
        helpers: sites that help the coordinator in whatever it wants.
        first: sites and threshold of one attempt.
        second: of the other.
    """
    (names, threshold), (others, other_threshold) = first, second
    honest, honest_others = set(names) - helpers, set(others) - helpers
    if not honest & honest_others:
        return False
    missing = max(0, threshold - len(helpers & set(names)) - len(honest - honest_others))
    missing += max(0, other_threshold - len(helpers & set(others)) - len(honest_others - honest))
    return missing <= len(honest & honest_others)


def companies(names):
    return [(some, t) for size in range(3, len(names) + 1) for some in combinations(names, size) for t in range(size // 2 + 1, size + 1)]


def test_no_two_sums_are_opened_in_one_company_by_fewer_helpers_than_the_bound():
    """Every company of up to six sites and every set of helpers: with as many as 2 t - n both can be, with fewer not."""
    for names, threshold in companies(MORE_SITES[:6]):
        bound = 2 * threshold - len(names)
        for size in range(len(names) - 1):
            for helpers in combinations(names, size):
                assert can_open_both(set(helpers), (names, threshold), (names, threshold)) is (size >= bound)


def test_in_two_companies_they_are():
    """Any other list or threshold that a rule might let through, with fewer helpers than either attempt promises."""
    found = []
    for first, second in combinations(companies(MORE_SITES[:4]), 2):
        promised = min(2 * threshold - len(names) for names, threshold in (first, second))
        several = [set(some) for size in range(promised) for some in combinations(MORE_SITES[:4], size)]
        if any(can_open_both(helpers, first, second) for helpers in several):
            found.append((len(first[0]), first[1], len(second[0]), second[1]))
    assert (3, 2, 3, 2) in found, "a site exchanged: two of three, and two of three others, without any helper"
    assert can_open_both({"dogwood"}, (FOUR, 3), (THREE, 2)), "a site gone: c = 1, promised to ash c < 2"


# A group with few holders: ash is shown birch, who then is gone, and not cedar, who stays. With dogwood's help ash would be alone.
SEVEN = MORE_SITES[:7]
SPLIT_SIZES = {"fusion": 4, "decoder": 6}
HELD = {name: ("fusion", "decoder") if name in FOUR else ("fusion",) for name in SEVEN}


def split_inboxes():
    """Let all but birch mask, ash without cedar's box; return the attempt and what everybody is told of survivors."""
    updates, weights = make_updates(13, sites=SEVEN, sizes=SPLIT_SIZES, held=HELD)
    begun = Attempt(make_terms(invited=SEVEN, sizes=SPLIT_SIZES), updates, weights).run(until=1)
    assert begun.terms.threshold == 5
    begun.boxes = {name: ShareParcel.model_validate_json(begun.sites[name].share_keys(begun.roster)).boxes for name in SEVEN}
    for name in SEVEN:
        if name != "birch":
            shown = set(SEVEN) - {name} - ({"cedar"} if name == "ash" else set())
            inbox = write(Inbox(boxes={peer: begun.boxes[peer][name] for peer in shown}))
            begun.masked[name] = begun.sites[name].mask(inbox, updates[name])
    return begun, write(Survivors(sites={name: raw[32:HEAD_BYTES] for name, raw in begun.masked.items()}))


SIGNERS = ("cedar", "dogwood", "elm", "fir", "gum")


def offset_of(group):
    """Return how many integers of a masked vector of both groups stand before one of them."""
    order = [each for each in ALL_GROUPS if each in SPLIT_SIZES]
    return sum(SPLIT_SIZES[each] + 1 for each in order[: order.index(group)])


def test_a_site_that_masked_among_others_is_not_unmasked():
    begun, survivors = split_inboxes()
    for name in SIGNERS:
        with refused(match="those among whom ash has masked"):
            begun.sites[name].agree(survivors)


def test_without_the_signature_a_site_is_alone_in_a_group_with_few_holders(monkeypatch):
    """One helper (c < 2 t - n = 3), and five signatures of a view that ash never saw."""

    def check(identity, signature, *parts, where):
        if parts[0] != "masked":
            check_signature(identity, signature, *parts, where=where)

    monkeypatch.setattr(site_module, "check_signature", check)
    begun, survivors = split_inboxes()
    signed = {name: Agreement.model_validate_json(begun.sites[name].agree(survivors)).signature for name in SIGNERS}
    request = UnmaskRequest(agreements=signed, survivors=tuple(sorted(begun.masked)), dropped=("birch",))
    answers = {name: Unmasking.model_validate_json(begun.sites[name].unmask(write(request))) for name in SIGNERS}
    factors = weigh_shares([SEVEN.index(name) + 1 for name in SIGNERS])

    def recover(share_of):
        return recover_bytes({SEVEN.index(name) + 1: share_of(answer) for name, answer in answers.items()}, factors)

    label, own_key = mask_label(begun.terms.context(), "decoder"), begun.members["ash"].mask_key
    y = np.frombuffer(begun.masked["ash"], begun.terms.dtype(), 6 + 1, HEAD_BYTES + 4 * offset_of("decoder")).copy()
    apply_mask(y, recover(lambda answer: answer.seeds["ash"]["decoder"]), label=label, sign=-1)
    birch = KeyPair.from_private(recover(lambda answer: answer.keys["birch"]))
    for peer in (birch, begun.keys["dogwood"]):
        apply_mask(y, peer.agree(own_key), label=label, sign=-1)
    assert y.tobytes() == sum_in_the_clear(begun.terms, begun.updates, begun.weights, "decoder", ["ash"]).tobytes()


def test_a_masked_vector_without_its_signature_is_its_senders_fault_alone():
    begun, _ = split_inboxes()
    for name in SEVEN:
        begun.half.add_shares(name, write(ShareParcel(boxes=begun.boxes[name])))
    begun.half.inboxes()
    for name, raw in begun.masked.items():
        if name == "ash":
            with pytest.raises(ProtocolError, match="masked vector of ash"):
                begun.half.add_masked(name, raw)
        else:
            begun.half.add_masked(name, raw)
    assert set(Survivors.model_validate_json(begun.half.survivors()).sites) == set(SIGNERS)
