"""What a file's name says, per public layout. No file is opened here.

    brats2021   <case>_{t1,t1ce,t2,flair,seg}.nii[.gz]                       Baid et al., arXiv:2107.02314 (2018 to 2021 alike)
    brats2023   <case>-{t1n,t1c,t2w,t2f,seg}.nii[.gz]                        LaBella et al., arXiv:2305.07642
    ucsf-pdgm   UCSF-PDGM-0004[_FU003d]_{T1,T1c,T2,FLAIR}[_bias], _tumor_segmentation       Calabrese et al., 10.7937/tcia.bdgf-8v37
    egd         .../EGD-0001/{T1,T1GD,T2,FLAIR,MASK}                         van der Voort et al., Data in Brief 2021
    upenn-gbm   UPENN-GBM-00001_11_{T1,T1GD,T2,FLAIR}, _segm, _automated_approx_segm        Bakas et al., Sci Data 2022
    tcga        TCGA-xx-xxxx_<date>_{t1,t1Gd,t2,flair}, _GlistrBoost[_ManuallyCorrected]    Bakas et al., Sci Data 2017
    bids        sub-X[_ses-Y]..[_ce-agent].._{T1w,T2w,FLAIR}, .._dseg        Gorgolewski et al., Sci Data 2016

Where a cohort holds two versions of a thing (bias-corrected or not, corrected by hand or not, derivative or raw), `rank` says which is
taken: the lower. Some names are also those of another layout, so the conventions are asked in the order of _CONVENTIONS.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from gmmas_schema.vocabulary import Layout, Modality

SEGMENTATION = None
"""The role of a label map, beside those of Modality."""


@dataclass(frozen=True)
class Part:
    """One recognised file.

    Attributes:
        case_id: whose it is.
        layout: the convention its name follows.
        modality: what it shows; None is the segmentation.
        path: the file.
        rank: of several versions the one with the lowest rank is taken.
        source: how a segmentation was made, where the name tells.
    """

    case_id: str
    layout: Layout
    modality: Modality | None
    path: Path
    rank: int = 0
    source: str = ""


@dataclass(frozen=True)
class _Convention:
    """One layout: a pattern with the groups `case` and `part`, and what each part is.

    Attributes:
        parts: part -> (role, rank, source of a segmentation).
        whole_path: the pattern is matched with the end of the path, for the folder names the case.
    """

    layout: Layout
    pattern: re.Pattern[str]
    parts: Mapping[str, tuple[Modality | None, int, str]]
    example: str
    whole_path: bool = False


_ENDING = r"\.nii(?:\.gz)?$"


def _images(*names: str, rank: int = 0, suffix: str = "") -> dict[str, tuple[Modality | None, int, str]]:
    return {f"{name}{suffix}": (modality, rank, "") for modality, name in zip(Modality, names, strict=True)}


def _convention(
    layout: Layout, case: str, parts: Mapping[str, tuple[Modality | None, int, str]], example: str, *, gap: str = "_"
) -> _Convention:
    names = "|".join(map(re.escape, sorted(parts, key=len, reverse=True)))
    return _Convention(layout, re.compile(rf"^(?P<case>{case}){gap}(?P<part>{names}){_ENDING}"), MappingProxyType(dict(parts)), example)


_EXPERT, _AUTOMATED, _CORRECTED = "outlined or corrected by an expert", "automated", "automated, corrected by an expert"

_CONVENTIONS = (
    _convention(
        Layout.UCSF_PDGM,
        r"UCSF-PDGM-\d+(?:_FU\d+d)?",
        {
            **_images("T1", "T1c", "T2", "FLAIR", suffix="_bias"),
            **_images("T1", "T1gad", "T2", "FLAIR", suffix="_bias"),
            **_images("T1", "T1c", "T2", "FLAIR", rank=1),
            **_images("T1", "T1gad", "T2", "FLAIR", rank=1),
            "tumor_segmentation": (SEGMENTATION, 0, _CORRECTED),
        },
        "UCSF-PDGM-0004_{T1,T1c,T2,FLAIR}[_bias].nii.gz",
    ),
    _convention(
        Layout.UPENN_GBM,
        r"UPENN-GBM-\d{5}_\d{2}",
        {
            **_images("T1", "T1GD", "T2", "FLAIR"),
            "segm": (SEGMENTATION, 0, _CORRECTED),
            "automated_approx_segm": (SEGMENTATION, 1, _AUTOMATED),
        },
        "UPENN-GBM-00001_11_{T1,T1GD,T2,FLAIR}.nii.gz",
    ),
    _convention(
        Layout.TCGA,
        r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}_\d{4}\.\d{2}\.\d{2}",
        {
            **_images("t1", "t1Gd", "t2", "flair"),
            "GlistrBoost_ManuallyCorrected": (SEGMENTATION, 0, _CORRECTED),
            "GlistrBoost": (SEGMENTATION, 1, _AUTOMATED),
        },
        "TCGA-02-0006_1996.08.23_{t1,t1Gd,t2,flair}.nii.gz",
    ),
    _Convention(
        Layout.EGD,
        re.compile(rf"(?:^|/)(?P<case>EGD-\d{{4}})/(?:[^/]+/)*?(?P<part>T1GD|T1|T2|FLAIR|MASK){_ENDING}"),
        MappingProxyType({**_images("T1", "T1GD", "T2", "FLAIR"), "MASK": (SEGMENTATION, 0, "")}),
        "EGD-0001/{T1,T1GD,T2,FLAIR,MASK}.nii.gz",
        whole_path=True,
    ),
    _convention(
        Layout.BRATS2021,
        ".+",
        {**_images("t1", "t1ce", "t2", "flair"), "seg": (SEGMENTATION, 0, "")},
        "<case>_{t1,t1ce,t2,flair,seg}.nii.gz",
    ),
    _convention(
        Layout.BRATS2023,
        ".+",
        {**_images("t1n", "t1c", "t2w", "t2f"), "seg": (SEGMENTATION, 0, "")},
        "<case>-{t1n,t1c,t2w,t2f,seg}.nii.gz",
        gap="-",
    ),
)

_BIDS = re.compile(
    rf"^(?P<case>sub-[A-Za-z0-9]+(?:_ses-[A-Za-z0-9]+)?)(?P<entities>(?:_[a-z]+-[A-Za-z0-9+]+)*)_(?P<part>T1w|T2w|FLAIR|dseg){_ENDING}"
)
_BIDS_EXAMPLE = "sub-01[_ses-1][_ce-gd]_{T1w,T2w,FLAIR}.nii.gz"
_TUMOUR = re.compile(r"_(?:desc|label|seg)-[A-Za-z0-9]*(?:tumou?r|lesion|glioma)", re.IGNORECASE)

_SAME_NAMES = MappingProxyType({Layout.BRATS2024: Layout.BRATS2023})
"""Layouts that only their label values tell from another, so they are never inferred."""

EXAMPLES = MappingProxyType({**{one.layout: one.example for one in _CONVENTIONS}, Layout.BIDS: _BIDS_EXAMPLE})
"""How the names of each layout look."""


def recognise(path: Path) -> Part | None:
    """Return what a file name says, or None if it says nothing."""
    if path.name.startswith("sub-"):
        return _recognise_bids(path)
    for one in _CONVENTIONS:
        if match := one.pattern.search(path.as_posix()) if one.whole_path else one.pattern.match(path.name):
            modality, rank, source = one.parts[match["part"]]
            return Part(match["case"], one.layout, modality, path, rank, source)
    return None


def names_of(layout: Layout) -> Layout:
    """Return the layout whose names a layout has."""
    return _SAME_NAMES.get(layout, layout)


def why_unknown(path: Path) -> str:
    """Return why a NIfTI file is left out, in words that name neither file nor patient."""
    name = path.name
    if "_unstripped." in name:
        return "a scan with skull, which this cohort also holds stripped"
    if "brain_segmentation" in name or "brain_parenchyma_segmentation" in name:
        return "a mask of the brain, not of the tumour"
    if re.match(r"^(UCSF-PDGM-\d|UPENN-GBM-\d|TCGA-|sub-)", name) or re.search(r"(^|/)EGD-\d{4}/", path.as_posix()):
        return "another sequence or map of this cohort"
    return "the name follows no known convention"


def _recognise_bids(path: Path) -> Part | None:
    """Return what a BIDS name says. `ce` (contrast agent) tells T1ce; derivatives outrank raw scans; masks named after tumours the rest.

    A dseg may be a map of grey and white matter, so BIDS masks count only where site.yaml names their values (gmmas_data.layouts).
    """
    match = _BIDS.match(path.name)
    if match is None:
        return None
    raw = 0 if "derivatives" in path.parts else 1
    if match["part"] == "dseg":
        return Part(match["case"], Layout.BIDS, SEGMENTATION, path, 0 if _TUMOUR.search(match["entities"]) else 1)
    contrast = "_ce-" in match["entities"]
    if contrast and match["part"] != "T1w":
        return None
    modality = {"T1w": Modality.T1CE if contrast else Modality.T1, "T2w": Modality.T2, "FLAIR": Modality.FLAIR}[match["part"]]
    return Part(match["case"], Layout.BIDS, modality, path, raw)
