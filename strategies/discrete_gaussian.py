"""Gaussian noise on the integers, drawn exactly: what a site adds where updates are summed as integers.

    P(X = x) = exp(-x^2 / (2 s)) / sum_y exp(-y^2 / (2 s))         for integers x;  s is called the variance, and bounds it from above

Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020, Algorithms 1 to 3: with t = floor(sqrt(s)) + 1,

    1. u uniform in 0 .. t - 1, kept with probability exp(-u / t);  v = successes before the first failure of trials with exp(-1)
    2. y = +-(u + t v), of the two zeros one                           a discrete Laplace number of scale t
    3. y kept with probability exp(-(|y| - s / t)^2 / (2 s))

Only uniform bits go in, so there are none of the gaps that floating-point noise has (Mironov, CCS 2012). Every trial compares a uniform
number with exp(-x): in doubles where that is beyond doubt, which an error bound says, and else with 192 bits and 80 decimal digits. A trial
is then wrong with a probability below 2^-190.
"""

import math
from collections.abc import Callable
from decimal import Context, Decimal
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from strategies.noise import NoiseSource

Int64 = NDArray[np.int64]

LARGEST_VARIANCE: Final = 1 << 84
"""Standard deviations up to 2^42, of which 2^20 fit into 64 bits."""
DOUBT: Final = 2.0**-40
"""Bound on the error of exp(-x) in doubles, x having come from integers up to 2^62 by a handful of operations, as an absolute number."""
BLOCK: Final = 1 << 16
_WORD_BITS: Final = 64
_MORE_WORDS: Final = 2
_DIGITS: Final = Context(prec=80)

Exponent = Callable[[int], Fraction]
"""From the index of a trial to the exact x of its probability exp(-x)."""


def draw(source: NoiseSource, size: int, *, variance: int) -> Int64:
    """Return independent discrete Gaussian numbers.

    Args:
        source: of the bits.
        size: how many.
        variance: s, in squared steps.
    """
    assert 0 < variance <= LARGEST_VARIANCE, "beyond what 64 bits hold"
    found = np.empty(size, np.int64)
    filled = 0
    while filled < size:
        # Of ten Laplace numbers seven and a half are kept.
        part = _draw_some(source, min(BLOCK, math.ceil(1.35 * (size - filled)) + 16), variance)[: size - filled]
        found[filled : filled + part.size] = part
        filled += part.size
    return found


def _draw_some(source: NoiseSource, trials: int, variance: int) -> Int64:
    scale = math.isqrt(variance) + 1
    laplace_N = _laplace(source, trials, scale)
    distance_N = np.abs(laplace_N) - variance / scale

    def exact(index: int) -> Fraction:
        return Fraction((abs(int(laplace_N[index])) * scale - variance) ** 2, 2 * variance * scale**2)

    return laplace_N[_succeed(source, distance_N**2 / float(2 * variance), exact)]


def _laplace(source: NoiseSource, trials: int, scale: int) -> Int64:
    """Return at most so many numbers with P(y) proportional to exp(-|y| / scale)."""
    rest_N = _below(source, trials, scale)
    rest_N = rest_N[_succeed(source, rest_N / scale, lambda index: Fraction(int(rest_N[index]), scale))]
    wholes_N = np.zeros(rest_N.size, np.int64)
    alive = np.arange(rest_N.size)
    while alive.size:
        alive = alive[_succeed(source, np.ones(alive.size), lambda _: Fraction(1))]
        wholes_N[alive] += 1
    size_N = rest_N + scale * wholes_N
    negative_N = source.words(size_N.size) >= np.uint64(1 << 63)
    kept_N: Int64 = np.where(negative_N, -size_N, size_N)[~(negative_N & (size_N == 0))]
    return kept_N


def _below(source: NoiseSource, size: int, bound: int) -> Int64:
    """Return about `size` uniform numbers below `bound`; words that would favour the small ones are left out."""
    words_N = source.words(size)
    fair = (1 << _WORD_BITS) // bound * bound
    return (words_N[words_N <= np.uint64(fair - 1)] % np.uint64(bound)).astype(np.int64)


def _succeed(source: NoiseSource, exponent_N: NDArray[np.float64], exact: Exponent) -> NDArray[np.bool_]:
    """Return trials that succeed with probability exp(-x).

    Args:
        source: of the bits.
        exponent_N: x in doubles.
        exact: x itself.
    """
    words_N = source.words(exponent_N.size)
    gap_N = np.exp(-exponent_N) - words_N.astype(np.float64) * 2.0**-_WORD_BITS
    success_N = gap_N > 0
    for index in np.flatnonzero(np.abs(gap_N) <= DOUBT):
        success_N[index] = _decide(source, int(words_N[index]), exact(int(index)))
    return success_N


def _decide(source: NoiseSource, word: int, exponent: Fraction) -> bool:
    """Return whether the uniform number that begins with these 64 bits is below exp(-x)."""
    for more in source.words(_MORE_WORDS):
        word = (word << _WORD_BITS) | int(more)
    x = _DIGITS.divide(Decimal(exponent.numerator), Decimal(exponent.denominator))
    limit = _DIGITS.multiply(_DIGITS.exp(-x), Decimal(1 << (_WORD_BITS * (1 + _MORE_WORDS))))
    return Decimal(word) < limit
