"""What an import of a DICOM study is told (which series is which sequence, what takes the skull off), and its record (import.json)."""

import shlex
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from gmmas_schema.base import FrozenModel
from gmmas_schema.vocabulary import Modality

IMPORT_VERSION = 1


class SeriesMap(FrozenModel):
    """Which series holds which sequence, by its number in the table of series; None for a sequence that was not taken."""

    t1: int | None = None
    t1ce: int | None = None
    t2: int | None = None
    flair: int | None = None

    @model_validator(mode="after")
    def _each_series_once(self) -> "SeriesMap":
        named = list(self.named().values())
        if not named:
            raise ValueError("no series is named")
        if len(set(named)) < len(named):
            raise ValueError("a series is named for two sequences")
        return self

    def named(self) -> dict[Modality, int]:
        """Return the series of the sequences there are, in the order of MODALITIES."""
        found = {modality: getattr(self, modality.value) for modality in Modality}
        return {modality: number for modality, number in found.items() if number is not None}


class SkullStripper(FrozenModel):
    """A program that takes the skull off, for instance `hd-bet -i {image} -o {brain} -device cpu`.

    Attributes:
        command: words as in a shell, though none is started; {image} and {brain} stand for the NIfTI files to read and to write.
        timeout_s: it is ended after so long.
    """

    command: str
    timeout_s: float = Field(default=1800.0, gt=0)

    @field_validator("command")
    @classmethod
    def _names_both_files(cls, value: str) -> str:
        words = shlex.split(value)
        for name in ("{image}", "{brain}"):
            if sum(name in word for word in words[1:]) != 1:
                raise ValueError(f"a program, and {name} once among its arguments, are expected")
        return value

    @property
    def program(self) -> str:
        """The first word."""
        return shlex.split(self.command)[0]

    @property
    def name(self) -> str:
        """The program without its folder."""
        return Path(self.program).name

    def words(self, *, image: Path, brain: Path) -> list[str]:
        """Return the words of the call."""
        return [word.replace("{image}", str(image)).replace("{brain}", str(brain)) for word in shlex.split(self.command)]


class ImportedScan(FrozenModel):
    """One imported scan.

    Attributes:
        series: keyed hash of the series' UID.
        guessed: what headers said it is; may differ from what the user said.
        looks_like: what the image said, where it could be told.
        slices: files of the series.
        spacing_mm: of the series as acquired.
        repetition_ms, echo_ms, inversion_ms: as in the headers.
        manufacturer, field_tesla: of the scanner.
        rotation_degrees, translation_mm: of the co-registration; 0 for the reference.
        mutual_information: with the reference after co-registration; None for the reference.
    """

    series: str
    guessed: str
    looks_like: tuple[Modality, ...] = ()
    slices: int
    spacing_mm: tuple[float, float, float]
    repetition_ms: float | None = None
    echo_ms: float | None = None
    inversion_ms: float | None = None
    manufacturer: str = ""
    field_tesla: float | None = None
    rotation_degrees: float = 0.0
    translation_mm: float = 0.0
    mutual_information: float | None = None


class ImportRecord(FrozenModel):
    """import.json of one case: nothing in it names the patient or a date.

    Attributes:
        study: keyed hash of the study's UID, by which a study that is there already is known again.
        reference: sequence whose grid the others were brought to.
        spacing_mm: of that grid, isotropic.
        converter: program and version.
        skull_stripped: whether a program took the skull off.
        skull_stripper: its name.
    """

    version: int = IMPORT_VERSION
    case_id: str
    study: str
    reference: Modality
    spacing_mm: float
    converter: str
    scans: dict[Modality, ImportedScan]
    skull_stripped: bool = False
    skull_stripper: str = ""
