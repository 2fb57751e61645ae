import pytest

from gmmas_schema.groups import GROUPS, group_of
from gmmas_schema.vocabulary import MODALITIES, Modality, Region, Task
from strategies.exchange import names_up, select_groups, tensors_down

NAMES = {
    **{f"encoders.{m}.0.weight": f"encoder.{m}" for m in MODALITIES},
    **{f"gates.{m}.bias": f"gate.{m}" for m in MODALITIES},
    "fusion.0.weight": "fusion",
    "bottleneck.weight": "bottleneck",
    "decoder.weight": "decoder",
    "adapter.weight": "adapter",
    "anchors.prototypes": "anchors",
    **{f"heads.{t}.weight": f"head.{t}" for t in Task},
    **{f"uncertainty.{t}": f"uncertainty.{t}" for t in Task},
}
NO_T1CE = tuple(m for m in MODALITIES if m is not Modality.T1CE)


def test_the_names_cover_every_group():
    assert {group_of(name) for name in NAMES} == set(GROUPS)


def test_a_site_receives_all_but_what_belongs_to_sequences_it_lacks():
    down = tensors_down(NAMES, modalities=NO_T1CE)
    assert set(NAMES) - set(down) == {"encoders.t1ce.0.weight", "gates.t1ce.bias"}
    assert set(tensors_down(NAMES, modalities=MODALITIES)) == set(NAMES)


def test_a_site_with_molecular_labels_only_sends_no_decoder():
    up = names_up(NAMES, modalities=MODALITIES, labelled={Task.IDH: 3, Task.CODELETION: 0})
    groups = {group_of(name) for name in up}
    assert {"head.idh", "uncertainty.idh", "fusion", "encoder.t1"} <= groups
    assert not {"decoder", "head.segmentation", "head.codeletion", "uncertainty.codeletion"} & groups


@pytest.mark.parametrize("labelled", [{}, {Task.IDH: 0}])
def test_a_site_without_labels_sends_nothing(labelled):
    assert names_up(NAMES, modalities=MODALITIES, labelled=labelled) == ()


def test_a_single_sequence_sends_no_gate():
    up = names_up(NAMES, modalities=(Modality.T2,), labelled={Task.IDH: 1})
    assert not [name for name in up if name.startswith("gates.")]


def test_selection_keeps_order():
    assert list(select_groups(NAMES, {"decoder", "fusion"})) == ["fusion.0.weight", "decoder.weight"]


def test_a_site_that_learns_no_region_can_leave_the_backbone_to_others():
    up = names_up(NAMES, modalities=MODALITIES, labelled={Task.IDH: 3}, backbone="regions")
    assert {group_of(name) for name in up} == {"head.idh", "uncertainty.idh"}
    up = names_up(NAMES, modalities=MODALITIES, labelled={Task.IDH: 3}, pseudo=[Region.WT], backbone="regions")
    groups = {group_of(name) for name in up}
    assert {"decoder", "encoder.flair", "fusion"} <= groups
    assert "head.segmentation" not in groups
