"""Tables of labels as public cohorts publish them, and as site.yaml describes a hospital's own (`data.table`), in the words of our table.

    UCSF-PDGM  UCSF-PDGM-metadata.csv: ID, IDH, 1p/19q, WHO CNS Grade, MGMT status, Final pathologic diagnosis (WHO 2021)
    EGD        Genetic_and_Histological_labels.xlsx: Subject, IDH, 1p19q, Grade; -1 is unknown
    UPENN-GBM  UPENN-GBM_clinical_info.csv: ID, IDH1, MGMT; a row per scan
    TCGA       paper_IDH.status, paper_X1p.19q.codeletion, paper_Grade, paper_MGMT.promoter.status; NA is unknown
    BraTS      name_mapping.csv (Grade), train_labels.csv (BraTS21ID, MGMT_value), survival_info.csv (nothing that is learned here)
    BIDS       participants.tsv with our headings beside participant_id

Such a table tells of more patients than a site holds, so rows of others are passed over; a table that knows none of the cohort's patients
is refused. Several rows of one patient must agree. Where a diagnosis contradicts a molecular test the test counts; a row whose tests WHO
CNS5 rules out together leaves IDH and 1p/19q unknown. BraTS calls TCGA-LGG low-grade, which holds WHO grades 2 and 3: its LGG is unknown.
"""

import csv
import logging
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any
from xml.etree.ElementTree import ParseError

from gmmas_data.cases import patient_of
from gmmas_data.labels import OPTIONAL_COLUMNS, REQUIRED_COLUMNS, LabelRow, Markers, markers_of, read_labels
from gmmas_schema.errors import DataError, ReasonCode
from gmmas_schema.site import TableConfig
from gmmas_schema.vocabulary import Layout

_LOG = logging.getLogger(__name__)

_MAXIMUM_BYTES = 64 * 2**20
_COLUMNS = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)

Words = tuple[tuple[str, str], ...]
"""Patterns of a whole cell in lower case, each with our word; the first that fits counts."""

_UNKNOWN: Words = ((r"|na|n/a|nan|none|null|unknown|not available|indeterminate|nos/nec|-1", "unknown"),)
_GRADES: Words = ((r"(?:who )?(?:grade )?g?([234]|ii|iii|iv)", "grade"),)
_ROMAN = {"ii": "2", "iii": "3", "iv": "4"}


@dataclass(frozen=True)
class _PublicTable:
    """How one published table is read.

    Attributes:
        name: for messages.
        needs: headings that tell the table; a tuple of names is one of them.
        patient: heading of the identifier.
        columns: our column -> heading.
        words: our column -> what its cells mean.
        patient_of: from a cell to the patient's identifier in file names.
    """

    name: str
    needs: tuple[str, ...]
    patient: str
    columns: Mapping[str, str]
    words: Mapping[str, Words]
    patient_of: Callable[[str], str]


def _ucsf_patient(text: str) -> str:
    match = re.match(r"^UCSF-PDGM-0*(\d+)", text)
    return f"UCSF-PDGM-{int(match[1]):04d}" if match else text


def _brats21_patient(text: str) -> str:
    return f"BraTS2021_{int(text):05d}" if text.isdigit() else text


