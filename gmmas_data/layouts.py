"""Reading a folder of scans as it lies: file names to cases. No voxel is read here.

    BraTS 2018-2021   <case>_{t1,t1ce,t2,flair,seg}.nii[.gz]      Baid et al., arXiv:2107.02314
    BraTS 2023-       <case>-{t1n,t1c,t2w,t2f,seg}.nii[.gz]       LaBella et al., arXiv:2305.07642

Folders may be nested (HGG/ and LGG/ of 2018, one folder per case) or flat: a case is the set of files with one name. The layout
follows from the names, never from voxel values: 3 is enhancing tumour in 2023, was non-enhancing core in 2013, and is unused between.
"""

import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from gmmas_data.cases import Case, patient_of
from gmmas_data.labels import Markers, read_labels
from gmmas_schema.errors import DataError, ReasonCode
from gmmas_schema.vocabulary import MODALITIES, Layout, Modality

_LOG = logging.getLogger(__name__)

_SEGMENTATION = "seg"

_SUFFIXES: Mapping[Layout, Mapping[str, Modality]] = MappingProxyType(
    {
        Layout.BRATS2021: MappingProxyType({"t1": Modality.T1, "t1ce": Modality.T1CE, "t2": Modality.T2, "flair": Modality.FLAIR}),
        Layout.BRATS2023: MappingProxyType({"t1n": Modality.T1, "t1c": Modality.T1CE, "t2w": Modality.T2, "t2f": Modality.FLAIR}),
    }
)
_SEPARATOR = MappingProxyType({Layout.BRATS2021: "_", Layout.BRATS2023: "-"})
_NAMES = MappingProxyType(
    {
        layout: re.compile(rf"^(?P<case>.+){_SEPARATOR[layout]}(?P<part>{'|'.join((*suffixes, _SEGMENTATION))})\.nii(\.gz)?$")
        for layout, suffixes in _SUFFIXES.items()
    }
)
_CONVENTIONS = " or ".join(
    f"<case>{_SEPARATOR[layout]}{{{','.join((*suffixes, _SEGMENTATION))}}}.nii.gz ({layout})" for layout, suffixes in _SUFFIXES.items()
)


@dataclass(frozen=True)
class _Part:
    """One recognised file: which case and layout it belongs to, and what it shows (None: the segmentation)."""

    case_id: str
    layout: Layout
    modality: Modality | None
    path: Path


def read_cohort(
    root: Path,
    *,
    layout: Layout | Literal["auto"] = "auto",
    labels: Path | None = None,
    modalities: Collection[Modality] = MODALITIES,
) -> tuple[Case, ...]:
    """Read all cases below `root`, sorted by case identifier.

    Args:
        root: folder of the cohort, nested or flat.
        layout: convention of the file names; `auto` infers it, and refuses a folder that mixes two.
        labels: CSV of the patients' labels, see gmmas_data.labels.
        modalities: sequences to take; files of others are not even named in the cases.

    Raises:
        DataError: no such folder, no case in it, mixed layouts, two files for one sequence of a case, or a faulty labels table.
    """
    parts, ignored = _find_parts(root)
    if ignored:
        _LOG.warning("%d NIfTI files follow no known naming convention and were left out", len(ignored))
    parts = _of_one_layout(parts, layout, root=root)
    _refuse_doubles(parts, root=root)
    by_case: dict[str, list[_Part]] = {}
    for part in parts:
        by_case.setdefault(part.case_id, []).append(part)
    patients = {patient_of(case_id) for case_id in by_case}
    markers = read_labels(labels, patients=patients) if labels is not None else {}
    return tuple(_assemble(case_id, by_case[case_id], markers=markers, modalities=modalities) for case_id in sorted(by_case))


def read_case(folder: Path) -> Case:
    """Read the one case in a folder: any supported layout, any subset of sequences, with or without a segmentation.

    Raises:
        DataError: as read_cohort; also if the folder holds more than one case.
    """
    cases = read_cohort(folder)
    if len(cases) > 1:
        raise DataError(
            "a folder of one case holds several",
            where=folder,
            got=f"{len(cases)} cases: {_some([case.case_id for case in cases])}",
            expected="the files of one case",
            remedy="name the folder of one case",
        )
    return cases[0]


