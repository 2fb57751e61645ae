"""DICOM folders as tables of series, with a guess from the headers which sequence each one is. No pixel is read.

The guess follows the physics of the timing (Bernstein, King, Zhou, "Handbook of MRI Pulse Sequences", 2004), then the description:

    FLAIR   inversion after 1.2 s or more, echo after 70 ms or more: water is nulled, the rest is T2-weighted
    T1      echo before 35 ms and either a short repetition (below 1.2 s) or an early inversion (below 1.2 s)
    T1ce    T1 with a contrast agent in the header or the description
    T2      repetition of 2 s or more, echo after 70 ms or more, no inversion

Where both speak and disagree there is no guess. A contrast agent stays in the header of everything that is scanned after it, and may be
missing where it was given by hand: a guess is shown, and a person confirms it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gmmas_schema.errors import ConfigError, DataError, ReasonCode
from gmmas_schema.vocabulary import Modality

_LATE_INVERSION_MS, _LATE_ECHO_MS, _EARLY_ECHO_MS, _SHORT_MS, _LONG_MS = 1200.0, 70.0, 35.0, 1200.0, 2000.0
_FEWEST_SLICES = 4
_NO_VOLUME = "a localizer, or too few slices"
_FLAIR = re.compile(r"flair|dark.?fluid|tirm", re.IGNORECASE)
_T1 = re.compile(r"t1|mp.?rage|spgr|bravo|fspgr|tfl|vibe|thrive", re.IGNORECASE)
_T2 = re.compile(r"t2(?!\s*\*|star|.?flair)", re.IGNORECASE)
_CONTRAST = re.compile(r"\+\s*c\b|\bc\s*\+|\bgd\b|gad|post|\bkm\b|contrast|\bce\b|[_ ]ce(?:[_ ]|$)", re.IGNORECASE)
_NO_ANATOMY = re.compile(
    r"localizer|scout|survey|\bloc\b|dwi|diff|adc|trace|ep2d|epi|dti|swi|perf|dsc|dce|asl|mip|tof|angio|spectro|t2\s*\*|t2star|field.?map|phase",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Series:
    """One series of a study.

    Attributes:
        number: by which the user names it.
        uid, study_uid, frame_uid, patient: identifiers; they are hashed before anything is written.
        description: as shown to the user, at the site.
        files: one per slice.
        spacing_mm: in plane twice, then of the slices, as far as the headers tell.
        repetition_ms, echo_ms, inversion_ms: timing.
        agent: contrast agent named in the header.
        guess: the sequence, or None.
        reason: why.
    """

    number: int
    uid: str
    study_uid: str
    frame_uid: str
    patient: str
    description: str
    files: tuple[Path, ...]
    spacing_mm: tuple[float, float, float]
    repetition_ms: float | None
    echo_ms: float | None
    inversion_ms: float | None
    agent: str
    manufacturer: str
    field_tesla: float | None
    guess: Modality | None
    reason: str

    @property
    def is_volume(self) -> bool:
        """Whether there is an image worth converting."""
        return not self.reason.startswith(_NO_VOLUME)


def read_series(folder: Path, *, on_progress: Callable[[int, int], None] | None = None) -> tuple[Series, ...]:
    """Return the MR series of the one study below a folder, in the order of their numbers.

    Raises:
        ConfigError: pydicom is not installed.
        DataError: no such folder, no MR series in it, several patients or studies, or headers that name no study.
    """
    pydicom = _pydicom()
    if not folder.is_dir():
        raise _refuse("the DICOM folder cannot be read", folder, got="no folder of this name", expected="a folder of DICOM files")
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    found: dict[str, list[tuple[Path, Any]]] = {}
    for place, path in enumerate(paths, start=1):
        header = _header(pydicom, path)
        if header is not None and str(header.get("Modality", "")) == "MR" and header.get("SeriesInstanceUID"):
            found.setdefault(str(header.SeriesInstanceUID), []).append((path, header))
        if on_progress is not None:
            on_progress(place, len(paths))
    if not found:
        got = f"{len(paths)} files, none of an MR series"
        raise _refuse("no MR series was found", folder, got=got, expected="DICOM files of one study", code=ReasonCode.DATA_EMPTY)
    _refuse_mixed([header for members in found.values() for _, header in members], folder)
    ordered = sorted(
        found.values(), key=lambda members: (_number(members[0][1].get("SeriesNumber")) or 0, str(members[0][1].SeriesInstanceUID))
    )
    told = [_number(members[0][1].get("SeriesNumber")) for members in ordered]
    own = all(number is not None and number >= 1 for number in told) and len(set(told)) == len(told)  # 0 leaves a sequence out
    return tuple(_series(int(told[place] or 0) if own else place + 1, members) for place, members in enumerate(ordered))


def guess_sequence(
    *,
    repetition_ms: float | None,
    echo_ms: float | None,
    inversion_ms: float | None,
    agent: str,
    description: str,
    slices: int,
    image_type: str = "",
) -> tuple[Modality | None, str]:
    """Return the sequence that headers tell of, or None, and why."""
    if slices < _FEWEST_SLICES or "LOCALIZER" in image_type:
        return None, _NO_VOLUME
    if _NO_ANATOMY.search(description):
        return None, "no anatomical scan, by its description"
    timing = _by_timing(repetition_ms, echo_ms, inversion_ms)
    words = _by_words(description)
    if timing and words and timing is not words:
        return None, f"its timing is that of {timing}, its description says {words}"
    found = timing or words
    if found is None:
        return None, "neither timing nor description tell"
    source = " and ".join(name for name, there in (("timing", timing), ("description", words)) if there)
    if found is Modality.T1 and (agent or _CONTRAST.search(description)):
        return Modality.T1CE, f"{source}; {'a contrast agent in the header' if agent else 'contrast in the description'}"
    return found, source


def _by_timing(repetition_ms: float | None, echo_ms: float | None, inversion_ms: float | None) -> Modality | None:
    if echo_ms is None or repetition_ms is None or echo_ms <= 0 or repetition_ms <= 0:
        return None
    inversion = inversion_ms or 0.0
    if echo_ms >= _LATE_ECHO_MS:
        if inversion >= _LATE_INVERSION_MS:
            return Modality.FLAIR
        return Modality.T2 if repetition_ms >= _LONG_MS and not inversion else None
    if echo_ms < _EARLY_ECHO_MS and (repetition_ms < _SHORT_MS or 0 < inversion < _LATE_INVERSION_MS):
        return Modality.T1
    return None


def _by_words(description: str) -> Modality | None:
    if _FLAIR.search(description):
        return None if re.search(r"t1.{0,3}flair", description, re.IGNORECASE) else Modality.FLAIR
    first, second = bool(_T1.search(description)), bool(_T2.search(description))
    return None if first == second else Modality.T1 if first else Modality.T2


def _series(number: int, members: list[tuple[Path, Any]]) -> Series:
    header = members[0][1]
    description = " ".join(str(header.get(name, "")) for name in ("SeriesDescription", "ProtocolName", "SequenceName") if header.get(name))
    timing = {name: _number(header.get(tag)) for name, tag in _TIMING.items()}
    agent = str(header.get("ContrastBolusAgent", "") or "").strip()
    agent = "" if agent.lower() in ("none", "no", "no contrast", "without", "n/a", "0") else agent
    guess, reason = guess_sequence(
        **timing, agent=agent, description=description, slices=_slices(members), image_type=str(header.get("ImageType", ""))
    )
    plane = header.get("PixelSpacing") or (0, 0)
    spacing = (
        _number(plane[0]) or 0.0,
        _number(plane[1]) or 0.0,
        _number(header.get("SpacingBetweenSlices") or header.get("SliceThickness")) or 0.0,
    )
    return Series(
        number=number,
        uid=str(header.SeriesInstanceUID),
        study_uid=str(header.get("StudyInstanceUID", "")),
        frame_uid=str(header.get("FrameOfReferenceUID", "")),
        patient=str(header.get("PatientID", "")),
        description=description,
        files=tuple(path for path, _ in members),
        spacing_mm=spacing,
        agent=agent,
        manufacturer=str(header.get("Manufacturer", "")),
        field_tesla=_number(header.get("MagneticFieldStrength")),
        guess=guess,
        reason=reason,
        **timing,
    )


_TIMING: Mapping[str, str] = {"repetition_ms": "RepetitionTime", "echo_ms": "EchoTime", "inversion_ms": "InversionTime"}


def _slices(members: list[tuple[Path, Any]]) -> int:
    """Return the number of slices: files, or frames of an enhanced one."""
    return sum(int(_number(header.get("NumberOfFrames")) or 1) for _, header in members)


def _header(pydicom: Any, path: Path) -> Any:
    """Return a file's header, or None if it is no DICOM; pydicom raises much on damaged files, and a folder holds other things, too."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
        if start[128:] != b"DICM" and path.suffix.lower() not in (".dcm", ".ima", ""):
            return None
        return pydicom.dcmread(path, stop_before_pixels=True, force=start[128:] != b"DICM")
    except Exception:
        return None