_PUBLIC = (
    _PublicTable(
        "UCSF-PDGM metadata",
        ("ID", "IDH", "1p/19q"),
        "ID",
        {
            "idh": "IDH",
            "codeletion": "1p/19q",
            "grade": "WHO CNS Grade",
            "mgmt": "MGMT status",
            "subtype": "Final pathologic diagnosis (WHO 2021)",
        },
        {
            "idh": ((r"wild-?type", "wildtype"), (r"mutated.*|mutant.*|idh[12].*", "mutant")),
            "codeletion": ((r"(?:relative )?co-?delet(?:ion|ed)", "codeleted"), (r"intact|non-?codeleted", "intact")),
            "grade": _GRADES,
            "mgmt": ((r"positive|methylated", "methylated"), (r"negative|unmethylated", "unmethylated")),
            "subtype": (
                (r"glioblastoma, *idh-?wild-?type.*", "glioblastoma"),
                (r"astrocytoma, *idh-?mutant.*", "astrocytoma"),
                (r"oligodendroglioma.*", "oligodendroglioma"),
                (r".*", "unknown"),
            ),
        },
        _ucsf_patient,
    ),
    _PublicTable(
        "EGD labels",
        ("Subject", "IDH", "1p19q"),
        "Subject",
        {"idh": "IDH", "codeletion": "1p19q", "grade": "Grade"},
        {"idh": (("1", "mutant"), ("0", "wildtype")), "codeletion": (("1", "codeleted"), ("0", "intact")), "grade": _GRADES},
        str,
    ),
    _PublicTable(
        "UPENN-GBM clinical table",
        ("ID", "IDH1", "MGMT"),
        "ID",
        {"idh": "IDH1", "mgmt": "MGMT"},
        {
            "idh": ((r"wild-?type", "wildtype"), (r"mutated|mutant", "mutant")),
            "mgmt": (("methylated", "methylated"), ("unmethylated", "unmethylated")),
        },
        patient_of,
    ),
    *(
        _PublicTable(
            "TCGA table",
            (heading, "paper_IDH.status"),
            heading,
            {
                "idh": "paper_IDH.status",
                "codeletion": "paper_X1p.19q.codeletion",
                "grade": "paper_Grade",
                "mgmt": "paper_MGMT.promoter.status",
            },
            {
                "idh": ((r"wt|wild-?type", "wildtype"), (r"mutant|idh[12].*", "mutant")),
                "codeletion": ((r"codel", "codeleted"), (r"non-codel", "intact")),
                "grade": _GRADES,
                "mgmt": (("methylated", "methylated"), ("unmethylated", "unmethylated")),
            },
            lambda text: text[:12],
        )
        for heading in ("patient", "bcr_patient_barcode", "submitter_id", "case_submitter_id", "barcode", "Case")
    ),
    _PublicTable(
        "BraTS 2021 MGMT labels",
        ("BraTS21ID", "MGMT_value"),
        "BraTS21ID",
        {"mgmt": "MGMT_value"},
        {"mgmt": (("1", "methylated"), ("0", "unmethylated"))},
        _brats21_patient,
    ),
    *(
        _PublicTable(
            "BraTS name mapping", ("Grade", heading), heading, {"grade": "Grade"}, {"grade": (("hgg", "hgg"), ("lgg", "unknown"))}, str
        )
        for heading in ("BraTS_2020_subject_ID", "BraTS_2019_subject_ID", "BraTS_2018_subject_ID", "BraTS_2017_subject_ID")
    ),
    *(
        _PublicTable("BraTS survival table", (heading, survival), heading, {}, {}, str)
        for heading in ("Brats20ID", "BraTS20ID", "BraTS19ID", "BraTS18ID", "Brats17ID")
        for survival in ("Survival_days", "Survival")
    ),
)


