import math
from collections import Counter
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch

from gmmas_model.batch import Batch
from gmmas_schema.federation import SemiSupervisedConfig, TrainingPlan
from gmmas_schema.vocabulary import MODALITIES, REQUIRED_TASKS, Modality, Region, Task
from gmmas_workflows.batches import count_labels, draw_batches, generators, has_label, leave_out_enhancing, restrict


def test_labels_are_counted_per_task(make_sample) -> None:
    samples = [
        make_sample(1),
        make_sample(2, segmentation=False, idh=math.nan, codeletion=1.0),
        make_sample(3, idh=1.0, codeletion=0.0),
        make_sample(4, segmentation=False, idh=0.0, codeletion=0.0),
    ]
    counts = count_labels(samples, REQUIRED_TASKS, modalities=MODALITIES)
    assert (counts.cases, counts.labelled) == (4, {Task.SEGMENTATION: 2, Task.IDH: 3, Task.CODELETION: 2})
    optional = [make_sample(1, grade=0.0, mgmt=1.0), make_sample(3, idh=math.nan, grade=1.0), make_sample(5)]
    assert count_labels(optional, (Task.GRADE, Task.MGMT), modalities=MODALITIES).labelled == {Task.GRADE: 2, Task.MGMT: 1}


def test_labels_are_counted_by_what_is_shown_and_outlined(make_sample) -> None:
    whole = make_sample(1)
    weight_RXYZ = np.zeros(whole.regions_RXYZ.shape, np.float32)
    weight_RXYZ[0] = 1
    flair = (Modality.FLAIR,)
    samples = [make_sample(0), replace(whole, weight_RXYZ=weight_RXYZ), make_sample(2, modalities=flair, idh=math.nan)]
    counts = count_labels(samples, (Task.SEGMENTATION, Task.IDH), modalities=(Modality.T1CE, Modality.FLAIR))
    assert counts.shown == {Modality.T1CE: {Task.SEGMENTATION: 2, Task.IDH: 2}, Modality.FLAIR: {Task.SEGMENTATION: 3, Task.IDH: 2}}
    assert counts.outlined == {Region.WT: 3, Region.TC: 2, Region.ET: 2}
    assert counts.telling(Region.WT) == counts.telling(Task.SEGMENTATION) == 3


def _drawn(own, pseudo, **changes):
    plan = TrainingPlan(local_steps=300, batch_size=2, augmentation=False, modality_dropout=0, **changes)
    return list(draw_batches(own, plan, seed=(0,), pseudo=pseudo))


def test_every_second_case_has_pseudo_labels_where_there_are_many(make_sample) -> None:
    own, pseudo = [make_sample(n, idh=1.0) for n in range(2)], [make_sample(n, idh=0.0, segmentation=False) for n in range(9)]
    assert all(batch.idh_B.tolist() == [1, 0] for batch in _drawn(own, pseudo))


def test_no_case_with_pseudo_labels_is_drawn_more_often_than_one_with_its_own(make_sample) -> None:
    own, pseudo = [make_sample(n, idh=float(n)) for n in range(9)], [make_sample(9, idh=9.0, segmentation=False)]
    seen = Counter(chain.from_iterable(batch.idh_B.tolist() for batch in _drawn(own, pseudo)))
    assert 40 < seen[9.0] < 80, "600 draws of ten cases"
    assert max(seen.values()) - min(seen.values()) < 40


def test_two_cases_with_outlines_of_their_own_exchange_nothing(make_sample) -> None:
    """A box is pasted between an outlined case and one that the model outlined; without one of these there is nothing to paste."""
    config = SemiSupervisedConfig(cutmix_share=1.0)
    own = [make_sample(n) for n in range(9)]
    outlined = make_sample(9)
    pseudo = [replace(outlined, weight_RXYZ=np.full(outlined.regions_RXYZ.shape, 0.5, np.float32))]
    weights = [batch.region_weight_BRXYZ for batch in _drawn(own, pseudo, semi_supervised=config)]
    mixed = [weight is not None for weight in weights]
    assert 0.1 < np.mean(mixed) < 0.3, "as often as one of the ten is drawn"


def test_labels_that_a_wildtype_tumour_settles_train_nothing(make_sample) -> None:
    wildtype = make_sample(0, idh=0.0, codeletion=0.0, grade=1.0, mgmt=1.0)
    assert [task for task in Task if has_label(wildtype, task)] == [Task.SEGMENTATION, Task.IDH, Task.MGMT]


def test_restrict_hides_sequences_and_leaves_out_cases_without_any(make_sample) -> None:
    samples = [make_sample(1), make_sample(2, modalities=(Modality.T1,)), make_sample(3, modalities=(Modality.T1, Modality.T2))]
    kept = restrict(samples, {Modality.T2, Modality.FLAIR})
    assert [sample.case_id for sample in kept] == ["case-1", "case-3"]
    assert [sample.present_M.tolist() for sample in kept] == [[False, False, True, True], [False, False, True, False]]
    assert samples[0].present_M.all()


