"""The table of labels: one row per patient, CSV.

    patient_id,idh,codeletion,grade,mgmt,subtype
    BraTS-GLI-00005,mutant,codeleted,2,methylated,oligodendroglioma

`idh` is mutant or wildtype, `codeletion` (1p/19q) codeleted or intact; these columns must be there. The others may be missing: `grade` is
2, 3 or 4, or lgg or hgg (HGG is grade 3 or 4); `mgmt` is methylated or unmethylated; `subtype` is glioblastoma, astrocytoma or
oligodendroglioma of WHO CNS5 and says what `idh` and `codeletion` leave open; `side` is left, right, bilateral or midline and trains
nothing: `gmmas site check` holds it against the segmentation. `unknown` or nothing is what was not determined. Other columns are ignored.
The tables of public cohorts are read by gmmas_data.label_tables.

Rows that WHO CNS5 rules out (Louis et al., Neuro-Oncology 2021) are refused: codeletion with wildtype IDH, a subtype that contradicts a
marker, a glioblastoma below grade 4. A low grade with wildtype IDH and no subtype stays as it is, for older reports have it: it is
counted in an evaluation and trains nothing.
"""

import csv
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from gmmas_schema.errors import DataError, ReasonCode
from gmmas_schema.vocabulary import Side, Subtype

ValueT = TypeVar("ValueT")

REQUIRED_COLUMNS = ("patient_id", "idh", "codeletion")
OPTIONAL_COLUMNS = ("grade", "mgmt", "subtype", "side")

_UNKNOWN = ("", "unknown")
_MEANING: Mapping[str, Mapping[str, bool]] = MappingProxyType(
    {
        "idh": {"mutant": True, "wildtype": False},
        "codeletion": {"codeleted": True, "intact": False},
        "grade": {"2": False, "3": True, "4": True, "lgg": False, "hgg": True},
        "mgmt": {"methylated": True, "unmethylated": False},
    }
)
_BELOW_GLIOBLASTOMA = ("2", "3", "lgg")


@dataclass(frozen=True)
class Markers:
    """What is known of one patient's tumour; None is unknown. Values as in gmmas_data.cases.Case."""

    idh: bool | None = None
    codeletion: bool | None = None
    grade: bool | None = None
    mgmt: bool | None = None
    side: Side | None = None


_OF_SUBTYPE: Mapping[Subtype, Markers] = MappingProxyType(
    {
        Subtype.GLIOBLASTOMA: Markers(idh=False, codeletion=False),
        Subtype.ASTROCYTOMA: Markers(idh=True, codeletion=False),
        Subtype.OLIGODENDROGLIOMA: Markers(idh=True, codeletion=True),
    }
)


@dataclass(frozen=True)
class LabelRow:
    """One row in the words of our own table, and where it is."""

    cells: Mapping[str, str]
    path: Path
    line: int

    @property
    def patient(self) -> str:
        """The patient's identifier."""
        return self.cells["patient_id"]

    def text(self, column: str) -> str:
        """Return a cell in lower case; nothing where the table has no such column or the value is unknown."""
        text = self.cells.get(column, "").lower()
        return "" if text in _UNKNOWN else text

    def fault(self, what: str, *, got: str, expected: str, remedy: str) -> DataError:
        """Return an error that names the row."""
        return _fault(what, self.path, self.line, got=got, expected=expected, remedy=remedy)


def read_labels(path: Path, *, patients: Collection[str]) -> dict[str, Markers]:
    """Read the table of labels.

    Args:
        path: CSV file, UTF-8 with or without byte order mark, separated by commas.
        patients: patients of the cohort; a row about anyone else is refused, because a mistyped identifier loses a label silently.

    Raises:
        DataError: unreadable file, missing column, patient twice or not in the cohort, unknown value, contradictory row; the row is named.
    """
    markers: dict[str, Markers] = {}
    for row in _rows(path):
        if row.patient in markers:
            raise row.fault("a patient has two rows", got=row.patient, expected="one row per patient", remedy="remove one of them")
        if row.patient not in patients:
            raise row.fault(
                "a row names a patient who is not in the cohort",
                got=row.patient or "an empty patient_id",
                expected=f"one of the {len(patients)} patients of the cohort",
                remedy="mend the identifier, or remove the row",
            )
        markers[row.patient] = markers_of(row)
    return markers


