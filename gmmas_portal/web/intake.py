"""An upload on its way to become a case: received, looked at, shown to a person, confirmed or thrown away.

    incoming/<draft>/files/       what was uploaded, archives unpacked
    incoming/<draft>/draft.json   what a look at it found; shown to whoever uploaded it, gone with the draft

The web server only writes files and reads draft.json; the look is the worker's (gmmas_portal.web.tasks).
"""

import re
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final, Literal

from starlette.datastructures import UploadFile

from gmmas_data.conventions import recognise
from gmmas_data.dicom_import import look_at_images, sequences_of
from gmmas_data.dicom_series import Series, read_series
from gmmas_data.volumes import read_image
from gmmas_portal.web.archive import is_archive, safe_name, unpack
from gmmas_portal.web.deidentification import HeaderPreview, preview_dicom, preview_nifti
from gmmas_runtime.files import make_private_folder, write_atomic
from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import ConfigError, DataError, ReasonCode
from gmmas_schema.vocabulary import MODALITIES, Modality

MOST_IMAGES: Final = 40
"""Of more NIfTI files the first are looked at."""
DRAFT_FILE: Final = "draft.json"
_FILES: Final = "files"
_CONFIRMED: Final = "confirmed"
_NIFTI: Final = (".nii", ".nii.gz")

Step = Callable[[str, int, int], None]
"""Told of each step: what, done, total."""


class DraftImage(FrozenModel):
    """One image of an upload.

    Attributes:
        number: by which the form names it.
        label: its description or file name.
        detail: size and timing, in words.
        guess: sequence that name or headers tell of; None where they do not.
        reason: why.
        looks: sequences that the image itself may be; empty where it cannot be told.
        file: of a NIfTI upload, relative to the draft.
        problem: why it cannot be used.
    """

    number: int
    label: str
    detail: str = ""
    guess: Modality | None = None
    reason: str = ""
    looks: tuple[Modality, ...] = ()
    file: str = ""
    problem: str = ""

    @property
    def contradicts(self) -> bool:
        """Whether the image speaks against the guess."""
        return bool(self.looks) and self.guess is not None and self.guess not in self.looks


class Draft(FrozenModel):
    """What a look at an upload found.

    Attributes:
        stripped: whether the skull is off; None where it cannot be told.
        scanned_on: date of the study, where its headers tell it; a proposal for the form.
    """

    kind: Literal["nifti", "dicom"]
    images: tuple[DraftImage, ...]
    preview: HeaderPreview
    stripped: bool | None = None
    scanned_on: str = ""

    def proposal(self) -> dict[Modality, int]:
        """Return the image proposed for each sequence: the only one of that guess that nothing speaks against."""
        found = {m: [one.number for one in self.images if one.guess is m and not one.problem and not one.contradicts] for m in MODALITIES}
        return {modality: numbers[0] for modality, numbers in found.items() if len(numbers) == 1}


def receive(uploads: Sequence[UploadFile], incoming: Path, *, most_bytes: int) -> str:
    """Write uploaded files into a new draft, archives unpacked, and return its name.

    Args:
        uploads: files as they came; their names are not trusted.
        incoming: folder of all drafts.
        most_bytes: largest content over all files and archives.

    Raises:
        DataError: nothing was sent, or an archive is refused; nothing is left behind.
    """
    named = [upload for upload in uploads if upload.filename]
    if not named:
        raise DataError("no file was sent", got="an empty form", expected="NIfTI files, or a ZIP of DICOM files", remedy="choose the files")
    name = secrets.token_hex(12)
    folder = make_private_folder(incoming / name)
    try:
        room = most_bytes
        for place, upload in enumerate(named):
            target = folder / _FILES / f"{place}" / safe_name(upload.filename or "", place=place)
            target.parent.mkdir(parents=True)
            with target.open("xb") as out:
                shutil.copyfileobj(upload.file, out, 1 << 20)
            if is_archive(target):
                unpack(target, target.parent / "unpacked", most_bytes=room)
                target.unlink()
            room -= sum(path.stat().st_size for path in target.parent.rglob("*") if path.is_file())
            if room < 0:
                raise DataError(
                    "the upload is too large",
                    got=f"more than {most_bytes >> 20} MiB",
                    expected="the files of one study",
                    remedy="leave out what is not needed, or ask the administrator for a higher limit",
                )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return name


def look_at(folder: Path, *, imports: Path, on_step: Step) -> Draft:
    """Look at a draft's files and keep what was found; a study of DICOM files is converted on the way.

    Args:
        folder: of the draft.
        imports: where conversions are kept for the import.
        on_step: told of each step.

    Raises:
        ConfigError: a package for DICOM is not installed.
        DataError: there is no image in it.
    """
    paths = sorted(path for path in (folder / _FILES).rglob("*") if path.is_file())
    images = [path for path in paths if path.name.lower().endswith(_NIFTI)][:MOST_IMAGES]
    draft = _look_at_nifti(images, folder, on_step) if images else _look_at_dicom(folder / _FILES, imports, on_step)
    write_atomic(folder / DRAFT_FILE, draft.model_dump_json().encode())
    return draft


def read_draft(incoming: Path, name: str) -> Draft | None:
    """Return what a look at a draft found; None where nobody has looked yet.

    Raises:
        ConfigError: there is no such draft.
    """
    folder = draft_folder(incoming, name)
    path = folder / DRAFT_FILE
    return Draft.model_validate_json(path.read_bytes()) if path.is_file() else None


