import numpy as np
import pytest

from gmmas_portal.analysis.frame import MeasurementFrame
from tests.gmmas_portal.analysis.bodies import MNI_AFFINE, SHAPE, ball

FLIPPED = np.array([[-2.0, 0, 0, 68], [0, -2.0, 0, 62], [0, 0, 2.0, -46], [0, 0, 0, 1]])
"""The same box with voxels that run to the left and to the back."""


@pytest.mark.parametrize("affine", [MNI_AFFINE, FLIPPED])
def test_without_an_atlas_the_middle_is_that_of_the_brain_whatever_the_voxels_order(affine: np.ndarray) -> None:
    brain = ball((6.0, -20, 14), 50.0, affine)
    frame = MeasurementFrame.around(brain, affine, to_mni=None)
    assert frame.rightward_mm(np.array([[6.0, 0, 0], [26, 40, 9], [-4, 3, 1]])) == pytest.approx([0, 20, -10], abs=1.1)
    assert frame.brain_ml == pytest.approx(4 / 3 * np.pi * 5**3, rel=0.02)
    assert frame.shape == SHAPE


def test_with_an_atlas_the_middle_is_where_its_x_is_zero() -> None:
    to_mni = np.eye(4)
    angle = np.radians(10)
    to_mni[:2, :2] = 1.2 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    to_mni[0, 3] = -12.0
    frame = MeasurementFrame.around(ball((0, -20, 14), 50.0), MNI_AFFINE, to_mni=to_mni)
    points = np.array([[30.0, -10, 5], [2, 40, 0]])
    placed = frame.mni_mm(points)
    assert placed is not None
    assert placed[0] == pytest.approx(
        1.2 * np.array([30 * np.cos(angle) + 10 * np.sin(angle), 30 * np.sin(angle) - 10 * np.cos(angle), 5 / 1.2]) + [-12, 0, 0]
    )
    # MNI millimetres are stretched by 1.2; distances are the patient's own.
    assert frame.rightward_mm(points) == pytest.approx(placed[:, 0] / 1.2)


@pytest.mark.parametrize(
    ("order", "axis"),
    [((0, 1, 2), 2), ((2, 0, 1), 0), ((1, 2, 0), 1)],
)
def test_the_axis_from_below_to_above_is_found(order: tuple[int, int, int], axis: int) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.diag([2.0, -2.0, 3.0])[:, list(order)]
    frame = MeasurementFrame.around(np.ones((4, 5, 6), dtype=bool), affine, to_mni=None)
    assert frame.superior_axis == axis
    assert frame.voxel_ml == pytest.approx(0.012)


def test_a_frame_is_the_same_after_json() -> None:
    frame = MeasurementFrame.around(ball((0, -20, 14), 50.0), MNI_AFFINE, to_mni=np.linalg.inv(MNI_AFFINE))
    assert MeasurementFrame.model_validate_json(frame.model_dump_json()) == frame
