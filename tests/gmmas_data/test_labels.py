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


@pytest.mark.parametrize(
    ("text", "said", "where"),
    [
        ("patient_id,idh\na,mutant\n", "codeletion", "line 1"),
        ("patient_id;idh;codeletion\na;mutant;intact\n", "columns patient_id;idh;codeletion", "line 1"),
        ("patient_id,idh,idh,codeletion\n", "idh", "line 1"),
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
