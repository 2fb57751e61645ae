"""Two sums whose difference would be a site are never both opened."""

from gmmas_schema.secure import SecureConfig
from strategies.secure.ledger import LedgerDocument, OpenedSums
from tests.strategies.secure.attempts import SITES, SIZES, Attempt, make_terms
from tests.strategies.secure.refusals import UPDATES, WEIGHTS, attempt


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