def read_markers(path: Path, *, patients: Collection[str], layout: Layout, table: TableConfig | None = None) -> dict[str, Markers]:
    """Read the labels of a cohort's patients.

    Args:
        path: CSV, TSV or Excel file (.xlsx, first sheet).
        patients: patients of the cohort.
        layout: of the cohort; a BIDS table names patients under participant_id.
        table: how to read a table of one's own; None recognises ours and the published ones by their headings.

    Raises:
        DataError: unreadable file, headings of no known table, an unknown value, rows of a patient that differ, nobody of the cohort.
    """
    headings = next(_records(path))[1].keys()
    if table is not None:
        ours = _PublicTable("the table of data.table", tuple(table.columns.values()), table.columns["patient_id"], _others(table), {}, str)
        if missing := [heading for heading in ours.needs if heading not in headings]:
            raise _wrong_headings(path, headings, expected=f"{', '.join(missing)}, as data.table in site.yaml names them")
        values: dict[str, dict[str, str]] = {
            column: {text.strip().lower(): word for text, word in told.items()} for column, told in table.values.items()
        }
        return _read(path, replace(ours, patient_of=lambda text: _as_named(text, patients)), patients, values)
    if set(REQUIRED_COLUMNS) <= {heading.strip() for heading in headings} and path.suffix.lower() == ".csv":
        return read_labels(path, patients=patients)
    candidates = [public for public in _PUBLIC if all(heading in headings for heading in public.needs)]
    for public in sorted(candidates, key=lambda one: -_known(path, one, patients)):
        return _read(path, public, patients, {})
    for patient in ("participant_id", "patient_id"):
        if patient in headings and (layout is Layout.BIDS or set(REQUIRED_COLUMNS) <= set(headings)):
            own = {column: column for column in _COLUMNS[1:] if column in headings}
            return _read(path, _PublicTable("table", (), patient, own, {}, lambda text: _as_named(text, patients)), patients, {})
    if path.suffix.lower() == ".csv":
        return read_labels(path, patients=patients)  # which says what a table of ours lacks
    raise _wrong_headings(path, headings, expected=f"{', '.join(REQUIRED_COLUMNS)}, or the headings of a published cohort")


def egd_markers(content: Any, *, where: Path) -> Markers:
    """Return the markers of EGD's metadata.json.

    Raises:
        DataError: an unknown value.
    """
    labels = content.get("Genetic_and_Histological_labels") if isinstance(content, Mapping) else None
    egd = next(public for public in _PUBLIC if public.name == "EGD labels")
    cells = {heading: _text(labels.get(heading)) for heading in egd.columns.values()} if isinstance(labels, Mapping) else {}
    return _row_markers(_translate(cells, egd, {}, patient=where.parent.name, path=where, line=1))


def _others(table: TableConfig) -> Mapping[str, str]:
    return {column: heading for column, heading in table.columns.items() if column != "patient_id"}


def _as_named(text: str, patients: Collection[str]) -> str:
    """Return an identifier as file names have it: BIDS tables may leave out `sub-`."""
    return f"sub-{text}" if text not in patients and f"sub-{text}" in patients else text


def _known(path: Path, public: _PublicTable, patients: Collection[str]) -> int:
    """Return how many rows name a patient of the cohort: a name mapping has one column per year."""
    return sum(public.patient_of(cells.get(public.patient, "")) in patients for line, cells in _records(path) if line > 1)


def _read(path: Path, public: _PublicTable, patients: Collection[str], values: Mapping[str, Mapping[str, str]]) -> dict[str, Markers]:
    """Return the markers of the cohort's patients."""
    markers: dict[str, Markers] = {}
    others = 0
    for line, cells in _records(path):
        patient = public.patient_of(cells.get(public.patient, "")) if line > 1 else ""
        if patient not in patients:
            others += line > 1
            continue
        row = _translate(cells, public, values, patient=patient, path=path, line=line)
        told = _row_markers(row)
        markers[patient] = _merge(markers[patient], told, row) if patient in markers else told
    if not markers:
        raise DataError(
            "a table of labels names nobody of the cohort",
            where=path,
            got=f"{others} rows of others in what reads as the {public.name}",
            expected=f"rows of the {len(patients)} patients under {public.patient}",
            remedy="check that table and folder belong together; data.table in site.yaml can name the heading of the identifiers",
            code=ReasonCode.DATA_TABLE,
        )
    if others or len(markers) < len(patients):
        _LOG.warning("labels: %d rows are of others, %d of %d patients have no row", others, len(patients) - len(markers), len(patients))
    return markers


