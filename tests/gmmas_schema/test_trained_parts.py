import pytest

from gmmas_schema.groups import GROUPS
from gmmas_schema.trained_parts import HEADS, TrainedParts
from gmmas_schema.vocabulary import MARKERS, MODALITIES, REGIONS, Modality, Region, Task


def test_every_group_of_an_encoder_or_a_head_has_its_part() -> None:
    everything = TrainedParts.of(GROUPS)
    assert everything == TrainedParts(modalities=MODALITIES, heads=(*REGIONS, *MARKERS))
    assert everything.heads == HEADS
    assert TrainedParts.of(["fusion", "decoder", "gate.t1", "uncertainty.idh"]) == TrainedParts()


def test_rows_of_the_segmentation_head_are_regions() -> None:
    found = TrainedParts.of(["encoder.flair", "encoder.t1", "head.segmentation.wt", "head.segmentation.tc", "head.idh"])
    assert found == TrainedParts(modalities=(Modality.T1, Modality.FLAIR), heads=(Region.WT, Region.TC, Task.IDH))
    assert TrainedParts.of(["head.segmentation"]).heads == REGIONS


def test_rounds_add_up_in_any_order() -> None:
    first, second = TrainedParts.of(["encoder.t2", "head.mgmt"]), TrainedParts.of(["encoder.t1", "head.segmentation.wt"])
    assert first | second == second | first == TrainedParts(modalities=(Modality.T1, Modality.T2), heads=(Region.WT, Task.MGMT))
    assert first | TrainedParts() == first


@pytest.mark.parametrize(
    ("heads", "told"),
    [
        (HEADS, HEADS),
        ((Region.WT, Region.ET), (Region.WT,)),
        ((Region.TC,), ()),
        ((Task.CODELETION, Task.GRADE, Task.MGMT), (Task.MGMT,)),
        ((Task.IDH, Task.CODELETION), (Task.IDH, Task.CODELETION)),
    ],
)
def test_an_answer_is_told_only_where_all_that_it_rests_on_was_trained(heads, told) -> None:
    assert tuple(head for head in HEADS if TrainedParts(heads=heads).tells(head)) == told


def test_the_record_goes_through_json() -> None:
    parts = TrainedParts(modalities=(Modality.T1CE,), heads=(Region.ET, Task.IDH))
    assert TrainedParts.model_validate_json(parts.model_dump_json()) == parts
    with pytest.raises(ValueError, match="three heads"):
        TrainedParts(heads=(Task.SEGMENTATION,))
