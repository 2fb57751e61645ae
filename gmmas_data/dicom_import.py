"""From a DICOM study to a case folder: conversion (dcm2niix), co-registration (gmmas_data.registration), names, and a record of it all.

1. dcm2niix converts each named series by itself, in a folder that holds nothing else, to one NIfTI volume.
2. The T1ce, or else the series of the smallest voxels, gives the grid: its own axes at equal spacing (1 mm).
3. The others are co-registered to it.
4. Where a program for it is named, the skull is taken off all of them (gmmas_data.skull_stripping); else it stays on.
5. The case folder appears whole, named as in BraTS 2023, or not at all. Conversions are kept until then, so a broken import goes on.

Identifiers: case and study are HMAC-SHA256 under a key that is made with the first import and stays beside the cases
(gmmas_data.import_folder), so the same patient gets the same name again, and nobody without the key can try patient numbers.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gmmas_data.canonical import place_box
from gmmas_data.case_audit import BRAIN_ML
from gmmas_data.conventions import recognise
from gmmas_data.dicom_series import Series, missing_extra
from gmmas_data.import_folder import Progress, held_for_import, keyed
from gmmas_data.normalisation import foreground
from gmmas_data.registration import Placed, cut, isotropic, place_on, read_volume, save_volume
from gmmas_data.sequence_identity import looks_like, measure_contrast
from gmmas_data.skull_stripping import find_brain
from gmmas_data.volumes import read_image
from gmmas_runtime.files import clear_unfinished, whole_folder
from gmmas_schema.dicom import ImportedScan, ImportRecord, SeriesMap, SkullStripper
from gmmas_schema.errors import ConfigError, DataError, ReasonCode
from gmmas_schema.vocabulary import MODALITIES, Modality

RECORD_NAME = "import.json"
SUFFIX: Mapping[Modality, str] = {Modality.T1: "t1n", Modality.T1CE: "t1c", Modality.T2: "t2w", Modality.FLAIR: "t2f"}
_WORK = ".import-"
_CONVERSION_TIMEOUT_S = 1800


def look_at_images(series: Sequence[Series], target: Path, *, on_progress: Progress | None = None) -> dict[int, tuple[Modality, ...]]:
    """Return by number what each series may be by its image; empty where it cannot be told or the series is no volume.

    The conversions are kept for the import.

    Raises:
        ConfigError: a package of the extra `dicom` is missing.
    """
    found: dict[int, tuple[Modality, ...]] = {}
    with held_for_import(target, on_progress=on_progress) as key:
        for place, one in enumerate(series):
            if on_progress is not None:
                on_progress(f"looking at series {one.number}", place, len(series))
            try:
                found[one.number] = sequences_of(convert_series(one, _work_of(target, key, one))) if one.is_volume else ()
            except DataError:
                found[one.number] = ()
    return found


def sequences_of(path: Path) -> tuple[Modality, ...]:
    """Return what a converted series may be by its image.

    The rules hold inside a brain. Laying an average brain into a head with its skull was tried and gave wrong answers (a FLAIR as T1, a
    fruit as T1), so only a stripped scan is judged: one value outside, and the volume of a brain.
    """
    volume = read_image(path)
    mask = foreground(volume.values_XYZ)
    ml = float(mask.sum()) * float(np.prod(volume.spacing_mm)) / 1000
    corners = volume.values_XYZ[np.ix_((0, -1), (0, -1), (0, -1))]
    if not BRAIN_ML[0] <= ml <= BRAIN_ML[1] or mask.mean() > 0.8 or (corners != corners.flat[0]).any():
        return ()
    found = measure_contrast(volume.values_XYZ, place_box(mask, volume.affine))
    return () if found is None else looks_like(found[0])


def _work_of(target: Path, key: bytes, series: Series) -> Path:
    return target / f"{_WORK}{keyed(key, 'study', series.study_uid)[:16]}" / keyed(key, "series", series.uid)[:16]


def import_study(
    series: Sequence[Series],
    chosen: SeriesMap,
    target: Path,
    *,
    looks: Mapping[int, tuple[Modality, ...]] | None = None,
    spacing_mm: float = 1.0,
    stripper: SkullStripper | None = None,
    on_progress: Progress | None = None,
) -> tuple[Path, ImportRecord]:
    """Write a study as a case folder and return it with its record; a study that is there already is returned as it is.

    One import into a folder goes on at a time; others wait.

    Args:
        series: of the study.
        chosen: which series is which sequence, as a person confirmed it.
        target: folder of the cohort.
        looks: what look_at_images said, for the record.
        spacing_mm: of the common grid.
        stripper: takes the skull off.
        on_progress: told of every step.

    Raises:
        ConfigError: a series of that number is not there, or a package of the extra `dicom` or the stripper is missing.
        DataError: a series cannot be converted, or does not fit the others; the skull does not come off; or the study is there already
            with its skull, or with another series for a sequence. Conversions are kept.
    """
    taken = _taken(series, chosen)
    with held_for_import(target, on_progress=on_progress) as key:
        return _import(taken, target, key, looks=looks or {}, spacing_mm=spacing_mm, stripper=stripper, on_progress=on_progress)


def _import(
    taken: Mapping[Modality, Series],
    target: Path,
    key: bytes,
    *,
    looks: Mapping[int, tuple[Modality, ...]],
    spacing_mm: float,
    stripper: SkullStripper | None,
    on_progress: Progress | None,
) -> tuple[Path, ImportRecord]:
    first = next(iter(taken.values()))
    study = keyed(key, "study", first.study_uid)
    clear_unfinished(target)
    if (known := _imported_before(target, study)) is not None:
        _refuse_other(known, {m: keyed(key, "series", one.uid) for m, one in taken.items()}, stripper)
        shutil.rmtree(_work_of(target, key, first).parent, ignore_errors=True)
        return known
    case_id = _free_name(target, f"GMMAS-{keyed(key, 'patient', first.patient or first.study_uid)[:12]}")
    steps = 2 * len(taken) + 1 + (stripper is not None)
    done = 0

    def report(what: str) -> None:
        nonlocal done
        if on_progress is not None:
            on_progress(what, done, steps)
        done += 1

    volumes = {}
    for modality, one in taken.items():
        report(f"converting {modality}")
        volumes[modality] = read_volume(convert_series(one, _work_of(target, key, one)))
    reference = Modality.T1CE if Modality.T1CE in volumes else min(volumes, key=lambda m: float(np.prod(volumes[m].GetSpacing())))
    grid = isotropic(volumes[reference], spacing_mm=spacing_mm)
    placed = {reference: Placed(grid)}
    for modality, volume in volumes.items():
        report(f"co-registering {modality}")
        if modality is not reference:
            same = taken[modality].frame_uid == taken[reference].frame_uid != ""
            placed[modality] = place_on(grid, volume, same_frame=same, name=f"series {taken[modality].number}")
    record = ImportRecord(
        case_id=case_id,
        study=study,
        reference=reference,
        spacing_mm=spacing_mm,
        converter=f"dcm2niix {converter_version()}",
        scans={m: _describe(taken[m], placed[m], volumes[m], key, looks.get(taken[m].number, ())) for m in MODALITIES if m in taken},
        skull_stripped=stripper is not None,
        skull_stripper="" if stripper is None else stripper.name,
    )
    with whole_folder(target / case_id) as folder:
        _write_images(folder, record, {m: scan.image for m, scan in placed.items()}, stripper, report)
        (folder / RECORD_NAME).write_text(record.model_dump_json(indent=1) + "\n")
    shutil.rmtree(_work_of(target, key, first).parent)
    return target / case_id, record


def _taken(series: Sequence[Series], chosen: SeriesMap) -> dict[Modality, Series]:
    by_number = {one.number: one for one in series}
    if missing := [number for number in chosen.named().values() if number not in by_number]:
        raise ConfigError(
            "a series that is named is not there",
            where="--map",
            got=f"series {', '.join(map(str, missing))}",
            expected=f"one of {', '.join(map(str, by_number))}",
            remedy="take the numbers from the table of series",
        )
    return {modality: by_number[number] for modality, number in chosen.named().items()}


def _imported_before(target: Path, study: str) -> tuple[Path, ImportRecord] | None:
    for path in sorted(target.glob(f"*/{RECORD_NAME}")):
        record = _read_record(path)
        if record.study == study:
            return path.parent, record
    return None


def _write_images(
    folder: Path, record: ImportRecord, images: Mapping[Modality, Any], stripper: SkullStripper | None, report: Callable[[str], None]
) -> None:
    paths = {modality: folder / f"{record.case_id}-{SUFFIX[modality]}.nii.gz" for modality in images}
    brain = None
    if stripper is not None:
        report(f"taking the skull off with {stripper.name}")
        save_volume(images[record.reference], paths[record.reference])
        brain = find_brain(stripper, paths[record.reference])
    report("writing")
    for modality, image in images.items():
        save_volume(image if brain is None else cut(image, brain), paths[modality])


def convert_series(series: Series, folder: Path) -> Path:
    """Convert one series with dcm2niix and return its volume; one that is there already is kept.

    Raises:
        ConfigError: dcm2niix is not installed.
        DataError: it does not give exactly one volume.
    """
    volume = folder / "volume.nii.gz"
    if volume.exists():
        return volume
    shutil.rmtree(folder, ignore_errors=True)
    source, made = folder / "source", folder / "made"
    source.mkdir(parents=True)
    made.mkdir()
    for place, path in enumerate(series.files):
        (source / f"{place:06d}.dcm").symlink_to(path.resolve())
    command = [_converter().bin, "-z", "i", "-b", "n", "-m", "y", "-f", "scan_%s_%e", "-o", str(made), str(source)]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_CONVERSION_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unconverted(series, type(error).__name__) from error
    volumes = sorted(path for path in made.glob("*.nii.gz") if "_ROI" not in path.name)
    if len(volumes) != 1:
        said = [line for line in answer.stdout.splitlines() if re.match(r"\s*(Error|Warning)", line)]
        raise _unconverted(series, f"{len(volumes)} volumes{': ' + ' '.join(said[:2])[:300] if said else ''}")
    volumes[0].rename(volume)
    shutil.rmtree(source)
    return volume


def converter_version() -> str:
    """Return the version of the dcm2niix package."""
    return str(_converter().__version__)


def _describe(series: Series, placed: Placed, volume: Any, key: bytes, looks: tuple[Modality, ...]) -> ImportedScan:
    x, y, z = (round(float(mm), 3) for mm in volume.GetSpacing())
    return ImportedScan(
        series=keyed(key, "series", series.uid),
        guessed=str(series.guess or "nothing"),
        looks_like=looks,
        slices=len(series.files),
        spacing_mm=(x, y, z),
        repetition_ms=series.repetition_ms,
        echo_ms=series.echo_ms,
        inversion_ms=series.inversion_ms,
        manufacturer=series.manufacturer,
        field_tesla=series.field_tesla,
        rotation_degrees=placed.rotation_degrees,
        translation_mm=placed.translation_mm,
        mutual_information=placed.mutual_information,
    )


def _read_record(path: Path) -> ImportRecord:
    try:
        return ImportRecord.parse(json.loads(path.read_bytes()), where=path)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            "a record of an import cannot be read",
            where=path,
            got=type(error).__name__,
            expected="the file that the import wrote",
            remedy="restore it, or remove the whole case folder and import it again",
        ) from error


def _free_name(target: Path, patient: str) -> str:
    """Return the patient's next time point."""
    number = next(number for number in range(1000) if not (target / f"{patient}-{number:03d}").exists())
    name = f"{patient}-{number:03d}"
    assert recognise(Path(f"{name}-t1n.nii.gz")) is not None
    return name


