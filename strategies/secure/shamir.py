"""Sharing a secret so that t holders together know it and t - 1 know nothing.

    f(x) = s + a_1 x + ... + a_(t-1) x^(t-1)  modulo a prime p, a_i uniform        holder x = 1, 2, ... keeps f(x)
    s = f(0) = sum_x f(x) prod_(y != x) y / (y - x)                                from any t holders

For any t - 1 shares and any s there is exactly one such polynomial, so these shares have the same distribution whatever s is. Shamir, "How
to Share a Secret", Communications of the ACM 22(11), 1979. The arithmetic is on Python's exact integers; it does not run in constant time,
which matters only to who can time a hospital's or the coordinator's own process.
"""

import secrets
from collections.abc import Callable, Collection, Mapping
from typing import Final

PRIME: Final = 2**256 + 297
"""Smallest prime above 2^256, so that every 32-byte secret is an element of the field."""
SECRET_BYTES: Final = 32
SHARE_BYTES: Final = 33


def share(secret: int, *, threshold: int, holders: int, prime: int = PRIME, draw: Callable[[int], int] = secrets.randbelow) -> list[int]:
    """Return the shares of holders 1 to `holders`.

    Args:
        secret: 0 to prime - 1.
        threshold: t, shares that are needed to recover it.
        holders: number of shares.
        prime: size of the field.
        draw: uniform number below its argument, from a cryptographic source.
    """
    assert 0 <= secret < prime, "the secret is no element of the field"
    assert 1 <= threshold <= holders < prime, "every holder needs a place of its own"
    coefficients = [secret, *(draw(prime) for _ in range(threshold - 1))]
    shares = []
    for x in range(1, holders + 1):
        value = 0
        for coefficient in reversed(coefficients):
            value = (value * x + coefficient) % prime
        shares.append(value)
    return shares


def weigh_shares(holders: Collection[int], *, prime: int = PRIME) -> dict[int, int]:
    """Return the factor of each holder's share in the secret (Lagrange at 0); computed once for many secrets of the same holders."""
    factors = {}
    for x in holders:
        numerator, denominator = 1, 1
        for y in holders:
            if y != x:
                numerator, denominator = numerator * y % prime, denominator * (y - x) % prime
        factors[x] = numerator * pow(denominator, -1, prime) % prime
    return factors


def recover(shares: Mapping[int, int], factors: Mapping[int, int], *, prime: int = PRIME) -> int:
    """Return the secret from exactly the shares that `factors` was made for; from fewer than t any value may come out."""
    return sum(factor * shares[x] for x, factor in factors.items()) % prime


def share_bytes(secret: bytes, *, threshold: int, holders: int) -> list[bytes]:
    """Return the shares of a secret of 32 bytes, each of 33 bytes."""
    assert len(secret) == SECRET_BYTES
    values = share(int.from_bytes(secret, "big"), threshold=threshold, holders=holders)
    return [value.to_bytes(SHARE_BYTES, "big") for value in values]


def recover_bytes(shares: Mapping[int, bytes], factors: Mapping[int, int]) -> bytes | None:
    """Return the secret of 32 bytes, or None where the shares lead to none (one of them is false)."""
    value = recover({x: int.from_bytes(shares[x], "big") for x in factors}, factors)
    return value.to_bytes(SECRET_BYTES, "big") if value < 1 << (8 * SECRET_BYTES) else None
