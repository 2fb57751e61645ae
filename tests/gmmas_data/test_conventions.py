"""Names of every public layout, as they are published, and the traps in them."""

from pathlib import Path

import pytest

from gmmas_data.conventions import EXAMPLES, recognise, why_unknown
from gmmas_data.layouts import read_cohort, survey_folder
from gmmas_schema.errors import DataError
from gmmas_schema.vocabulary import MODALITIES, Layout, Modality, Region, Tissue
from tests.gmmas_data.test_layouts import touch

FOUR = {"t1", "t1ce", "t2", "flair"}
PUBLISHED: dict[Layout, tuple[list[str], str, str]] = {
    Layout.BRATS2021: ([f"HGG/Brats18_2013_10_1/Brats18_2013_10_1_{part}.nii.gz" for part in (*FOUR, "seg")], "Brats18_2013_10_1", ""),
    Layout.BRATS2023: (
        [f"BraTS-GLI-00005-101/BraTS-GLI-00005-101-{part}.nii.gz" for part in ("t1n", "t1c", "t2w", "t2f", "seg")],
        "BraTS-GLI-00005-101",
        "BraTS-GLI-00005",
    ),
    Layout.UCSF_PDGM: (
        [f"UCSF-PDGM-0431_FU001d_nifti/UCSF-PDGM-0431_FU001d_{part}.nii.gz" for part in ("T1", "T1c", "T2", "FLAIR", "tumor_segmentation")],
        "UCSF-PDGM-0431_FU001d",
        "UCSF-PDGM-0431",
    ),
    Layout.EGD: ([f"SUBJECTS/EGD-0001/{part}.nii.gz" for part in ("T1", "T1GD", "T2", "FLAIR", "MASK")], "EGD-0001", ""),
    Layout.UPENN_GBM: (
        [
            *(f"images_structural/UPENN-GBM-00001_21/UPENN-GBM-00001_21_{part}.nii.gz" for part in ("T1", "T1GD", "T2", "FLAIR")),
            "images_segm/UPENN-GBM-00001_21_segm.nii.gz",
        ],
        "UPENN-GBM-00001_21",
        "UPENN-GBM-00001",
    ),
    Layout.TCGA: (
        [f"TCGA-02-0006/TCGA-02-0006_1996.08.23_{part}.nii.gz" for part in ("t1", "t1Gd", "t2", "flair", "GlistrBoost_ManuallyCorrected")],
        "TCGA-02-0006_1996.08.23",
        "TCGA-02-0006",
    ),
    Layout.BIDS: (
        [
            *(f"sub-X1/ses-pre/anat/sub-X1_ses-pre_{part}.nii.gz" for part in ("T1w", "ce-gadovist_T1w", "T2w", "FLAIR")),
            "derivatives/seg/sub-X1/ses-pre/anat/sub-X1_ses-pre_desc-tumor_dseg.nii.gz",
        ],
        "sub-X1_ses-pre",
        "sub-X1",
    ),
}
TISSUES = {1: Tissue.NECROSIS, 2: Tissue.OEDEMA, 3: Tissue.ENHANCING}


@pytest.mark.parametrize("layout", PUBLISHED)
def test_each_layout_is_recognised_by_its_names(tmp_path: Path, layout: Layout) -> None:
    names, case_id, patient_id = PUBLISHED[layout]
    (case,) = read_cohort(touch(tmp_path, *names), tissues=TISSUES if layout is Layout.BIDS else None)
    assert (case.layout, case.case_id, case.patient_id) == (layout, case_id, patient_id or case_id)
    assert tuple(case.images) == MODALITIES
    assert [path.name for path in (*case.images.values(), case.segmentation) if path] == [
        Path(name).name for name in sorted(names, key=lambda name: [recognise(tmp_path / name).modality is None, names.index(name)])
    ] or set(case.images.values()) | {case.segmentation} == {tmp_path / name for name in names}
    assert not survey_folder(tmp_path).left_out