def _number(value: object) -> float | None:
    """Return a header's number; several values give the first."""
    try:
        number = float(value[0] if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue" else value)  # type: ignore[index, arg-type]
    except (TypeError, ValueError, IndexError):
        return None
    return number if abs(number) < 1e9 else None


def _refuse_mixed(headers: list[Any], folder: Path) -> None:
    for what, tag in (("patients", "PatientID"), ("studies", "StudyInstanceUID")):
        values = {str(header.get(tag, "")) for header in headers}
        if len(values) > 1:
            raise _refuse(f"the folder holds several {what}", folder, got=f"{len(values)} {what}", expected="one study of one patient")
        if what == "studies" and not values.pop():  # by it a study is known again: without, two patients' would be one
            raise _refuse("the headers name no study", folder, got="no StudyInstanceUID", expected="one study of one patient")


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise missing_extra("pydicom") from error
    return pydicom


def missing_extra(package: str) -> ConfigError:
    """Return the error of a package of the extra `dicom` that is not installed."""
    return ConfigError(
        "a package for DICOM is not installed",
        got=f"no {package}",
        expected="gmmas-fed with its extra `dicom`",
        remedy="pip install --constraint constraints.txt 'gmmas-fed[dicom]'",
    )


def _refuse(what: str, folder: Path, *, got: str, expected: str, code: ReasonCode = ReasonCode.DATA_UNREADABLE) -> DataError:
    return DataError(
        what, where=folder, got=got, expected=expected, remedy="name the folder of one study, as the PACS exported it", code=code
    )
