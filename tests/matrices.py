"""Matrices of cases, of which `make test` takes a diagonal and `make test-slow` the rest."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest


def thinned(*axes: Sequence[Any]) -> list[Any]:
    """Return all combinations for pytest.mark.parametrize; every value of every axis is in one that is not slow.

    A value that is itself a tuple stands for several parameters.
    """
    kept = {tuple(place % len(axis) for axis in axes) for place in range(max(map(len, axes)))}
    rows = []
    for places in product(*(range(len(axis)) for axis in axes)):
        values = [axis[place] for axis, place in zip(axes, places, strict=True)]
        flat = [one for value in values for one in (value if isinstance(value, tuple) else (value,))]
        rows.append(pytest.param(*flat, marks=() if places in kept else pytest.mark.slow))
    return rows
