"""Tables of public cohorts with the texts that occur in them, and a hospital's own by data.table."""

import json
from contextlib import suppress
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_data.label_tables import egd_markers, read_markers
from gmmas_data.labels import Markers
from gmmas_data.layouts import read_cohort
from gmmas_schema.errors import DataError, ReasonCode
from gmmas_schema.site import TableConfig
from gmmas_schema.vocabulary import Layout, Side
from tests.gmmas_data.test_layouts import touch


def written(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


UCSF = "ID,Sex,Age at MRI,WHO CNS Grade,Final pathologic diagnosis (WHO 2021),MGMT status,MGMT index,1p/19q,IDH\n"
OLIGODENDROGLIOMA = '"Oligodendroglioma, IDH-mutant, 1p/19q-codeleted"'


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ('4,"Glioblastoma, IDH-wildtype",negative,0,unknown,wildtype', Markers(False, False, True, False)),
        ('3,"Astrocytoma, IDH-mutant",positive,12,intact,IDH1 p.R132H', Markers(True, False, True, True)),
        (f"2,{OLIGODENDROGLIOMA},indeterminate,,relative co-deletion,mutated (NOS)", Markers(True, True, False)),
        (f"2,{OLIGODENDROGLIOMA},unknown,,Co-deletion,IDH2 p.R172K", Markers(True, True, False)),
        ('2,"Astrocytoma, IDH-wildtype",,,unknown,wildtype', Markers(False, None, False)),
        # The test counts where the diagnosis contradicts it, and both tests are dropped where they exclude one another.
        ('4,"Glioblastoma, IDH-wildtype",,,intact,IDH1 p.R132H', Markers(True, False, True)),
        ('2,"Astrocytoma, IDH-mutant",positive,,co-deletion,wildtype', Markers(None, None, False, True)),
    ],
)
def test_ucsf_values(tmp_path: Path, row: str, expected: Markers) -> None:
    path = written(tmp_path, UCSF + f"UCSF-PDGM-004,M,66,{row}\n")
    assert read_markers(path, patients=["UCSF-PDGM-0004"], layout=Layout.UCSF_PDGM) == {"UCSF-PDGM-0004": expected}


def test_three_digits_find_four_and_follow_ups_their_patient(tmp_path: Path) -> None:
    touch(tmp_path, *(f"UCSF-PDGM-{case}_T1.nii.gz" for case in ("0004", "0431", "0431_FU003d")))
    path = written(tmp_path, UCSF + "UCSF-PDGM-431,F,40,2,,,,,wildtype\nUCSF-PDGM-431_FU003d,F,40,,,positive,,,\nUCSF-PDGM-500,F,4,,,,,,\n")
    known = {case.case_id: (case.idh, case.mgmt) for case in read_cohort(tmp_path, labels=path)}
    assert known == {"UCSF-PDGM-0004": (None, None), "UCSF-PDGM-0431": (False, True), "UCSF-PDGM-0431_FU003d": (False, True)}


