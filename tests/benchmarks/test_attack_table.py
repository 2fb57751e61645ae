import numpy as np
import pytest

from benchmarks.attack_table import Cell, compare, write_table
from gmmas_schema.errors import DataError
from gmmas_schema.vocabulary import Region
from tests.client.tiny_sites import make_config

PATIENTS = tuple(f"p{number}" for number in range(8))


def make_cell(attack="none", defence="default", *, level=0.6, seed=1, **changes) -> Cell:
    """Return a cell of eight patients, two of whom have no enhancing tumour; their Dice lies around `level`."""
    has = {Region.WT: PATIENTS, Region.TC: PATIENTS, Region.ET: PATIENTS[2:]}
    dice = {region: {name: max(0.0, level + 0.01 * (int(name[1:]) - 3.5)) for name in names} for region, names in has.items()}
    return Cell.model_validate(
        {
            "attack": attack,
            "defence": defence,
            "seed": seed,
            "federation": make_config(4),
            "cohorts": "",
            "software": "abc",
            "precision": "fp32",
            "rounds": make_config(4).rounds,
            "ended": "",
            "patients": PATIENTS,
            "dice": dice,
            "outlined": 8,
            "bad_refused": 0,
            "good_refused": 1,
            "seconds": 1.0,
        }
        | changes
    )


def broken(attack="nan", defence="no checks", **changes) -> Cell:
    return make_cell(attack, defence, rounds=1, ended="ModelError: x", dice={}, outlined=0, **changes)


def table(*cells, **options) -> str:
    return write_table(cells, defences=("no checks", "default"), sites=6, **options)


def test_dice_is_that_of_the_patients_who_have_the_region_so_outlining_nothing_is_worth_nothing() -> None:
    cell = make_cell()
    by_region = [np.mean(list(cell.dice[region].values())) for region in Region]
    assert cell.mean_dice == pytest.approx(np.mean(by_region))
    nothing = {region: dict.fromkeys(names, 0.0) for region, names in cell.dice.items()}
    silent = make_cell("scale-100x", "no checks", dice=nothing, outlined=0)
    page = table(silent)
    assert "| scale-100x | 0.000, outlines nothing (0/1) |" in page
    assert "(WT 100%, TC 100%, ET 75%)" in page
    assert "A model that outlines nothing scores 0 here, and 0.08 by the BraTS convention" in page


def test_a_run_that_did_not_come_to_its_end_has_a_round_and_no_dice() -> None:
    page = table(make_cell("none", "no checks"), broken())
    assert "| nan | broke down in round 2 (0/1) |" in page
    assert "- nan, no checks, seed 1: after round 1, ModelError: x" in page
    assert "| nan, no checks, seed 1 | 1 of 2 |  |  |  | 0/1 |" in page
    assert np.isnan(broken().mean_dice)
    assert table(broken()).count("broke down") == 1


def test_seeds_of_which_some_broke_down_are_told_apart() -> None:
    page = table(make_cell("nan", "no checks", seed=1), broken(seed=2), make_cell("none", "no checks", seed=1))
    assert "| nan | 0.603, +0.000 [+0.000, +0.000] (seed 1); broke down in round 2 (seed 2) (0/2) |" in page
    assert "Seeds 1, 2; forward passes in fp32. Software abc." in page


def test_the_difference_to_nobody_hostile_is_paired_over_patients() -> None:
    honest = [make_cell(seed=1), make_cell(seed=2)]
    worse = [make_cell("sign-flip", level=0.5, seed=1), make_cell("sign-flip", level=0.4, seed=2)]
    found = compare(worse, honest)
    # Every patient loses the same, so resampling them changes nothing.
    assert (found.value, found.low, found.high) == pytest.approx((-0.15, -0.15, -0.15))
    assert found.n == 16
    uneven = make_cell("sign-flip", seed=1)
    uneven = uneven.model_copy(update={"dice": {region: names | {"p7": 0.0} for region, names in uneven.dice.items()}})
    found = compare([uneven], honest)
    assert found.low < found.value < found.high <= 0
    assert f"| sign-flip | 0.{round(1000 * uneven.mean_dice)}, {found.value:+.3f} [" in table(uneven, honest[0])


def test_there_is_no_difference_without_another_side_and_none_between_other_patients() -> None:
    assert compare([make_cell("nan")], [broken("none", "default")]).value is None
    assert compare([broken()], [make_cell()]).value is None
    with pytest.raises(DataError, match="different patients"):
        compare([make_cell("nan", patients=PATIENTS[::-1])], [make_cell()])


def test_what_is_planned_and_missing_is_named() -> None:
    page = table(make_cell(), missing={"nan, default, seed 1": "failed: x"})
    assert "Planned and without a result:\n\n- nan, default, seed 1: failed: x\n" in page
    assert "Planned" not in table(make_cell())
