import math

import pytest

from gmmas_schema.federation import SemiSupervisedConfig
from gmmas_schema.vocabulary import REGIONS, Region, Task
from strategies.readiness import targets_ready

CONFIG = SemiSupervisedConfig(ready_dice=0.5, ready_rounds=3, ramp_rounds=4)


def wt(*values):
    return [{"visible_dice_wt": value} for value in values]


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
    history = [{"visible_dice_wt": 0.8, "visible_dice_et": 0.3, "auc_idh": 0.71, "auc_codeletion": 0.69}] * 3
    assert set(targets_ready(history, CONFIG.model_copy(update={"regions_together": False}))) == {Region.WT, Task.IDH}


def test_regions_join_together_when_the_last_of_them_is_learned():
    history = [{"visible_dice_wt": 0.8, "visible_dice_tc": 0.7, "visible_dice_et": value, "auc_idh": 0.8} for value in (0.1, 0.3, 0.6, 0.6)]
    assert set(targets_ready(history, CONFIG)) == {Task.IDH}
    ready = targets_ready([*history, history[-1]], CONFIG)
    assert set(ready) == {Region.WT, Region.TC, Region.ET, Task.IDH}
    assert ready[Region.WT] == ready[Region.TC] == ready[Region.ET] < ready[Task.IDH]


def test_a_network_that_never_finds_enhancement_is_not_ready_for_it():
    """Where half of the patients have none, the usual Dice of a network that outlines nothing is one half."""
    history = [{"dice_et": 0.5, "visible_dice_et": 0.0, "visible_dice_wt": 0.8}] * 5
    assert targets_ready(history, CONFIG) == {}
    assert set(targets_ready(history, CONFIG.model_copy(update={"regions_together": False}))) == {Region.WT}


def test_a_round_that_did_not_measure_a_target_is_passed_over():
    """The only hospital that can measure it may have missed a deadline."""
    assert set(targets_ready([*wt(0.8), {}, *wt(0.8, 0.8)], CONFIG)) == {Region.WT}
    assert targets_ready([*wt(0.8, 0.2), {}, *wt(0.8, 0.8)], CONFIG) == {}
    learned = wt(*[0.8] * 9)
    assert targets_ready([*learned, {}, {}, {}], CONFIG) == targets_ready(learned, CONFIG)


def test_what_is_no_longer_measured_is_taken_back_and_holds_up_no_other():
    """Readiness is no right for ever: nobody would see a collapse."""
    learned = [{"visible_dice_wt": 0.9, "visible_dice_tc": 0.9, "visible_dice_et": 0.8, "auc_idh": 0.9}] * 9
    without = [{"visible_dice_wt": 0.9, "visible_dice_tc": 0.9}] * 4
    assert set(targets_ready(learned + without, CONFIG)) == {Region.WT, Region.TC}
    assert set(targets_ready([*learned, {"visible_dice_wt": 0.9, "visible_dice_tc": 0.9}], CONFIG)) == {*REGIONS, Task.IDH}
