import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from gmmas_data.regions import labels_of, regions_of
from gmmas_schema.vocabulary import SEGMENTATION_VALUES, Layout


@given(arrays(np.uint8, (3, 4, 2), elements={"min_value": 0, "max_value": 3}))
def test_regions_are_nested_and_hold_everything(labels: np.ndarray) -> None:
    whole, core, enhancing = regions_of(labels)
    assert not (core & ~whole).any()
    assert not (enhancing & ~core).any()
    for layout in Layout:
        theirs = np.vectorize(lambda value, table=SEGMENTATION_VALUES[layout]: {ours: file for file, ours in table.items()}.get(value, 0))
        np.testing.assert_array_equal(labels_of(regions_of(labels), layout=layout), theirs(labels))


@pytest.mark.parametrize("layout", Layout)
def test_a_region_outside_its_parent_is_dropped(layout: Layout) -> None:
    regions = np.zeros((3, 2, 1, 1), dtype=bool)
    regions[0, 0] = regions[2, 0] = regions[1, 1] = True
    assert labels_of(regions, layout=layout).ravel().tolist() == [2, 0]
