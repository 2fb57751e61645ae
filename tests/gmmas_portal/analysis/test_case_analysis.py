from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gmmas_data.regions import regions_of
from gmmas_portal.analysis import Analysis, CaseContext, TissueResults, analyse, mask_digest, remeasure
from gmmas_portal.analysis import fact_ids as ids
from gmmas_runtime.files import sha256_file
from gmmas_schema.case_record import AbstainCode, FactStatus
from gmmas_schema.errors import DataError
from gmmas_schema.inference import InferencePlan
from gmmas_schema.trained_parts import TrainedParts
from gmmas_schema.vocabulary import MODALITIES, REGIONS, Modality
from tests.gmmas_workflows.predictions import CASE


def test_the_record_names_what_it_rests_on(analysis: Analysis, portal_weights) -> None:
    record = analysis.record
    assert record.case == "BraTS2021_00006"
    assert (record.modalities_used, record.modalities_missing) == (MODALITIES, ())
    assert record.model.weights_sha256 == portal_weights.sha256
    assert record.inputs[Modality.FLAIR] == sha256_file(CASE / "BraTS2021_00006_flair.nii.gz")
    assert (record.segmentation.version, record.segmentation.author) == (1, "model")
    assert record.segmentation.sha256 == mask_digest(analysis.labels_IJK)
    assert record.accuracy is None


def test_facts_are_those_of_the_mask(analysis: Analysis) -> None:
    regions = regions_of(analysis.labels_IJK)
    for region, mask in zip(REGIONS, regions, strict=True):
        fact = analysis.record.fact(f"volume.{region}")
        assert fact is not None
        assert fact.value == pytest.approx(np.count_nonzero(mask) * 8 / 1000)
    assert analysis.uncertainty_IJK is not None
    assert analysis.labels_IJK.shape == analysis.uncertainty_IJK.shape == analysis.probability_RIJK.shape[1:] == analysis.frame.shape
    assert set(np.unique(analysis.labels_IJK)) <= {0, 1, 2, 3}


def test_the_real_brain_has_the_size_of_one_and_lies_on_the_atlas(analysis: Analysis) -> None:
    assert 1000 < analysis.frame.brain_ml < 1900
    assert analysis.frame.to_mni is not None
    quality = analysis.record.fact(ids.QUALITY)
    assert quality is not None
    assert quality.value is True


def test_a_random_model_is_not_calibrated_and_says_so(analysis: Analysis) -> None:
    codes = {a.code for a in analysis.record.abstentions}
    assert AbstainCode.NOT_CALIBRATED in codes
    fact = analysis.record.fact("marker.idh")
    assert fact is not None
    assert fact.status is FactStatus.ABSTAINED
    assert fact.confidence is None


@pytest.fixture(scope="module")
def child(portal_weights) -> tuple[Analysis, list[tuple[str, int, int]]]:
    """A child's scan after surgery without T1 and T1ce, and what was told of the progress."""
    told: list[tuple[str, int, int]] = []
    context = CaseContext(pseudonym="P-001", age_years=12, post_operative=True, tissue=TissueResults(idh=True))
    found = analyse(
        CASE,
        portal_weights,
        plan=InferencePlan(),
        context=context,
        modalities=(Modality.T2, Modality.FLAIR),
        on_progress=lambda what, done, total: told.append((what, done, total)),
    )
    return found, told


def test_what_was_entered_decides(child) -> None:
    child, _ = child
    assert child.record.case == "P-001"
    assert child.uncertainty_IJK is None
    codes = {a.code for a in child.record.abstentions}
    assert {AbstainCode.MINOR, AbstainCode.NEEDS_SEQUENCE} <= codes
    assert child.record.modalities_missing == (Modality.T1, Modality.T1CE)
    assert set(child.record.inputs) == {Modality.T2, Modality.FLAIR}
    fact = child.record.fact(ids.VOLUME_ET)
    assert fact is not None
    assert {AbstainCode.MINOR, AbstainCode.NEEDS_SEQUENCE} <= set(fact.codes)


def test_progress_ends_where_it_should(child) -> None:
    _, told = child
    assert told[0][0] == "predicting"
    assert told[-1] == ("done", 3, 3)
    assert all(0 <= done <= total for _, done, total in told)


def test_a_correction_is_a_new_version_measured_again(analysis: Analysis, outlined: np.ndarray) -> None:
    before = analysis.record
    after = remeasure(before, outlined, author="dr.weber", frame=analysis.frame)
    assert (after.segmentation.version, after.segmentation.author, after.segmentation.based_on) == (2, "dr.weber", 1)
    assert after.segmentation.sha256 == mask_digest(outlined) != before.segmentation.sha256
    volume = after.fact(ids.VOLUME_WT)
    assert volume is not None
    assert volume.value == pytest.approx(np.count_nonzero(outlined) * 0.008)
    for fact in before.facts:
        if fact.source != "segmentation":
            assert after.fact(fact.id) == fact
    assert [fact.id for fact in after.facts if fact.source != "segmentation"] == [f.id for f in before.facts if f.source != "segmentation"]
    third = remeasure(after, analysis.labels_IJK, author="dr.weber", frame=analysis.frame)
    assert (third.segmentation.version, third.segmentation.based_on) == (3, 2)
    assert third.fact(ids.VOLUME_WT).value == before.fact(ids.VOLUME_WT).value