def _rows(path: Path) -> Iterator[LabelRow]:
    """Yield every row that is not blank, with the columns that are read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = [name.strip() for name in reader.fieldnames or ()]
            missing = [name for name in REQUIRED_COLUMNS if header.count(name) != 1]
            if missing := missing + [name for name in OPTIONAL_COLUMNS if header.count(name) > 1]:
                raise _fault(
                    "the labels table lacks a column, or has it twice",
                    path,
                    1,
                    got=f"columns {', '.join(header) or 'none'}",
                    expected=f"{', '.join(missing)} once each, separated by commas",
                    remedy="mend the header line",
                )
            reader.fieldnames = header
            columns = [name for name in (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS) if name in header]
            for row in reader:
                if any(isinstance(value, str) and value.strip() for value in row.values()):
                    yield LabelRow({name: (row[name] or "").strip() for name in columns}, path, reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            "the labels table cannot be read",
            where=path,
            got=f"{type(error).__name__}: {error}",
            expected="a CSV file in UTF-8",
            remedy="check the path and its rights; save it as CSV in UTF-8",
            code=ReasonCode.DATA_TABLE,
        ) from error


def markers_of(row: LabelRow) -> Markers:
    """Return what a row says, with what the subtype adds.

    Raises:
        DataError: an unknown value, or a row that WHO CNS5 rules out.
    """
    side = _value(row, "side", {str(side): side for side in Side})
    idh, codeletion, grade, mgmt = (_value(row, column, meaning) for column, meaning in _MEANING.items())
    stated = Markers(idh, codeletion, grade, mgmt, side)
    named = _value(row, "subtype", {str(subtype): subtype for subtype in Subtype})
    if stated.codeletion and stated.idh is False:
        raise _contradiction(row, "1p/19q codeleted and IDH wildtype", expected="codeletion only with mutant or unknown IDH (WHO CNS5)")
    if named is None:
        return stated
    implied = _OF_SUBTYPE[named]
    for column, own, told in (("idh", stated.idh, implied.idh), ("codeletion", stated.codeletion, implied.codeletion)):
        if own is not None and own is not told:
            expected = next(text for text, value in _MEANING[column].items() if value is told)
            raise _contradiction(row, f"{named} and {column} {row.text(column)}", expected=f"{column} {expected} (WHO CNS5), or nothing")
    if named is Subtype.GLIOBLASTOMA and row.text("grade") in _BELOW_GLIOBLASTOMA:
        raise _contradiction(row, f"{named} and grade {row.text('grade')}", expected="grade 4 or hgg (WHO CNS5), or nothing")
    return replace(stated, idh=implied.idh, codeletion=implied.codeletion)


def _value(row: LabelRow, column: str, meaning: Mapping[str, ValueT]) -> ValueT | None:
    """Return what one cell says."""
    text = row.text(column)
    if text and text not in meaning:
        raise row.fault(
            f"column {column} holds an unknown value",
            got=repr(row.cells[column]),
            expected=f"{', '.join(meaning)}, unknown or nothing",
            remedy="mend the cell; leave it empty where it was not determined",
        )
    return meaning[text] if text else None


def _contradiction(row: LabelRow, got: str, *, expected: str) -> DataError:
    remedy = "check the pathology report; leave what is doubtful empty"
    return row.fault("a row is discordant", got=f"{row.patient}: {got}", expected=expected, remedy=remedy)


def _fault(what: str, path: Path, line: int, *, got: str, expected: str, remedy: str) -> DataError:
    """Return the error of one row."""
    return DataError(what, where=f"{path} line {line}", got=got, expected=expected, remedy=remedy, code=ReasonCode.DATA_TABLE)
