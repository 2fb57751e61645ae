import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gmmas_schema.errors import ConfigError, ModelError, ProtocolError
from gmmas_schema.secure import FEWEST_WEIGHT_STEPS
from strategies.secure import fixed_point
from strategies.secure.fixed_point import FixedPoint

grids = st.builds(
    FixedPoint, sites=st.integers(3, 12), bits=st.sampled_from([4, 8, 12, 16]), ring_bits=st.sampled_from([32, 64])
) | st.builds(FixedPoint, sites=st.integers(3, 12), bits=st.sampled_from([4, 6, 8]), ring_bits=st.just(16))
LIMIT = 64.0


def add(parts):
    total = np.zeros_like(parts[0])
    for part in parts:
        total += part
    return total


@given(st.integers(3, 256), st.integers(4, 24), st.sampled_from([16, 32, 64]))
def test_no_sum_of_so_many_sites_can_wrap(sites, bits, ring_bits):
    try:
        grid = FixedPoint(sites=sites, bits=bits, ring_bits=ring_bits)
    except ConfigError:
        levels = 2 ** (bits - 1) - 1
        assert sites * FEWEST_WEIGHT_STEPS * levels >= 2 ** (ring_bits - 1)
        return
    assert sites * grid.weight_steps * grid.levels < 2 ** (ring_bits - 1)
    # ... and the next finer weight would wrap, unless it is fine enough anyway.
    assert grid.weight_steps == 65535 or sites * (grid.weight_steps + 1) * grid.levels >= 2 ** (ring_bits - 1)


@given(grids, st.sampled_from([-1.0, 1.0]))
def test_the_extreme_of_all_sites_is_read_back_exactly(grid, sign):
    delta = np.full(3, sign * 1e6, np.float32)
    total = add([grid.encode(delta, weight=grid.weight_steps, clip=0.5)] * grid.sites)
    mean, weight = grid.decode(total, clip=0.5, limit=LIMIT, sites=grid.sites)
    assert (mean == sign * 0.5).all()
    assert weight == grid.sites * LIMIT


@settings(max_examples=50)
@given(grids, st.data())
def test_the_error_is_within_the_stated_bounds(grid, data):
    sites = data.draw(st.integers(1, grid.sites))
    clip = data.draw(st.sampled_from([2.0**-6, 0.25, 8.0]))
    deltas = data.draw(hnp.arrays(np.float32, (sites, 9), elements=st.floats(-2 * clip, 2 * clip, width=32)))
    weights = np.array(data.draw(st.lists(st.floats(1e-3, LIMIT), min_size=sites, max_size=sites)))
    steps = [grid.weigh(weight, limit=LIMIT) for weight in weights]
    parts = [grid.encode(delta, weight=step, clip=clip) for delta, step in zip(deltas, steps, strict=True)]
    mean, total = grid.decode(add(parts), clip=clip, limit=LIMIT, sites=sites)

    clipped = np.clip(deltas.astype(np.float64), -clip, clip)
    rounding = 2.0**-24 * clip  # of the result to float32
    unit = LIMIT / grid.weight_steps
    on_the_grid = np.array(steps) * unit
    assert np.abs(mean - on_the_grid @ clipped / on_the_grid.sum()).max() <= grid.error(clip) * (1 + 1e-9) + rounding
    assert (np.abs(on_the_grid - weights) <= np.where(weights < unit / 2, unit, unit / 2) * (1 + 1e-9)).all()
    assert total == pytest.approx(on_the_grid.sum(), rel=1e-12)
    bound = grid.error(clip) + 2 * clip * sites * unit / weights.sum()
    assert np.abs(mean - weights @ clipped / weights.sum()).max() <= bound * (1 + 1e-9) + rounding


def test_sixteen_bits_in_a_ring_of_32_are_fine_for_a_few_hospitals():
    grid = FixedPoint(sites=5, bits=16, ring_bits=32)
    assert grid.weight_steps == 13107
    assert grid.error(0.25) < 4e-6
    assert grid.dtype.itemsize == 4


def test_eight_bits_in_a_ring_of_16_halve_the_bytes():
    grid = FixedPoint(sites=5, bits=8, ring_bits=16)
    assert grid.weight_steps == 51
    assert grid.dtype.itemsize == 2


def test_a_ring_too_narrow_for_the_sites_is_refused_by_both_keys():
    with pytest.raises(ConfigError, match=r"secure\.bits, secure\.ring_bits"):
        FixedPoint(sites=5, bits=16, ring_bits=16)


def test_a_weight_has_at_least_one_step_and_at_most_its_limit():
    grid = FixedPoint(sites=5, bits=16, ring_bits=32)
    assert grid.weigh(1e-9, limit=LIMIT) == 1
    assert grid.weigh(1e9, limit=LIMIT) == grid.weigh(LIMIT, limit=LIMIT) == grid.weight_steps


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_is_not_encoded(value):
    grid = FixedPoint(sites=3, bits=8, ring_bits=32)
    with pytest.raises(ModelError, match="not finite"):
        grid.encode(np.array([0, value], np.float32), weight=1, clip=1.0)


def test_blocks_make_no_difference(monkeypatch):
    grid = FixedPoint(sites=3, bits=12, ring_bits=32)
    delta = np.random.default_rng(0).standard_normal(1001).astype(np.float32)
    whole = grid.encode(delta, weight=7, clip=1.0)
    monkeypatch.setattr(fixed_point, "BLOCK", 10)
    assert grid.encode(delta, weight=7, clip=1.0).tobytes() == whole.tobytes()
    in_blocks, _ = grid.decode(whole, clip=1.0, limit=LIMIT, sites=1)
    monkeypatch.undo()
    assert in_blocks.tobytes() == grid.decode(whole, clip=1.0, limit=LIMIT, sites=1)[0].tobytes()


@pytest.mark.parametrize("total", [[0, 0, 0], [1, 1, 2], [500, 0, 3], [0, -500, 3], [0, 0, 10**9]], ids=str)
def test_a_sum_that_updates_cannot_have_is_refused(total):
    """Of 3 sites: no weight, too little of it, an entry beyond the weight on either side, more weight than there is."""
    grid = FixedPoint(sites=3, bits=8, ring_bits=32)
    with pytest.raises(ProtocolError, match="not one that updates can have"):
        grid.decode(np.array(total, np.int64).astype("<u4"), clip=1.0, limit=LIMIT, sites=3)