def _converter() -> Any:
    try:
        import dcm2niix
    except ImportError as error:
        raise missing_extra("dcm2niix") from error
    return dcm2niix


def _refuse_other(known: tuple[Path, ImportRecord], series: Mapping[Modality, str], stripper: SkullStripper | None) -> None:
    """Refuse to give back a case that is another than was asked for."""
    folder, record = known
    others = [m for m, uid in series.items() if m not in record.scans or record.scans[m].series != uid]
    if stripper is not None and not record.skull_stripped:
        raise _imported_otherwise(folder, "with its skull", got="a case with its skull, and a program to take it off")
    if others:
        raise _imported_otherwise(folder, "from other series", got=f"another series, or none, as {', '.join(others)}")


def _imported_otherwise(folder: Path, how: str, *, got: str) -> DataError:
    return DataError(
        f"this study was imported before, {how}",
        where=folder,
        got=got,
        expected="a study that is not there yet",
        remedy="delete the case, then import the study again",
    )


def _unconverted(series: Series, got: str) -> DataError:
    return DataError(
        "a series cannot be converted to one volume",
        where=f"series {series.number} ({len(series.files)} files)",
        got=got,
        expected="one three-dimensional scan",
        remedy="leave this series out, or export it again: slices may be missing, or it holds several echoes or phases",
        code=ReasonCode.DATA_UNREADABLE,
    )