def test_generators_depend_on_every_part_and_on_nothing_else() -> None:
    first, again, other = generators(0, "run", "north", 1), generators(0, "run", "north", 1), generators(0, "run", "north", 2)
    draws = [(rng.integers(2**62), torch.rand(1, generator=torch_rng).item()) for rng, torch_rng in (first, again, other)]
    assert draws[0] == draws[1]
    assert draws[0][0] != draws[2][0]
    assert draws[0][1] != draws[2][1]
    assert generators("ab", "c")[0].integers(2**62) != generators("a", "bc")[0].integers(2**62)


def test_batches_go_through_whole_epochs_and_repeat_with_the_seed(make_sample) -> None:
    samples = [make_sample(number, idh=float(number)) for number in range(5)]
    plan = TrainingPlan(local_steps=5, batch_size=2, augmentation=False, modality_dropout=0)
    drawn = [batch.idh_B.tolist() for batch in draw_batches(samples, plan, seed=(0, "x"))]
    flat = list(chain(*drawn))
    assert sorted(flat[:5]) == sorted(flat[5:]) == [0, 1, 2, 3, 4]
    assert drawn == [batch.idh_B.tolist() for batch in draw_batches(samples, plan, seed=(0, "x"))]
    assert drawn != [batch.idh_B.tolist() for batch in draw_batches(samples, plan, seed=(1, "x"))]


def test_modality_dropout_shows_every_subset_of_what_is_there(make_sample) -> None:
    samples = [make_sample(1, modalities=(Modality.T1, Modality.FLAIR))]
    plan = TrainingPlan(local_steps=300, batch_size=1, augmentation=False, modality_dropout=1)
    seen = Counter(tuple(batch.shown_BM[0].tolist()) for batch in draw_batches(samples, plan, seed=(0,)))
    assert set(seen) == {(True, False, False, True), (True, False, False, False), (False, False, False, True)}
    assert min(seen.values()) > 60


def test_batches_of_patches_show_parts_of_the_samples(make_sample) -> None:
    samples = [make_sample(1), make_sample(2, segmentation=False)]
    plan = TrainingPlan(local_steps=4, batch_size=2, augmentation=False, modality_dropout=0)
    batches = list(draw_batches(samples, plan, seed=(0,), patch=(8, 8, 8)))
    assert all(batch.image_BMXYZ.shape == (2, 4, 8, 8, 8) and batch.regions_BRXYZ.shape == (2, 3, 8, 8, 8) for batch in batches)
    for batch in batches:
        for image_MXYZ, idh in zip(batch.image_BMXYZ.numpy(), batch.idh_B.tolist(), strict=True):
            parts = np.lib.stride_tricks.sliding_window_view(samples[0 if idh == 1 else 1].image_MXYZ, (4, 8, 8, 8))
            assert (parts == image_MXYZ).all((-1, -2, -3, -4)).any()
    again = draw_batches(samples, plan, seed=(0,), patch=(8, 8, 8))
    assert all(torch.equal(one.image_BMXYZ, other.image_BMXYZ) for one, other in zip(batches, again, strict=True))


def test_augmentation_changes_pictures_but_not_the_cases(make_sample) -> None:
    samples = [make_sample(1), make_sample(2)]
    before = [sample.image_MXYZ.copy() for sample in samples]
    plan = TrainingPlan(local_steps=1, batch_size=2, augmentation=True, modality_dropout=0)
    (batch,) = draw_batches(samples, plan, seed=(0,))
    assert not any(torch.equal(image, torch.from_numpy(own)) for image in batch.image_BMXYZ for own in before)
    for sample, own in zip(samples, before, strict=True):
        np.testing.assert_array_equal(sample.image_MXYZ, own)


@pytest.mark.parametrize(
    ("rule", "modalities", "known"),
    [
        ("never", ("t1", "t2"), [True, True]),
        ("site", ("t1", "t2"), [False, False]),
        ("site", MODALITIES, [True, True]),
        ("sample", MODALITIES, [True, False]),
    ],
)
def test_enhancing_tumour_is_unknown_where_nothing_shows_it(make_sample, rule, modalities, known) -> None:
    batch = Batch.collate([make_sample(1), make_sample(2)])
    rows = [[True] * 4, [True, False, True, True]] if "t1ce" in modalities else [[True, False, True, False]] * 2
    present_BM = torch.tensor(rows)
    batch = leave_out_enhancing(replace(batch, shown_BM=present_BM), rule, modalities=modalities)
    assert batch.region_known_BR[:, 2].tolist() == known
    assert batch.region_known_BR[:, :2].all()