def unrecognised_files(root: Path) -> tuple[Path, ...]:
    """Return the NIfTI files below `root` that follow no supported naming convention, sorted."""
    return tuple(_find_parts(root)[1])


def _find_parts(root: Path) -> tuple[list[_Part], list[Path]]:
    """Return the recognised and the unrecognised NIfTI files below `root`."""
    if not root.is_dir():
        raise DataError(
            "the data folder cannot be read",
            where=root,
            got="no folder of this name" if not root.exists() else "a file",
            expected="a folder",
            remedy="check the path and its rights",
            code=ReasonCode.DATA_UNREADABLE,
        )
    parts: list[_Part] = []
    ignored: list[Path] = []
    for path in sorted(_nifti_files(root)):
        part = _recognise(path)
        if part is None:
            ignored.append(path)
        else:
            parts.append(part)
    return parts, ignored


def _nifti_files(root: Path) -> Iterator[Path]:
    """Yield NIfTI files, through symbolic links but no folder twice; hidden files are left out (macOS writes ._ twins)."""
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        resolved = os.path.realpath(folder)
        if resolved in seen:
            subfolders.clear()
            continue
        seen.add(resolved)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        yield from (Path(folder, name) for name in names if name.endswith((".nii", ".nii.gz")) and not name.startswith("."))


def _recognise(path: Path) -> _Part | None:
    """Return what a file name says, or None if it says nothing."""
    for layout, pattern in _NAMES.items():
        if match := pattern.match(path.name):
            return _Part(match["case"], layout, _SUFFIXES[layout].get(match["part"]), path)
    return None


def _of_one_layout(parts: list[_Part], layout: Layout | Literal["auto"], *, root: Path) -> list[_Part]:
    """Return the files of the layout asked for, or of the only one there.

    `_seg` and `-seg` files alone cannot tell two cohorts from one, so every recognised file counts.
    """
    found = sorted({part.layout for part in parts})
    if layout == "auto" and len(found) > 1:
        examples = ", ".join(next(part.path.name for part in parts if part.layout == one) for one in found)
        raise DataError(
            "the folder mixes two naming conventions",
            where=root,
            got=f"{' and '.join(found)}, for example {examples}",
            expected="one convention, because label values differ between them",
            remedy="separate the cohorts, or name the layout in the configuration to read one of them",
        )
    kept = [part for part in parts if layout in ("auto", part.layout)]
    if not kept:
        raise DataError(
            "no case was found" if layout == "auto" else f"no case of layout {layout} was found",
            where=root,
            got=f"files of layout {', '.join(found)}" if found else "no NIfTI file with a known name",
            expected=_CONVENTIONS,
            remedy="check the folder; DICOM must be converted first",
            code=ReasonCode.DATA_EMPTY,
        )
    return kept


def _refuse_doubles(parts: list[_Part], *, root: Path) -> None:
    """Refuse two files for one sequence of one case: nothing in a name says which is right."""
    by_role: dict[tuple[str, Modality | None], list[Path]] = {}
    for part in parts:
        by_role.setdefault((part.case_id, part.modality), []).append(part.path)
    doubled = [paths for paths in by_role.values() if len(paths) > 1]
    if doubled:
        raise DataError(
            "two files for one sequence of a case",
            where=root,
            got=_some([" and ".join(str(path.relative_to(root)) for path in paths) for paths in doubled]),
            expected="one file per case and sequence",
            remedy="remove or rename one of each pair",
        )


def _assemble(case_id: str, parts: list[_Part], *, markers: Mapping[str, Markers], modalities: Collection[Modality]) -> Case:
    """Make the case of its files and its patient's markers; a patient without a row has no known marker."""
    by_role = {part.modality: part.path for part in parts}
    patient_id = patient_of(case_id)
    known = markers.get(patient_id, Markers())
    return Case(
        case_id=case_id,
        patient_id=patient_id,
        images={m: by_role[m] for m in MODALITIES if m in by_role and m in modalities},
        segmentation=by_role.get(None),
        layout=parts[0].layout,
        idh=known.idh,
        codeletion=known.codeletion,
        grade=known.grade,
        mgmt=known.mgmt,
    )


def _some(names: list[str], limit: int = 5) -> str:
    """Return the first names, and how many more there are."""
    return "; ".join(names[:limit]) + (f"; and {len(names) - limit} more" if len(names) > limit else "")
