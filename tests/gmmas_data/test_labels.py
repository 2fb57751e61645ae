from pathlib import Path

import pytest

from gmmas_data.labels import Markers, read_labels
from gmmas_schema.errors import DataError, ReasonCode

PATIENTS = ("a", "b", "c", "d")
HEADER = "patient_id,idh,codeletion\n"


def table(folder: Path, text: str, *, encoding: str = "utf-8") -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_reads_every_value(tmp_path: Path) -> None:
    path = table(tmp_path, HEADER + "a,mutant,codeleted\nb,wildtype,intact\nc,unknown,\nd,,codeleted\n")
    assert read_labels(path, patients=PATIENTS) == {
        "a": Markers(True, True),
        "b": Markers(False, False),
        "c": Markers(None, None),
        "d": Markers(None, True),
    }


def test_reads_what_spreadsheets_write(tmp_path: Path) -> None:
    """Byte order mark, CRLF, columns in another order, extra columns, blanks, capitals, quotes, blank lines."""
    text = '\ufeffpatient_id, Patient_notes ,codeletion,idh,age\r\na,"x, y",Intact, Mutant ,61\r\n\r\n,,,,\r\nb,,,WILDTYPE,44\r\n'
    assert read_labels(table(tmp_path, text), patients=PATIENTS) == {"a": Markers(True, False), "b": Markers(False, None)}


ALL_COLUMNS = "patient_id,subtype,idh,codeletion,grade,mgmt\n"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (",mutant,intact,2,methylated", Markers(True, False, False, True)),
        (",wildtype,,4,Unmethylated", Markers(False, None, True, False)),
        (",,,3,", Markers(grade=True)),
        (",,,LGG,unknown", Markers(grade=False)),
        ("unknown,unknown,unknown,hgg,unknown", Markers(grade=True)),
        ("Glioblastoma,,,4,", Markers(False, False, True, None)),
        ("glioblastoma,wildtype,,,methylated", Markers(False, False, None, True)),
        ("astrocytoma,,,3,", Markers(True, False, True, None)),
        ("oligodendroglioma,,codeleted,,", Markers(True, True)),
        # Reports from before 2021: counted as they are.
        (",wildtype,intact,2,", Markers(False, False, False, None)),
    ],
)
def test_grade_mgmt_and_subtype(tmp_path: Path, row: str, expected: Markers) -> None:
    assert read_labels(table(tmp_path, ALL_COLUMNS + f"a,{row}\n"), patients=PATIENTS) == {"a": expected}


@pytest.mark.parametrize(
    ("row", "said", "wanted"),
    [
        ("glioblastoma,mutant,,,", "glioblastoma and idh mutant", "idh wildtype"),
        ("glioblastoma,,codeleted,,", "glioblastoma and codeletion codeleted", "codeletion intact"),
        ("astrocytoma,wildtype,,,", "astrocytoma and idh wildtype", "idh mutant"),
        ("astrocytoma,mutant,codeleted,,", "astrocytoma and codeletion codeleted", "codeletion intact"),
        ("oligodendroglioma,mutant,intact,,", "oligodendroglioma and codeletion intact", "codeletion codeleted"),
        ("glioblastoma,,,LGG,", "glioblastoma and grade lgg", "grade 4 or hgg"),
        ("glioblastoma,wildtype,intact,3,", "glioblastoma and grade 3", "grade 4 or hgg"),
        ("oligo,,,,", "'oligo'", "glioblastoma, astrocytoma, oligodendroglioma"),
        (",,,II,", "'II'", "2, 3, 4, lgg, hgg"),
        (",,,1,", "'1'", "2, 3, 4, lgg, hgg"),
        (",,,,yes", "'yes'", "methylated, unmethylated"),
    ],
)
def test_rows_that_cannot_be_are_refused(tmp_path: Path, row: str, said: str, wanted: str) -> None:
    with pytest.raises(DataError) as caught:
        read_labels(table(tmp_path, ALL_COLUMNS + f"a,{row}\n"), patients=PATIENTS)
    assert caught.value.code is ReasonCode.DATA_TABLE
    assert said in caught.value.got
    assert wanted in caught.value.expected
    assert caught.value.where.endswith("line 2")


@pytest.mark.parametrize(
    ("text", "said", "where"),
    [
        ("patient_id,idh\na,mutant\n", "codeletion", "line 1"),
        ("patient_id;idh;codeletion\na;mutant;intact\n", "columns patient_id;idh;codeletion", "line 1"),
        ("patient_id,idh,idh,codeletion\n", "idh", "line 1"),
        ("patient_id,idh,codeletion,grade,grade\n", "grade", "line 1"),
        ("", "none", "line 1"),
        (HEADER + "a,mutant,intact\na,mutant,intact\n", "two rows", "line 3"),
        (HEADER + "a,mutant,intact\nz,mutant,intact\n", "z", "line 3"),
        (HEADER + ",mutant,intact\n", "empty patient_id", "line 2"),
        (HEADER + "a,IDH1,intact\n", "'IDH1'", "line 2"),
        (HEADER + "a,mutant,1\n", "'1'", "line 2"),
        (HEADER + "a,wildtype,codeleted\n", "discordant", "line 2"),
        (HEADER + 'a,"mutant\n', "labels table cannot be read", "labels.csv"),
    ],
)
def test_a_faulty_table_is_refused_by_row(tmp_path: Path, text: str, said: str, where: str) -> None:
    with pytest.raises(DataError) as caught:
        read_labels(table(tmp_path, text), patients=PATIENTS)
    assert caught.value.code is ReasonCode.DATA_TABLE
    assert said in str(caught.value)
    assert where in caught.value.where
    assert caught.value.remedy


def test_unreadable_tables_are_data_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", tmp_path, table(tmp_path, HEADER + "ä,mutant,intact", encoding="utf-16")):
        with pytest.raises(DataError, match="cannot be read"):
            read_labels(path, patients=PATIENTS)