def test_egd_table_is_excel(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (("Subject", "IDH", "1p19q", "Grade"), ("EGD-0001", 1, 0, 3), ("EGD-0002", 0.0, -1, 4), ("EGD-0003", -1, -1, -1)):
        book.active.append(row)
    book.save(tmp_path / "labels.xlsx")
    found = read_markers(tmp_path / "labels.xlsx", patients=["EGD-0001", "EGD-0002", "EGD-0003"], layout=Layout.EGD)
    assert found == {"EGD-0001": Markers(True, False, True), "EGD-0002": Markers(False, None, True), "EGD-0003": Markers()}


def test_egd_metadata_lies_beside_the_scans(tmp_path: Path) -> None:
    touch(tmp_path, "SUBJECTS/EGD-0001/T1.nii.gz", "SUBJECTS/EGD-0002/T1.nii.gz")
    metadata = tmp_path / "SUBJECTS/EGD-0001/metadata.json"
    metadata.write_text(json.dumps({"Genetic_and_Histological_labels": {"IDH": 1, "1p19q": -1, "Grade": 2}, "Clinical_data": {"Age": 40}}))
    first, second = read_cohort(tmp_path)
    assert (first.idh, first.codeletion, first.grade, second.idh) == (True, None, False, None)
    metadata.write_text("{")
    with pytest.raises(DataError, match="metadata cannot be read"):
        read_cohort(tmp_path)


@given(content=st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_json_is_read_or_refused(content: object) -> None:
    for value in (content, {"Genetic_and_Histological_labels": content}, {"Genetic_and_Histological_labels": {"IDH": content}}):
        with suppress(DataError):
            egd_markers(value, where=Path("EGD-0001/metadata.json"))


def test_upenn_has_a_row_per_scan(tmp_path: Path) -> None:
    header = "ID,Gender,Age_at_scan_years,Survival_from_surgery_days_UPDATED,IDH1,MGMT\n"
    rows = "UPENN-GBM-00001_11,M,60,Not Available,NOS/NEC,Not Available\nUPENN-GBM-00001_21,M,61,,Wildtype,Indeterminate\n"
    path = written(tmp_path, header + rows + "UPENN-GBM-00002_11,F,50,300,Mutated,Unmethylated\n")
    found = read_markers(path, patients=["UPENN-GBM-00001", "UPENN-GBM-00002"], layout=Layout.UPENN_GBM)
    assert found == {"UPENN-GBM-00001": Markers(False), "UPENN-GBM-00002": Markers(True, None, None, False)}
    path.write_text(header + "UPENN-GBM-00001_11,M,60,,Mutated,\nUPENN-GBM-00001_21,M,61,,Wildtype,\n")
    with pytest.raises(DataError, match="rows of one patient differ") as caught:
        read_markers(path, patients=["UPENN-GBM-00001"], layout=Layout.UPENN_GBM)
    assert caught.value.where.endswith("line 3")


def test_tcga_table(tmp_path: Path) -> None:
    header = "barcode,paper_IDH.status,paper_X1p.19q.codeletion,paper_Grade,paper_MGMT.promoter.status\n"
    path = written(tmp_path, header + "TCGA-02-0006-01A-01R,WT,non-codel,G4,Unmethylated\nTCGA-CS-4941-01A,Mutant,codel,G2,NA\n")
    found = read_markers(path, patients=["TCGA-02-0006", "TCGA-CS-4941"], layout=Layout.TCGA)
    assert found == {"TCGA-02-0006": Markers(False, False, True, False), "TCGA-CS-4941": Markers(True, True, False)}


def test_brats_tables(tmp_path: Path) -> None:
    mapping = "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,BraTS_2019_subject_ID,BraTS_2020_subject_ID\n"
    rows = "HGG,NA,Brats18_1,NA,BraTS19_1,BraTS20_Training_001\nLGG,NA,Brats18_2,TCGA-DU-7008,BraTS19_2,BraTS20_Training_002\n"
    path = written(tmp_path, mapping + rows)
    for ids in (("BraTS20_Training_001", "BraTS20_Training_002"), ("Brats18_1", "Brats18_2")):
        found = read_markers(path, patients=ids, layout=Layout.BRATS2021)
        # LGG of BraTS holds grades 2 and 3.
        assert [found[patient].grade for patient in ids] == [True, None]
    survival = written(
        tmp_path, "Brats20ID,Age,Survival_days,Extent_of_Resection\nBraTS20_Training_001,60.4,ALIVE (361 days later),GTR\n", "s.csv"
    )
    assert read_markers(survival, patients=["BraTS20_Training_001"], layout=Layout.BRATS2021) == {"BraTS20_Training_001": Markers()}
    mgmt = written(tmp_path, "BraTS21ID,MGMT_value\n00000,1\n2,0\n", "train_labels.csv")
    found = read_markers(mgmt, patients=["BraTS2021_00000", "BraTS2021_00002"], layout=Layout.BRATS2021)
    assert [markers.mgmt for markers in found.values()] == [True, False]


def test_bids_participants(tmp_path: Path) -> None:
    path = written(tmp_path, "participant_id\tage\tidh\tgrade\nsub-1\t44\tmutant\tn/a\n2\t50\twildtype\t4\n", "participants.tsv")
    found = read_markers(path, patients=["sub-1", "sub-2"], layout=Layout.BIDS)
    assert found == {"sub-1": Markers(True), "sub-2": Markers(False, None, True)}


OWN = TableConfig(
    columns={"patient_id": "PatNr", "idh": "IDH Status", "side": "Seite"},
    values={"idh": {"mutiert": "mutant", "wt": "wildtype", "n.b.": "unknown"}, "side": {"li": "left", "re": "right"}},
)


def test_a_table_of_ones_own_is_described_in_site_yaml(tmp_path: Path) -> None:
    path = written(tmp_path, "PatNr,IDH Status,Seite,Name\na, Mutiert ,li,X\nb,WT,Re,Y\nc,n.b.,,Z\nd,mutant,left,\n")
    found = read_markers(path, patients=("a", "b", "c", "d"), layout=Layout.BRATS2021, table=OWN)
    assert found == {
        "a": Markers(True, side=Side.LEFT),
        "b": Markers(False, side=Side.RIGHT),
        "c": Markers(),
        "d": Markers(True, side=Side.LEFT),
    }


@pytest.mark.parametrize(
    ("text", "table", "said"),
    [
        ("PatNr,IDH\na,mutant\n", OWN, "IDH Status"),
        ("PatNr,IDH Status,Seite\na,vielleicht,\n", OWN, "'vielleicht'"),
        ("PatNr,IDH Status,Seite\nz,WT,\n", OWN, "nobody of the cohort"),
        ("PatNr,IDH Status,Seite\na,WT,\na,mutiert,\n", OWN, "rows of one patient differ"),
        ("ID,IDH,1p/19q\nUCSF-PDGM-9,maybe,\n", None, "'maybe'"),
        ("ID,IDH,1p/19q\nUCSF-PDGM-8,wildtype,\n", None, "nobody of the cohort"),
        ("BraTS21ID,MGMT_value\n9,2\n", None, "nobody of the cohort"),
        ("a,b,c\n1,2,3\n", None, "lacks a column"),
        ("", None, "lacks a column"),
        ('ID,IDH,1p/19q\nUCSF-PDGM-9,"wild\n', None, "cannot be read"),
    ],
)
def test_faulty_tables_are_refused(tmp_path: Path, text: str, table: TableConfig | None, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read_markers(written(tmp_path, text), patients=["a", "UCSF-PDGM-0009"], layout=Layout.UCSF_PDGM, table=table)
    assert caught.value.code is ReasonCode.DATA_TABLE
    assert caught.value.remedy


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"text"])
def test_a_damaged_excel_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labels.xlsx").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read_markers(tmp_path / "labels.xlsx", patients=["a"], layout=Layout.EGD)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=200), public=st.booleans())
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str, public: bool) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "labels.csv"
    path.write_text(("ID,IDH,1p/19q\nUCSF-PDGM-1," if public else "") + text, encoding="utf-8")
    with suppress(DataError):
        read_markers(path, patients=["UCSF-PDGM-0001"], layout=Layout.UCSF_PDGM)
