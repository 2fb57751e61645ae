"""Reading a folder of scans as it lies: file names to cases. No voxel is read here.

Folders may be nested (HGG/ and LGG/ of BraTS 2018, one folder per case) or flat: a case is the set of files with one name. The layout
follows from the names (gmmas_data.conventions), never from voxel values: 3 is enhancing tumour in BraTS 2023, was non-enhancing core in
2013, and is unused between.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from gmmas_data.cases import Case, patient_of
from gmmas_data.conventions import EXAMPLES, Part, names_of, recognise, why_unknown
from gmmas_data.label_tables import egd_markers, read_markers
from gmmas_data.labels import Markers
from gmmas_schema.errors import DataError, ReasonCode
from gmmas_schema.site import DataConfig, TableConfig
from gmmas_schema.vocabulary import MARKERS, MODALITIES, Layout, Modality, Task, Tissue

_LOG = logging.getLogger(__name__)

_METADATA = "metadata.json"


@dataclass(frozen=True)
class LeftOut:
    """A NIfTI file that no case takes, and why, in words without a name."""

    path: Path
    reason: str


@dataclass(frozen=True)
class FolderSurvey:
    """What the names below a folder say.

    Attributes:
        layout: the layout read.
        parts: the files that cases take, one per case and role.
        left_out: all other NIfTI files, sorted.
    """

    layout: Layout
    parts: tuple[Part, ...]
    left_out: tuple[LeftOut, ...]

    def reasons(self) -> Mapping[str, int]:
        """Return how many files were left out for each reason, the commonest first."""
        return dict(Counter(one.reason for one in self.left_out).most_common())


def read_cohort(
    root: Path,
    *,
    layout: Layout | Literal["auto"] = "auto",
    labels: Path | None = None,
    modalities: Collection[Modality] = MODALITIES,
    table: TableConfig | None = None,
    tissues: Mapping[int, Tissue] | None = None,
    exclude: Collection[str] = (),
) -> tuple[Case, ...]:
    """Read all cases below `root`, sorted by case identifier.

    Args:
        root: folder of the cohort, nested or flat.
        layout: convention of the file names; `auto` infers it, and refuses a folder that mixes two.
        labels: table of the patients' labels, see gmmas_data.labels and gmmas_data.label_tables.
        modalities: sequences to take; files of others are not even named in the cases.
        table: how to read a table that is neither ours nor a public cohort's.
        tissues: what the values of the label maps mean, where the layout's own meaning does not hold.
        exclude: patterns of files to leave out, relative to `root`.

    Raises:
        DataError: no such folder, no case in it, mixed layouts, two files for one sequence of a case, or a faulty labels table.
    """
    survey = survey_folder(root, layout=layout, exclude=exclude)
    for reason, count in survey.reasons().items():
        _LOG.warning("%d NIfTI files were left out: %s", count, reason)
    if survey.layout is Layout.BIDS and tissues is None and any(part.modality is None for part in survey.parts):
        raise DataError(
            "the values of BIDS label maps are not known",
            where=root,
            got="files named _dseg, and no meaning of their values",
            expected="data.segmentation_values in site.yaml, for example {1: necrosis, 2: oedema, 3: enhancing}",
            remedy="name the values; leave out maps that are none of tumours with data.exclude: ['*_dseg.nii.gz']",
            code=ReasonCode.DATA_LABEL,
        )
    by_case: dict[str, list[Part]] = {}
    for part in survey.parts:
        by_case.setdefault(part.case_id, []).append(part)
    patients = {patient_of(case_id) for case_id in by_case}
    markers: Mapping[str, Markers]
    if labels is not None:
        markers, source = read_markers(labels, patients=patients, layout=survey.layout, table=table), "the table of labels"
    else:
        markers, source = _embedded_markers(survey), _METADATA
    return tuple(
        _assemble(
            by_case[case_id],
            layout=survey.layout,
            known=markers.get(patient_of(case_id), Markers()),
            source=source,
            modalities=modalities,
            tissues=tissues,
        )
        for case_id in sorted(by_case)
    )


def read_cases(data: DataConfig) -> tuple[Case, ...]:
    """Return a cohort's cases as `data` of a site.yaml describes them, unchecked.

    Raises:
        DataError: the folder or the table of labels is wrong.
    """
    return read_cohort(
        data.root,
        layout=data.layout,
        labels=data.labels,
        modalities=data.modalities,
        table=data.table,
        tissues=data.segmentation_values,
        exclude=data.exclude,
    )


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
    return tuple(path for path in sorted(_nifti_files(root)) if recognise(path) is None)


def survey_folder(root: Path, *, layout: Layout | Literal["auto"] = "auto", exclude: Collection[str] = ()) -> FolderSurvey:
    """Return which files below `root` are read, and why the others are not.

    Raises:
        DataError: no such folder, no case in it, mixed layouts, or two files for one sequence of a case.
    """
    if not root.is_dir():
        raise DataError(
            "the data folder cannot be read",
            where=root,
            got="no folder of this name" if not root.exists() else "a file",
            expected="a folder",
            remedy="check the path and its rights",
            code=ReasonCode.DATA_UNREADABLE,
        )
    parts: list[Part] = []
    left_out: list[LeftOut] = []
    for path in sorted(_nifti_files(root)):
        if any(fnmatch(path.relative_to(root).as_posix(), pattern) for pattern in exclude):
            left_out.append(LeftOut(path, "excluded by site.yaml (data.exclude)"))
        elif (part := recognise(path)) is None:
            left_out.append(LeftOut(path, why_unknown(path)))
        else:
            parts.append(part)
    chosen = _of_one_layout(parts, layout, root=root)
    kept = [part for part in parts if part.layout is names_of(chosen)]
    left_out += [LeftOut(part.path, f"named as in {part.layout}") for part in parts if part.layout is not names_of(chosen)]
    taken = _best_versions(kept, root=root)
    paths = {part.path for part in taken}
    left_out += [LeftOut(part.path, "a version of a file that is there in a better one") for part in kept if part.path not in paths]
    return FolderSurvey(chosen, tuple(taken), tuple(sorted(left_out, key=lambda one: one.path)))


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


def _of_one_layout(parts: list[Part], layout: Layout | Literal["auto"], *, root: Path) -> Layout:
    """Return the layout asked for, or the only one there.

    `_seg` and `-seg` files alone cannot tell two cohorts from one, so every recognised file counts.
    """
    found = sorted({part.layout for part in parts})
    if layout == "auto" and len(found) > 1:
        examples = ", ".join(next(part.path.name for part in parts if part.layout == one) for one in found)
        raise DataError(
            f"the folder mixes {'two' if len(found) == 2 else len(found)} naming conventions",
            where=root,
            got=f"{' and '.join(found)}, for example {examples}",
            expected="one convention, because label values differ between them",
            remedy="separate the cohorts, or name the layout in the configuration to read one of them",
        )
    if not found or (layout != "auto" and names_of(layout) not in found):
        raise DataError(
            "no case was found" if layout == "auto" else f"no case of layout {layout} was found",
            where=root,
            got=f"files of layout {', '.join(found)}" if found else "no NIfTI file with a known name",
            expected=" or ".join(f"{example} ({name})" for name, example in EXAMPLES.items()),
            remedy="check the folder; DICOM must be converted first: `gmmas data import` does it",
            code=ReasonCode.DATA_EMPTY,
        )
    return found[0] if layout == "auto" else layout


def _best_versions(parts: list[Part], *, root: Path) -> list[Part]:
    """Return one file per case and role; of two of the same rank nothing in a name says which is right, so both are refused."""
    by_role: dict[tuple[str, Modality | None], list[Part]] = {}
    for part in parts:
        by_role.setdefault((part.case_id, part.modality), []).append(part)
    best = [[part for part in versions if part.rank == min(one.rank for one in versions)] for versions in by_role.values()]
    doubled = [versions for versions in best if len(versions) > 1]
    if doubled:
        raise DataError(
            "two files for one sequence of a case",
            where=root,
            got=_some([" and ".join(str(part.path.relative_to(root)) for part in versions) for versions in doubled]),
            expected="one file per case and sequence",
            remedy="remove or rename one of each pair, or name it in data.exclude of site.yaml",
        )
    return [versions[0] for versions in best]


def _embedded_markers(survey: FolderSurvey) -> dict[str, Markers]:
    """Return the markers that lie beside the scans (EGD's metadata.json), where no table is given."""
    found: dict[str, Markers] = {}
    for part in survey.parts if survey.layout is Layout.EGD else ():
        folder = next((parent for parent in part.path.parents if parent.name == part.case_id), None)
        path = None if folder is None else folder / _METADATA
        if part.case_id in found or path is None or not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                "a case's metadata cannot be read",
                where=path,
                got=type(error).__name__,
                expected="a JSON file as published with the cohort",
                remedy="copy the file again, or name a table of labels",
                code=ReasonCode.DATA_TABLE,
            ) from error
        found[part.case_id] = egd_markers(content, where=path)
    return found


def _assemble(
    parts: list[Part],
    *,
    layout: Layout,
    known: Markers,
    source: str,
    modalities: Collection[Modality],
    tissues: Mapping[int, Tissue] | None,
) -> Case:
    """Make the case of its files and its patient's markers; a patient without a row has no known marker."""
    by_role = {part.modality: part for part in parts}
    mask = by_role.get(None)
    sources = {task: source for task in MARKERS if getattr(known, task.value) is not None}
    if mask is not None:
        sources[Task.SEGMENTATION] = mask.source or "the cohort"
    return Case(
        case_id=parts[0].case_id,
        patient_id=patient_of(parts[0].case_id),
        images={m: by_role[m].path for m in MODALITIES if m in by_role and m in modalities},
        segmentation=None if mask is None else mask.path,
        layout=layout,
        idh=known.idh,
        codeletion=known.codeletion,
        grade=known.grade,
        mgmt=known.mgmt,
        side=known.side,
        tissues=None if tissues is None else dict(tissues),
        sources=sources,
    )


def _some(names: list[str], limit: int = 5) -> str:
    """Return the first names, and how many more there are."""
    return "; ".join(names[:limit]) + (f"; and {len(names) - limit} more" if len(names) > limit else "")
