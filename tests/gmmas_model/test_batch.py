from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gmmas_model.batch import Batch, drop_modalities
from gmmas_schema.vocabulary import Task

ROWS = st.lists(st.lists(st.booleans(), min_size=4, max_size=4).filter(any), min_size=1, max_size=4)


@dataclass(frozen=True)
class Case:
    image_MXYZ: np.ndarray
    present_M: np.ndarray
    regions_RXYZ: np.ndarray | None
    idh: float
    codeletion: float
    grade: float
    mgmt: float
    weight_RXYZ: np.ndarray | None = None
    marker_weight: dict[Task, float] = field(default_factory=dict)


def make_case(*, labelled: bool) -> Case:
    regions = np.ones((3, 2, 3, 4), np.uint8) if labelled else None
    known = 1.0 if labelled else float("nan")
    image = np.full((4, 2, 3, 4), 7, np.float32)
    return Case(image, np.array([True, False, True, True]), regions, idh=known, codeletion=0.0, grade=0.0 * known, mgmt=known)


def test_collate_stacks_what_is_known() -> None:
    batch = Batch.collate([make_case(labelled=True), make_case(labelled=False)])
    assert batch.image_BMXYZ.shape == (2, 4, 2, 3, 4)
    assert batch.present_BM.tolist() == [[True, False, True, True]] * 2
    assert batch.region_known_BR.tolist() == [[True] * 3, [False] * 3]
    assert batch.regions_BRXYZ.dtype == torch.float32
    assert batch.regions_BRXYZ[0].min() == 1
    assert batch.idh_B.isnan().tolist() == [False, True]
    assert batch.codeletion_B.tolist() == [0, 0]
    assert batch.grade_B.nan_to_num(9).tolist() == [0, 9]
    assert batch.mgmt_B.nan_to_num(9).tolist() == [1, 9]


def test_collate_copies() -> None:
    case = make_case(labelled=True)
    Batch.collate([case]).image_BMXYZ.zero_()
    assert case.image_MXYZ.min() == 7


def test_to_moves_every_field() -> None:
    batch = Batch.collate([make_case(labelled=True)]).to("meta")
    assert {value.device.type for value in vars(batch).values() if value is not None} == {"meta"}


@given(ROWS, st.floats(0, 1), st.integers(0, 2**31))
def test_dropout_keeps_a_non_empty_subset(rows: list[list[bool]], share: float, seed: int) -> None:
    present_BM = torch.tensor(rows)
    before_BM = present_BM.clone()
    kept_BM = drop_modalities(present_BM, share=share, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(present_BM, before_BM)
    assert not bool((kept_BM & ~present_BM).any())
    assert bool(kept_BM.any(1).all())
    again_BM = drop_modalities(present_BM, share=share, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(kept_BM, again_BM)


def test_dropout_is_uniform_over_the_subsets() -> None:
    present_BM = torch.tensor([[True, False, True, True]]).repeat(7000, 1)
    kept_BM = drop_modalities(present_BM, share=1.0, generator=torch.Generator().manual_seed(0))
    counts = Counter(map(tuple, kept_BM.tolist()))
    assert len(counts) == 7
    assert all(n == pytest.approx(1000, abs=120) for n in counts.values())


def test_share_of_samples_is_drawn_for() -> None:
    present_BM = torch.ones(4000, 4, dtype=torch.bool)
    for share in (0.0, 0.4):
        kept_BM = drop_modalities(present_BM, share=share, generator=torch.Generator().manual_seed(0))
        assert float((~kept_BM.all(1)).float().mean()) == pytest.approx(share * 14 / 15, abs=0.03)


def test_single_modalities_are_drawn_by_their_odds() -> None:
    present_BM = torch.tensor([[True, False, True, True]]).repeat(8000, 1)
    generator = torch.Generator().manual_seed(0)
    shown_BM = drop_modalities(present_BM, share=1.0, generator=generator, single_share=1.0, single_weight_M=[1.0, 5.0, 1.0, 2.0])
    assert shown_BM.sum(1).unique().tolist() == [1]
    assert torch.allclose(shown_BM.float().mean(0), torch.tensor([0.25, 0.0, 0.25, 0.5]), atol=0.02)


def test_collate_stacks_what_labels_count() -> None:
    weight = np.zeros((3, 2, 3, 4), np.float32)
    weight[0] = 0.25
    pseudo = replace(make_case(labelled=True), weight_RXYZ=weight, marker_weight={Task.CODELETION: 0.5})
    batch = Batch.collate([pseudo, make_case(labelled=True)])
    assert batch.region_known_BR.tolist() == [[True, False, False], [True] * 3]
    assert batch.region_weight_BRXYZ is not None
    assert batch.region_weight_BRXYZ.mean((2, 3, 4)).tolist() == [[0.25, 0, 0], [1, 1, 1]]
    assert batch.marker_weight_BK.tolist() == [[1, 0.5, 1, 1], [1, 1, 1, 1]]