def test_doubts_about_the_model_do_not_touch_a_persons_outline(child, outlined: np.ndarray) -> None:
    old, _ = child
    assert old.record.fact(ids.VOLUME_ET).status is FactStatus.ABSTAINED
    after = remeasure(old.record, outlined, author="dr.weber", frame=old.frame)
    assert after.fact(ids.VOLUME_ET).status is FactStatus.FOUND
    assert after.fact("marker.idh").status is FactStatus.ABSTAINED
    post = next(a for a in after.abstentions if a.code is AbstainCode.POST_OPERATIVE)
    assert not any(name.startswith("volume.") for name in post.facts)


def test_an_emptied_mask_has_nothing_to_measure(analysis: Analysis) -> None:
    after = remeasure(analysis.record, np.zeros(analysis.frame.shape, dtype=np.uint8), author="dr.weber", frame=analysis.frame)
    assert after.fact(ids.VOLUME_WT).value == 0
    assert after.fact(ids.DIAMETER_WT).status is FactStatus.ABSENT


def test_of_a_tumour_that_a_person_erased_nothing_is_told(analysis: Analysis, outlined: np.ndarray) -> None:
    told = analysis.record.fact("marker.idh").model_copy(update={"status": FactStatus.FOUND, "codes": (), "reason": ""})
    facts = tuple(told if fact.id == told.id else fact for fact in analysis.record.facts)
    record = analysis.record.model_copy(update={"facts": facts})
    empty = np.zeros(analysis.frame.shape, dtype=np.uint8)
    after = remeasure(record, empty, author="dr.weber", frame=analysis.frame)
    assert after.fact("marker.idh").codes == (AbstainCode.NO_TUMOUR,)
    assert any("marker.idh" in a.facts for a in after.abstentions if a.code is AbstainCode.NO_TUMOUR)
    assert after.fact("subtype.told") == record.fact("subtype.told"), "left open already, for its own reasons"
    assert remeasure(record, outlined, author="dr.weber", frame=analysis.frame).fact("marker.idh") == told


@pytest.mark.parametrize(("shape", "value", "what"), [((4, 4, 4), 1, "grid"), (None, 4, "label")])
def test_a_correction_on_another_grid_or_with_unknown_labels_is_refused(analysis: Analysis, shape, value: int, what: str) -> None:
    wrong = np.full(shape or analysis.frame.shape, value, dtype=np.uint8)
    with pytest.raises(DataError, match=what):
        remeasure(analysis.record, wrong, author="dr.weber", frame=analysis.frame)


def test_a_case_that_does_not_pass_the_gate_is_no_analysis(portal_weights, tmp_path: Path) -> None:
    (tmp_path / "BraTS2021_00009_flair.nii.gz").write_bytes(b"no nifti")
    with pytest.raises(DataError):
        analyse(tmp_path, portal_weights)


def test_the_experts_outline_of_the_real_case_measures_as_published(analysis: Analysis, outlined: np.ndarray) -> None:
    """The full case has 25506, 85957 and 26448 voxels of 1 mm; its 2 mm copy keeps the volumes to a few percent."""
    record = remeasure(analysis.record, outlined, author="expert", frame=analysis.frame)
    values = {name: record.fact(name).value for name in (ids.VOLUME_NECROSIS, ids.VOLUME_OEDEMA, ids.VOLUME_ET)}
    assert values == pytest.approx({ids.VOLUME_NECROSIS: 25.506, ids.VOLUME_OEDEMA: 85.957, ids.VOLUME_ET: 26.448}, rel=0.08)


def test_a_head_with_its_skull_is_not_laid_over_the_atlas_and_all_is_left_open(portal_weights, tmp_path: Path) -> None:
    image = nib.load(CASE / "BraTS2021_00006_flair.nii.gz")
    values = np.asarray(image.dataobj).astype(np.float32)
    head = np.full([n + 24 for n in values.shape], 200, dtype=np.float32)
    head[12:-12, 12:-12, 12:-12] += values
    head[:2] = head[-2:] = head[:, :2] = head[:, -2:] = 0
    nib.save(nib.Nifti1Image(head, image.affine), tmp_path / "BraTS2021_00007_flair.nii.gz")
    found = analyse(tmp_path, portal_weights, plan=InferencePlan())
    assert found.frame.to_mni is None
    assert found.record.fact(ids.QUALITY).value is False
    assert found.record.fact(ids.LOBES[0]).status is FactStatus.ABSENT
    assert AbstainCode.QUALITY in found.record.fact(ids.VOLUME_WT).codes
    corrected = remeasure(found.record, found.labels_IJK, author="dr.weber", frame=found.frame)
    assert corrected.fact(ids.VOLUME_WT).status is FactStatus.FOUND
    assert corrected.fact(ids.SHARE_WT).codes == (AbstainCode.QUALITY,)


def test_a_model_that_never_saw_t1ce_leaves_core_and_enhancement_open_whatever_lies_there(portal_weights) -> None:
    read = tuple(m for m in MODALITIES if m is not Modality.T1CE)
    weights = replace(portal_weights, trained=TrainedParts(modalities=read, heads=REGIONS))
    record = analyse(CASE, weights, plan=InferencePlan(), device="cpu").record
    assert (record.modalities_used, record.modalities_missing) == (read, (Modality.T1CE,))
    assert set(record.inputs) == set(read)
    for name in (ids.VOLUME_TC, ids.VOLUME_ET):
        assert AbstainCode.NEEDS_SEQUENCE in record.fact(name).codes
    for name in ("marker.idh", "marker.codeletion", ids.SUBTYPE):
        assert (record.fact(name).status, record.fact(name).codes) == (FactStatus.ABSENT, (AbstainCode.NOT_TRAINED,))