def test_every_layout_has_an_example() -> None:
    assert set(EXAMPLES) | {Layout.BRATS2024} == set(Layout)


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        # Bias-corrected scans before others, and T1gad of the fifth release is T1c of the first.
        (["UCSF-PDGM-0004_T1.nii.gz", "UCSF-PDGM-0004_T1_bias.nii.gz"], {"UCSF-PDGM-0004_T1_bias.nii.gz"}),
        (["UCSF-PDGM-0004_T1gad.nii.gz"], {"UCSF-PDGM-0004_T1gad.nii.gz"}),
        # What a person corrected before what a program drew.
        (
            ["UPENN-GBM-00001_11_T1.nii.gz", "UPENN-GBM-00001_11_segm.nii.gz", "UPENN-GBM-00001_11_automated_approx_segm.nii.gz"],
            {"UPENN-GBM-00001_11_T1.nii.gz", "UPENN-GBM-00001_11_segm.nii.gz"},
        ),
        (
            ["TCGA-02-0006_1996.08.23_t1.nii.gz", "TCGA-02-0006_1996.08.23_GlistrBoost.nii.gz"],
            {"TCGA-02-0006_1996.08.23_t1.nii.gz", "TCGA-02-0006_1996.08.23_GlistrBoost.nii.gz"},
        ),
        (
            [f"TCGA-02-0006_1996.08.23_{part}.nii.gz" for part in ("t1", "GlistrBoost", "GlistrBoost_ManuallyCorrected")],
            {"TCGA-02-0006_1996.08.23_t1.nii.gz", "TCGA-02-0006_1996.08.23_GlistrBoost_ManuallyCorrected.nii.gz"},
        ),
        # Derivatives, which are skull-stripped and registered, before raw scans; a map of tissues is no tumour.
        (
            [
                "sub-1/anat/sub-1_T1w.nii.gz",
                "derivatives/x/sub-1_desc-brain_T1w.nii.gz",
                "derivatives/x/sub-1_dseg.nii.gz",
                "derivatives/y/sub-1_label-lesion_dseg.nii.gz",
            ],
            {"sub-1_desc-brain_T1w.nii.gz", "sub-1_label-lesion_dseg.nii.gz"},
        ),
    ],
)
def test_of_two_versions_the_better_is_taken(tmp_path: Path, names: list[str], taken: set[str]) -> None:
    survey = survey_folder(touch(tmp_path, *names))
    assert {part.path.name for part in survey.parts} == taken
    assert [one.reason for one in survey.left_out] == ["a version of a file that is there in a better one"] * (len(names) - len(taken))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("images_structural_unstripped/UPENN-GBM-00001_11_T1_unstripped.nii.gz", "a scan with skull"),
        ("UCSF-PDGM-0004_brain_parenchyma_segmentation.nii.gz", "a mask of the brain"),
        ("UCSF-PDGM-0004_DTI_eddy_FA.nii.gz", "another sequence"),
        ("SUBJECTS/EGD-0001/DWI.nii.gz", "another sequence"),
        ("sub-1_ce-gd_T2w.nii.gz", "another sequence"),
        ("sub-1_task-rest_bold.nii.gz", "another sequence"),
        ("Jane-Doe.nii", "no known convention"),
        ("VSD.Brain.XX.O.MR_Flair.54512.nii", "no known convention"),
    ],
)
def test_what_is_left_out_is_said_without_a_name(tmp_path: Path, name: str, reason: str) -> None:
    assert recognise(tmp_path / name) is None
    told = why_unknown(tmp_path / name)
    assert reason in told
    assert "0004" not in told
    assert "Doe" not in told


def test_a_cohort_of_tcga_is_no_brats(tmp_path: Path) -> None:
    """t1, t2 and flair are parts of both: the identifier tells."""
    survey = survey_folder(touch(tmp_path, "TCGA-02-0006_1996.08.23_t1.nii.gz", "TCGA-02-0006_1996.08.23_flair.nii.gz"))
    assert survey.layout is Layout.TCGA
    assert survey_folder(touch(tmp_path / "b", "TCGA-02-0006_t1.nii.gz")).layout is Layout.BRATS2021


def test_an_agent_other_than_for_t1_is_not_taken_for_one(tmp_path: Path) -> None:
    (case,) = read_cohort(touch(tmp_path, "sub-1_ce-gd_T1w.nii.gz", "sub-1_acq-3d_T1w.nii.gz", "sub-1_ce-gd_FLAIR.nii.gz"))
    assert {m: path.name for m, path in case.images.items()} == {
        Modality.T1: "sub-1_acq-3d_T1w.nii.gz",
        Modality.T1CE: "sub-1_ce-gd_T1w.nii.gz",
    }


def test_two_runs_are_refused_until_one_is_excluded(tmp_path: Path) -> None:
    touch(tmp_path, "sub-1_run-1_T1w.nii.gz", "sub-1_run-2_T1w.nii.gz")
    with pytest.raises(DataError, match="two files for one sequence") as caught:
        read_cohort(tmp_path)
    assert "data.exclude" in caught.value.remedy
    (case,) = read_cohort(tmp_path, exclude=("*_run-2_*",))
    assert case.images[Modality.T1].name == "sub-1_run-1_T1w.nii.gz"
    assert survey_folder(tmp_path, exclude=("*_run-2_*",)).reasons() == {"excluded by site.yaml (data.exclude)": 1}


def test_bids_masks_need_their_values_named(tmp_path: Path) -> None:
    touch(tmp_path, "sub-1_T1w.nii.gz", "derivatives/sub-1_dseg.nii.gz")
    with pytest.raises(DataError, match="values of BIDS label maps") as caught:
        read_cohort(tmp_path)
    assert "segmentation_values" in caught.value.expected
    (case,) = read_cohort(tmp_path, tissues={1: Tissue.TUMOUR})
    assert case.known_regions == (Region.WT,)
    assert read_cohort(tmp_path, exclude=("*_dseg.nii.gz",))[0].segmentation is None


def test_brats2024_is_never_inferred_for_only_its_values_differ(tmp_path: Path) -> None:
    touch(tmp_path, "BraTS-GLI-02405-100-t1n.nii.gz", "BraTS-GLI-02405-100-seg.nii.gz")
    (inferred,), (named,) = read_cohort(tmp_path), read_cohort(tmp_path, layout=Layout.BRATS2024)
    assert 4 not in inferred.segmentation_values
    assert named.segmentation_values[4] == 0
    assert (inferred.layout, named.layout) == (Layout.BRATS2023, Layout.BRATS2024)


def test_sources_of_segmentations_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "UPENN-GBM-00001_11_T1.nii.gz", "UPENN-GBM-00001_11_automated_approx_segm.nii.gz")
    assert list(read_cohort(tmp_path)[0].sources.values()) == ["automated"]
