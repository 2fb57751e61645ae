"""The table of molecular markers: one row per patient, CSV.

    patient_id,idh,codeletion
    BraTS-GLI-00005,mutant,codeleted

`idh` is mutant or wildtype, `codeletion` (1p/19q) codeleted or intact; `unknown` or nothing where it was not tested. Other columns are
ignored. Codeletion with wildtype IDH is a discordant result in WHO CNS5 (Louis et al., Neuro-Oncology 2021) and refused.
"""

import csv
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from gmmas_schema.errors import DataError, ReasonCode

_UNKNOWN: Mapping[str, bool | None] = MappingProxyType({"": None, "unknown": None})
_IDH: Mapping[str, bool | None] = MappingProxyType({"mutant": True, "wildtype": False, **_UNKNOWN})
_CODELETION: Mapping[str, bool | None] = MappingProxyType({"codeleted": True, "intact": False, **_UNKNOWN})
_COLUMNS = ("patient_id", "idh", "codeletion")


@dataclass(frozen=True)
class Markers:
    """Molecular markers of one patient; None is unknown."""

    idh: bool | None = None
    codeletion: bool | None = None


def read_labels(path: Path, *, patients: Collection[str]) -> dict[str, Markers]:
    """Read the table of molecular markers.

    Args:
        path: CSV file, UTF-8 with or without byte order mark, separated by commas.
        patients: patients of the cohort; a row about anyone else is refused, because a mistyped identifier loses a label silently.

    Raises:
        DataError: unreadable file, missing column, patient twice or not in the cohort, unknown value, discordant pair; the row is named.
    """
    markers: dict[str, Markers] = {}
    for line, row in _rows(path):
        patient = row["patient_id"]
        if patient in markers:
            raise _fault("a patient has two rows", path, line, got=patient, expected="one row per patient", remedy="remove one of them")
        if patient not in patients:
            raise _fault(
                "a row names a patient who is not in the cohort",
                path,
                line,
                got=patient or "an empty patient_id",
                expected=f"one of the {len(patients)} patients of the cohort",
                remedy="mend the identifier, or remove the row",
            )
        idh, codeletion = _value(row, "idh", _IDH, path, line), _value(row, "codeletion", _CODELETION, path, line)
        if codeletion and idh is False:
            raise _fault(
                "a row is discordant",
                path,
                line,
                got=f"{patient}: 1p/19q codeleted and IDH wildtype",
                expected="codeletion only with mutant or unknown IDH (WHO CNS5)",
                remedy="check the pathology report; leave a doubtful marker unknown",
            )
        markers[patient] = Markers(idh, codeletion)
    return markers


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and the three columns of every row that is not blank."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = [name.strip() for name in reader.fieldnames or ()]
            if missing := [name for name in _COLUMNS if header.count(name) != 1]:
                raise _fault(
                    "the labels table lacks a column, or has it twice",
                    path,
                    1,
                    got=f"columns {', '.join(header) or 'none'}",
                    expected=f"{', '.join(missing)} once each, separated by commas",
                    remedy="mend the header line",
                )
            reader.fieldnames = header
            for row in reader:
                if any(isinstance(value, str) and value.strip() for value in row.values()):
                    yield reader.line_num, {name: (row[name] or "").strip() for name in _COLUMNS}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            "the labels table cannot be read",
            where=path,
            got=f"{type(error).__name__}: {error}",
            expected="a CSV file in UTF-8",
            remedy="check the path and its rights; save it as CSV in UTF-8",
            code=ReasonCode.DATA_TABLE,
        ) from error


def _value(row: Mapping[str, str], column: str, meaning: Mapping[str, bool | None], path: Path, line: int) -> bool | None:
    """Return what one cell says."""
    text = row[column].lower()
    if text not in meaning:
        raise _fault(
            f"column {column} holds an unknown value",
            path,
            line,
            got=repr(row[column]),
            expected=f"{', '.join(value for value in meaning if value)} or nothing",
            remedy="mend the cell; leave it empty where the marker was not tested",
        )
    return meaning[text]


def _fault(what: str, path: Path, line: int, *, got: str, expected: str, remedy: str) -> DataError:
    """Return the error of one row."""
    return DataError(what, where=f"{path} line {line}", got=got, expected=expected, remedy=remedy, code=ReasonCode.DATA_TABLE)
