"""The planes against named points of others, and against the landmarks they stand for."""

import csv
from pathlib import Path

import nilearn.datasets
import numpy as np
import pytest

from gmmas_portal.analysis.lobes import Lobe, lobe_numbers, lobe_of, share_lobes

NAMES = {
    Lobe.FRONTAL: ("vmPFC", "aPFC", "vent aPFC", "vlPFC", "ACC", "dACC", "sup frontal", "dlPFC", "vPFC", "vFC", "dFC", "mFC", "frontal"),
    Lobe.PARIETAL: ("IPL", "IPS", "sup parietal", "post parietal", "precuneus", "angular gyrus"),
    Lobe.TEMPORAL: ("temporal", "inf temporal", "sup temporal", "fusiform"),
    Lobe.OCCIPITAL: ("occipital", "post occipital"),
    Lobe.INSULA: ("ant insula", "mid insula", "post insula"),
    Lobe.DEEP: ("basal ganglia", "thalamus"),
    Lobe.CEREBELLUM: ("lat cerebellum", "inf cerebellum", "med cerebellum"),
}
"""Names of Dosenbach et al. that mean one lobe. `parietal` is left out (it names both banks of the central sulcus), as are the posterior
cingulate and the temporo-parietal junction, which lie between lobes."""


def _named_points() -> list[tuple[Lobe, tuple[float, float, float]]]:
    lobe_by_name = {name: lobe for lobe, names in NAMES.items() for name in names}
    lobe_by_name |= dict.fromkeys(("pre-SMA", "SMA", "precentral gyrus"), Lobe.FRONTAL)
    with (Path(nilearn.datasets.__file__).parent / "data" / "dosenbach_2010.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [(lobe_by_name[row["name"]], (float(row["x"]), float(row["y"]), float(row["z"]))) for row in rows if row["name"] in lobe_by_name]


def test_named_centres_lie_in_their_lobe() -> None:
    points = _named_points()
    right = [lobe_of(*place) is lobe for lobe, place in points]
    assert len(points) > 120
    assert np.mean(right) >= 0.85


@pytest.mark.parametrize("lobe", list(NAMES))
def test_no_lobe_is_told_wrongly_as_a_rule(lobe: Lobe) -> None:
    right = [lobe_of(*place) is lobe for named, place in _named_points() if named is lobe]
    assert np.mean(right) >= 0.65


@pytest.mark.parametrize(
    ("place", "lobe"),
    [
        ((-37, -21, 58), Lobe.FRONTAL),  # hand area of the motor cortex
        ((-42, -31, 50), Lobe.PARIETAL),  # hand area of the sensory cortex
        ((40, 12, -28), Lobe.TEMPORAL),  # temporal pole
        ((-26, -20, -14), Lobe.TEMPORAL),  # hippocampus
        ((8, -80, 8), Lobe.OCCIPITAL),  # calcarine sulcus
        ((12, -18, 8), Lobe.DEEP),  # thalamus
        ((0, -28, -30), Lobe.BRAINSTEM),  # pons
        ((-20, -62, -30), Lobe.CEREBELLUM),
        ((38, 4, 2), Lobe.INSULA),
    ],
)
def test_landmarks(place: tuple[float, float, float], lobe: Lobe) -> None:
    assert lobe_of(*place) is lobe
    assert lobe_of(-place[0], *place[1:]) is lobe


def test_shares_sum_to_one_and_name_the_side() -> None:
    points = np.array([[-40.0, 40, 20]] * 3 + [[40.0, 40, 20]] + [[0.0, -28, -30]])
    assert share_lobes(points) == [
        ("left frontal lobe", 0.6),
        ("brainstem", pytest.approx(0.2)),
        ("right frontal lobe", pytest.approx(0.2)),
    ]


def test_every_point_has_a_lobe() -> None:
    rng = np.random.default_rng(0)
    numbers = lobe_numbers(rng.uniform(-100, 100, (2000, 3)))
    assert set(numbers.tolist()) == set(range(len(Lobe)))
