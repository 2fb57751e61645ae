import math

import pytest

from gmmas_schema.federation import SemiSupervisedConfig
from gmmas_schema.vocabulary import Region, Task
from strategies.readiness import targets_ready

CONFIG = SemiSupervisedConfig(ready_dice=0.5, ready_rounds=3, ramp_rounds=4)


def wt(*values):
    return [{"dice_wt": value} for value in values]


def test_nothing_is_ready_without_semi_supervision_or_history():
    assert targets_ready(wt(1, 1, 1, 1), None) == {}
    assert targets_ready([], CONFIG) == {}


def test_a_region_is_ready_after_rounds_in_a_row_at_its_threshold():
    assert targets_ready(wt(0.6, 0.6), CONFIG) == {}
    assert targets_ready(wt(0.6, 0.4, 0.6, 0.6), CONFIG) == {}
    assert set(targets_ready(wt(0.1, 0.5, 0.5, 0.5), CONFIG)) == {Region.WT}


def test_a_collapse_takes_readiness_back():
    assert targets_ready(wt(0.6, 0.6, 0.6, 0.6, 0.2), CONFIG) == {}


def test_the_ramp_rises_to_one():
    ramps = [targets_ready(wt(*[0.7] * rounds), CONFIG)[Region.WT] for rounds in range(3, 9)]
    assert ramps[0] == pytest.approx(math.exp(-5 * 0.75**2))
    assert ramps == sorted(ramps)
    assert ramps[3:] == [1, 1, 1]


def test_targets_are_ready_one_by_one():
    history = [{"dice_wt": 0.8, "dice_et": 0.3, "auc_idh": 0.71, "auc_codeletion": 0.69}] * 3
    assert set(targets_ready(history, CONFIG)) == {Region.WT, Task.IDH}


def test_a_metric_that_no_site_could_compute_is_not_ready():
    assert targets_ready([{"dice_wt": 0.8}, {}, {"dice_wt": 0.8}, {"dice_wt": 0.8}], CONFIG) == {}
