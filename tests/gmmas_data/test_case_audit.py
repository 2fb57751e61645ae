"""Every finding of a case's audit, each from a real case changed in one way; an unchanged one has none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from gmmas_data.case_audit import audit_case
from gmmas_data.case_picture import draw_case
from gmmas_data.cases import Case
from gmmas_data.volumes import read_image
from gmmas_schema.audit import FindingKind
from gmmas_schema.vocabulary import Layout, Modality, Region, Side
from tests.gmmas_data.real_case import write_real
from tests.gmmas_data.scans import case_in, save


def on_mask(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Case], Case]:
    def changed(case: Case) -> Case:
        assert case.segmentation is not None
        volume = read_image(case.segmentation)
        save(case.segmentation, change(volume.values_XYZ.astype(np.uint8)), affine=volume.affine)
        return case

    return changed


def on_scans(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Case], Case]:
    def changed(case: Case) -> Case:
        for path in case.images.values():
            volume = read_image(path)
            save(path, change(volume.values_XYZ), affine=volume.affine)
        return case

    return changed


def with_skull(values: np.ndarray) -> np.ndarray:
    return np.maximum(values, 50 * ndimage.binary_dilation(values > 0, iterations=18)).astype(np.float32)


def speckled(labels: np.ndarray) -> np.ndarray:
    labels = labels.copy()
    for x in range(20, 60, 8):
        for y in range(20, 60, 8):
            labels[x : x + 3, y : y + 3, 30:33] = 2
    return labels


def thick(case: Case) -> Case:
    for path in (*case.images.values(), case.segmentation):
        assert path is not None
        volume = read_image(path)
        coarse = volume.values_XYZ[:, :, ::5]
        save(path, coarse.astype(np.uint8 if path == case.segmentation else np.float32), affine=volume.affine @ np.diag([0.5, 0.5, 5, 1]))
    return case


CHANGES: dict[FindingKind, Callable[[Case], Case]] = {
    FindingKind.NOT_STRIPPED: on_scans(with_skull),
    FindingKind.STRIPPING_UNCLEAR: on_scans(lambda v: np.where(np.arange(v.shape[0])[:, None, None] < v.shape[0] // 3, v, 0)),
    FindingKind.THICK_SLICES: thick,
    FindingKind.LABEL_OUTSIDE: on_mask(lambda v: np.roll(v, 25, axis=0)),
    FindingKind.LABEL_SCATTERED: on_mask(speckled),
    FindingKind.LABEL_TINY: on_mask(lambda v: v * (np.cumsum(v.ravel() > 0).reshape(v.shape) < 10)),
    FindingKind.LABEL_HUGE: on_mask(lambda v: np.where(ndimage.binary_dilation(v > 0, iterations=12), np.maximum(v, 2), v)),
    FindingKind.NO_ENHANCEMENT: on_mask(lambda v: np.array([0, 4, 2, 3, 1], np.uint8)[v]),
    FindingKind.NOT_BRIGHT: on_mask(lambda v: np.roll(v, 45, axis=1)),
    FindingKind.SIDE_DIFFERS: lambda case: replace(
        on_mask(lambda v: np.where(np.arange(v.shape[0])[:, None, None] > 48, v, 0))(case), side=Side.RIGHT
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_each_fault_is_found(tmp_path: Path, kind: FindingKind) -> None:
    audit, loaded = audit_case(CHANGES[kind](write_real(tmp_path)))
    assert loaded is not None
    assert kind in {finding.kind for finding in audit.findings}, audit.findings
    assert draw_case(loaded, audit).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("named", "shown"),
    [(Modality.FLAIR, Modality.T1), (Modality.T2, Modality.FLAIR), (Modality.T1, Modality.T2), (Modality.FLAIR, Modality.T2)],
)
def test_a_scan_under_a_wrong_name_is_found(tmp_path: Path, named: Modality, shown: Modality) -> None:
    scans = {m: m for m in Modality} | {named: shown}
    audit, _ = audit_case(write_real(tmp_path, scans=scans))
    kinds = {finding.kind: finding.text for finding in audit.findings}
    assert f"it may be a {shown}" in kinds[FindingKind.SEQUENCE_DIFFERS] or str(shown) in kinds[FindingKind.SEQUENCE_DIFFERS]
    assert FindingKind.SAME_VOXELS in kinds


def test_swapped_t1_and_t1ce_are_found(tmp_path: Path) -> None:
    swapped = {Modality.T1: Modality.T1CE, Modality.T1CE: Modality.T1}
    audit, _ = audit_case(write_real(tmp_path, scans={m: swapped.get(m, m) for m in Modality}))
    found = [finding.text for finding in audit.findings if finding.kind is FindingKind.SEQUENCE_DIFFERS]
    assert [text.split()[0] for text in found] == ["R1_t1.nii", "R1_t1ce.nii"]


def test_an_unchanged_case_has_no_finding_and_its_volumes(tmp_path: Path) -> None:
    audit, _ = audit_case(write_real(tmp_path))
    assert audit.findings == ()
    assert audit.stripped == "yes"
    assert audit.label is not None
    # 137.9, 52.0 and 26.4 ml at 1 mm.
    assert audit.label.volumes_ml[Region.WT] == pytest.approx(138, rel=0.03)
    assert audit.label.volumes_ml[Region.ET] == pytest.approx(26.4, rel=0.1)
    assert {scan.axes for scan in audit.scans.values()} == {"LPS"}


def test_an_outline_of_the_whole_tumour_has_one_volume(tmp_path: Path) -> None:
    case = on_mask(lambda v: (v > 0).astype(np.uint8))(write_real(tmp_path))
    audit, _ = audit_case(replace(case, layout=Layout.EGD))
    assert audit.label is not None
    assert list(audit.label.volumes_ml) == [Region.WT]
    assert audit.findings == ()


def test_a_refused_case_is_one_finding(tmp_path: Path) -> None:
    case = case_in(tmp_path)
    case.images[Modality.T2].write_bytes(b"")
    audit, loaded = audit_case(case)
    assert (loaded, audit.fault, [finding.kind for finding in audit.findings]) == (None, "E_DATA_UNREADABLE", [FindingKind.UNREADABLE])


def test_the_picture_shows_the_patients_right_on_the_left(tmp_path: Path) -> None:
    """A bright block on the right of the brain must be bright in the left half of a panel."""
    import io

    from PIL import Image

    case = on_scans(lambda v: np.where((v > 0) & (np.arange(v.shape[0])[:, None, None] < 40), 3000, np.minimum(v, 300)))(
        write_real(tmp_path)
    )
    assert nib.aff2axcodes(read_image(case.images[Modality.T2]).affine)[0] == "L"  # low indices are the patient's right
    audit, loaded = audit_case(replace(case, segmentation=None))
    assert loaded is not None
    picture = np.asarray(Image.open(io.BytesIO(draw_case(loaded, audit))).convert("L"), dtype=float)
    panel = picture[40:, : picture.shape[1] // 4]
    half = panel.shape[1] // 2
    assert panel[:, :half].mean() > 2 * panel[:, half:].mean()