def draft_folder(incoming: Path, name: str) -> Path:
    """Return the folder of a draft.

    Raises:
        ConfigError: there is no such draft.
    """
    folder = incoming / name
    if not re.fullmatch(r"[0-9a-f]{24}", name) or not folder.is_dir():
        raise ConfigError("there is no such upload", expected="one that waits to be confirmed", remedy="upload the files again")
    return folder


def study_files(folder: Path) -> Path:
    """Return where the uploaded files of a draft lie."""
    return folder / _FILES


def confirm_once(incoming: Path, name: str) -> bool:
    """Note that a draft was confirmed, and return whether it was not before: whoever presses twice makes one case.

    Raises:
        ConfigError: there is no such draft.
    """
    try:
        (draft_folder(incoming, name) / _CONFIRMED).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def discard(incoming: Path, name: str) -> None:
    """Delete a draft with all that was uploaded."""
    shutil.rmtree(draft_folder(incoming, name))


def discard_old(incoming: Path, *, hours: float, confirmed: Collection[str] = (), now: Callable[[], float] = time.time) -> int:
    """Delete drafts that nobody has confirmed, and return how many.

    Args:
        incoming: folder of all drafts.
        hours: from the upload.
        confirmed: drafts that wait for their analysis; they are kept, for the platform may have stood still for days.
        now: seconds since 1970.
    """
    folders = [path for path in incoming.iterdir() if path.is_dir() and path.name not in confirmed]
    old = [path for path in folders if path.stat().st_mtime < now() - hours * 3600]
    for path in old:
        shutil.rmtree(path, ignore_errors=True)
    return len(old)


def _look_at_nifti(paths: Sequence[Path], folder: Path, on_step: Step) -> Draft:
    found = []
    for place, path in enumerate(paths):
        on_step("looking at the images", place, len(paths))
        found.append(_nifti_image(path, place + 1, str(path.relative_to(folder))))
    told = [bool(one.looks) for one in found if one.guess is not None and not one.problem]
    # sequences_of judges stripped scans alone, so a single verdict tells that the skull is off.
    return Draft(kind="nifti", images=tuple(found), preview=preview_nifti(paths), stripped=any(told) or None)


def _nifti_image(path: Path, number: int, file: str) -> DraftImage:
    label = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    part = recognise(path)
    guess, reason = (part.modality, "its name") if part is not None else guess_by_words(label)
    if part is not None and part.modality is None:
        return DraftImage(number=number, label=label, reason="its name says that it is an outline", problem="an outline is not read")
    try:
        volume = read_image(path)
        size = " × ".join(map(str, volume.values_XYZ.shape))
        spacing = " × ".join(f"{mm:.2g}" for mm in volume.spacing_mm)
        detail, looks = f"{size} voxels, {spacing} mm", sequences_of(path)
    except DataError as error:
        return DraftImage(number=number, label=label, guess=guess, reason=reason, problem=error.brief())
    return DraftImage(number=number, label=label, detail=detail, guess=guess, reason=reason, looks=looks, file=file)


def guess_by_words(label: str) -> tuple[Modality | None, str]:
    """Return the sequence that the words of a file name tell of, or None, and why."""
    text = label.lower()
    words = {
        Modality.FLAIR: r"flair|t2f",
        Modality.T1CE: r"t1[ _-]?(ce|c|gd|gad|post|km|\+c)|mprage[ _-]?(post|gd|ce)",
        Modality.T2: r"t2",
        Modality.T1: r"t1|mprage|spgr",
    }
    found = next((modality for modality, pattern in words.items() if re.search(pattern, text)), None)
    return found, "words of its name" if found else "nothing in its name tells"


def _look_at_dicom(folder: Path, imports: Path, on_step: Step) -> Draft:
    series = read_series(folder, on_progress=lambda done, total: on_step("reading headers", done, total) if done % 50 == 0 else None)
    looks = look_at_images(series, imports, on_progress=on_step)
    preview = preview_dicom(series[0].files[0])
    day = next((field.value for field in preview.dropped if field.name == "StudyDate"), "")
    scanned_on = f"{day[:4]}-{day[4:6]}-{day[6:8]}" if re.fullmatch(r"\d{8}", day) else ""
    images = tuple(_dicom_image(one, looks.get(one.number, ())) for one in series)
    if not any(not image.problem for image in images):
        raise DataError(
            "no series of the study is a volume",
            got=f"{len(images)} series of too few slices",
            expected="at least one anatomical sequence",
            remedy="export the study again with all of its series",
            code=ReasonCode.DATA_EMPTY,
        )
    return Draft(kind="dicom", images=images, preview=preview, stripped=True if any(looks.values()) else None, scanned_on=scanned_on)


def _dicom_image(one: Series, looks: tuple[Modality, ...]) -> DraftImage:
    timing = [f"{name} {ms:.0f} ms" for name, ms in (("TR", one.repetition_ms), ("TE", one.echo_ms), ("TI", one.inversion_ms)) if ms]
    detail = ", ".join([f"{len(one.files)} files", " × ".join(f"{mm:.2g}" for mm in one.spacing_mm) + " mm", *timing])
    problem = "" if one.is_volume else one.reason
    return DraftImage(
        number=one.number, label=one.description, detail=detail, guess=one.guess, reason=one.reason, looks=looks, problem=problem
    )