def _translate(
    cells: Mapping[str, str], public: _PublicTable, values: Mapping[str, Mapping[str, str]], *, patient: str, path: Path, line: int
) -> LabelRow:
    """Return a row in our words; a text that nothing translates stays, for markers_of to judge."""
    ours = {"patient_id": patient}
    for column, heading in public.columns.items():
        text = cells.get(heading, "").strip()
        word = values.get(column, {}).get(text.lower(), text)
        for pattern, told in (*_UNKNOWN, *public.words.get(column, ())):
            if match := re.fullmatch(pattern, word.lower()):
                word = _ROMAN.get(match[1], match[1]) if told == "grade" else told
                break
        ours[column] = word
    return LabelRow(ours, path, line)


def _row_markers(row: LabelRow) -> Markers:
    """Return what a row says; a diagnosis, then IDH and 1p/19q, are left out where they contradict."""
    without_subtype = {name: text for name, text in row.cells.items() if name != "subtype"}
    without_tests = {name: text for name, text in without_subtype.items() if name not in ("idh", "codeletion")}
    for cells in (row.cells, without_subtype, without_tests):
        try:
            return markers_of(replace(row, cells=cells))
        except DataError as error:
            if error.what != "a row is discordant":
                raise
    raise AssertionError("a row without IDH and 1p/19q cannot be discordant")


def _merge(first: Markers, second: Markers, row: LabelRow) -> Markers:
    """Return what two rows of one patient say together."""
    together = {}
    for name in (field.name for field in fields(Markers)):
        values = {value for value in (getattr(first, name), getattr(second, name)) if value is not None}
        if len(values) > 1:
            raise row.fault(
                "two rows of one patient differ", got=f"{row.patient}: {name}", expected="the same value", remedy="mend one of them"
            )
        together[name] = values.pop() if values else None
    return Markers(**together)


def _records(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield (line, cells by heading) of every row that is not blank; the headings themselves come first, as line 1."""
    try:
        if path.stat().st_size > _MAXIMUM_BYTES:
            raise _unreadable(path, f"more than {_MAXIMUM_BYTES} bytes")
        rows = _excel_rows(path) if path.suffix.lower() == ".xlsx" else _text_rows(path)
    except (OSError, UnicodeDecodeError, csv.Error, zipfile.BadZipFile, KeyError, ParseError) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error
    headings = [text.strip() for text in rows[0]] if rows else []
    yield 1, dict.fromkeys(headings, "")
    for number, row in enumerate(rows[1:], start=2):
        if any(text.strip() for text in row):
            yield number, dict(zip(headings, (text.strip() for text in row), strict=False))


def _text_rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = file.readline()
        file.seek(0)
        delimiter = "\t" if path.suffix.lower() == ".tsv" or ("\t" in head and "," not in head) else ","
        return list(csv.reader(file, strict=True, delimiter=delimiter))


def _excel_rows(path: Path) -> list[list[str]]:
    """Return the first sheet as text; openpyxl raises much on a damaged file, all of it is one fault here."""
    import openpyxl

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            return [[_text(cell) for cell in row] for row in book.worksheets[0].iter_rows(values_only=True)]
        finally:
            book.close()
    except Exception as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error


def _text(cell: object) -> str:
    """Return a cell as a person reads it: 1.0 of a spreadsheet is 1."""
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _unreadable(path: Path, got: str) -> DataError:
    return DataError(
        "the labels table cannot be read",
        where=path,
        got=got,
        expected="a CSV or TSV file in UTF-8, or an Excel file (.xlsx)",
        remedy="check the path and its rights; save it as CSV in UTF-8",
        code=ReasonCode.DATA_TABLE,
    )


def _wrong_headings(path: Path, headings: Collection[str], *, expected: str) -> DataError:
    return DataError(
        "the labels table lacks a column",
        where=f"{path} line 1",
        got=f"columns {', '.join(filter(None, headings)) or 'none'}",
        expected=expected,
        remedy="mend the header line, or describe the table under data.table in site.yaml",
        code=ReasonCode.DATA_TABLE,
    )


PUBLIC_TABLES = MappingProxyType({public.name: public.needs for public in _PUBLIC})
"""Published tables that are recognised, and the headings that tell them."""
