import numpy as np
import pytest
import torch

from gmmas_model.windows import brain_mask, lay_windows
from gmmas_schema.errors import ModelError

ALL = torch.ones(1, 4, dtype=torch.bool)


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
@pytest.mark.parametrize(("shape", "patch"), [((13, 8, 20), (8, 8, 8)), ((9, 12, 16), (4, 8, 16))])
def test_shares_sum_to_one_at_every_voxel(shape, patch, overlap) -> None:
    total = torch.zeros(shape)
    for place, share_XYZ in lay_windows(torch.ones(1, 4, *shape), ALL, patch=patch, overlap=overlap):
        assert share_XYZ.shape == patch
        total[place] += share_XYZ
    torch.testing.assert_close(total, torch.ones(shape))


@pytest.mark.parametrize("patch", [None, (13, 8, 20)])
def test_a_volume_may_be_one_window_without_weights(patch) -> None:
    ((place, share_XYZ),) = lay_windows(torch.ones(1, 4, 13, 8, 20), ALL, patch=patch)
    assert share_XYZ is None
    assert torch.ones(13, 8, 20)[place].shape == (13, 8, 20)


def test_the_centre_of_a_window_counts_more_than_its_border() -> None:
    tiling = lay_windows(torch.ones(1, 4, 12, 8, 8), ALL, patch=(8, 8, 8))
    first = next(share for _, share in tiling)
    assert [place[0].start for place in tiling.places] == [0, 4]
    # Voxel 4 lies just behind the first window's centre and at the second one's border.
    assert first[4, 4, 4] > 0.9 > 0.1 > first[7, 4, 4]
    assert first[0, 4, 4] == 1


def test_windows_without_brain_are_left_out() -> None:
    image = torch.zeros(1, 4, 24, 8, 8)
    image[:, 0, 2:6] = 1
    tiling = lay_windows(image, ALL, patch=(8, 8, 8), overlap=0)
    assert [place[0].start for place in tiling.places] == [0]
    assert np.flatnonzero((tiling.weights[1] == 0).all(2).all(1)).tolist() == list(range(8, 24))


def test_an_absent_modality_is_no_brain() -> None:
    image = torch.zeros(2, 4, 8, 8, 8)
    image[:, 1], image[1, 2, 3, 3, 3] = torch.nan, -2
    present = torch.tensor([[True, False, False, True], [True, False, True, False]])
    assert brain_mask(image, present).nonzero().tolist() == [[3, 3, 3]]


def test_an_empty_volume_has_all_its_windows() -> None:
    assert len(lay_windows(torch.zeros(1, 4, 16, 8, 8), ALL, patch=(8, 8, 8), overlap=0).places) == 2


@pytest.mark.parametrize(("patch", "overlap"), [((8, 8, 16), 0.5), ((8, 8, 8), 1.0), ((8, 8, 8), -0.1)])
def test_windows_that_do_not_fit_are_refused(patch, overlap) -> None:
    with pytest.raises(ModelError, match="do not fit the image"):
        lay_windows(torch.ones(1, 4, 8, 8, 12), ALL, patch=patch, overlap=overlap)
