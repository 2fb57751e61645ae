"""What `gmmas data import` is told (which series is which sequence) and what it writes down beside the scans (import.json)."""

from pydantic import model_validator

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
        skull_stripped: always False: that is left to HD-BET or SynthStrip.
    """

    version: int = IMPORT_VERSION
    case_id: str
    study: str
    reference: Modality
    spacing_mm: float
    converter: str
    scans: dict[Modality, ImportedScan]
    skull_stripped: bool = False
