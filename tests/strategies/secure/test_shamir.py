from collections import Counter
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.secure.shamir import PRIME, recover, recover_bytes, share, share_bytes, weigh_shares


def test_the_prime_is_prime_and_the_smallest_above_all_secrets():
    def is_prime(n):  # Miller-Rabin with the first forty primes as bases
        odd, twos = n - 1, 0
        while odd % 2 == 0:
            odd, twos = odd // 2, twos + 1
        bases = [p for p in range(2, 180) if all(p % q for q in range(2, p))][:40]
        return all((x := pow(a, odd, n)) in (1, n - 1) or any((x := x * x % n) == n - 1 for _ in range(twos - 1)) for a in bases)

    assert is_prime(PRIME)
    assert not any(is_prime(n) for n in range(2**256 + 1, PRIME, 2))


@given(st.binary(min_size=32, max_size=32), st.integers(1, 7), st.integers(0, 5), st.randoms())
def test_any_t_shares_recover_the_secret(secret, threshold, more, random):
    holders = threshold + more
    shares = dict(enumerate(share_bytes(secret, threshold=threshold, holders=holders), start=1))
    chosen = random.sample(sorted(shares), threshold)
    assert recover_bytes({x: shares[x] for x in chosen}, weigh_shares(chosen)) == secret
    assert {len(value) for value in shares.values()} == {33}


@given(st.integers(0, PRIME - 1), st.integers(2, 6))
def test_the_factors_of_one_set_of_holders_serve_every_secret(secret, threshold):
    shares = dict(enumerate(share(secret, threshold=threshold, holders=threshold), start=1))
    assert recover(shares, weigh_shares(shares)) == secret


@pytest.mark.parametrize(("prime", "threshold", "holders"), [(7, 2, 4), (7, 3, 4), (5, 4, 4), (11, 3, 5)])
def test_fewer_shares_have_the_same_distribution_for_every_secret(prime, threshold, holders):
    """Exact, over all polynomials: every value of t - 1 shares comes as often for one secret as for any other."""
    for chosen in combinations(range(holders), threshold - 1):
        counts = []
        for secret in range(prime):
            seen = Counter()
            for coefficients in product(range(prime), repeat=threshold - 1):
                draws = iter(coefficients)
                shares = share(secret, threshold=threshold, holders=holders, prime=prime, draw=lambda _, draws=draws: next(draws))
                seen[tuple(shares[x] for x in chosen)] += 1
            counts.append(seen)
        assert all(seen == counts[0] for seen in counts)
        assert set(counts[0].values()) == {1}


def test_t_shares_do_depend_on_the_secret():
    shares = [tuple(share(secret, threshold=2, holders=2, prime=7, draw=lambda _: 3)) for secret in range(7)]
    assert len(set(shares)) == 7


def test_a_false_share_that_leads_out_of_the_secrets_is_noticed():
    shares = {1: (PRIME - 1).to_bytes(33, "big")}
    assert recover_bytes(shares, weigh_shares([1])) is None


@pytest.mark.parametrize(("threshold", "holders"), [(0, 3), (4, 3)])
def test_a_threshold_beyond_the_holders_is_a_programming_error(threshold, holders):
    with pytest.raises(AssertionError):
        share(1, threshold=threshold, holders=holders)
