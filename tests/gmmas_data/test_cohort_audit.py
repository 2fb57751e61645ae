"""The audit of a cohort: kept and taken up again, twins across patients, the report, and what may leave."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gmmas_data.cohort_audit
from gmmas_data.audit_report import render_report, write_report
from gmmas_data.audit_table import make_table
from gmmas_data.cases import Case
from gmmas_data.cohort_audit import aggregate_of, audit_cohort
from gmmas_data.layouts import read_cohort, survey_folder
from gmmas_data.suppression import suppress
from gmmas_schema.audit import SMALLEST_COUNT, CaseAudit, CohortAudit, FindingKind, ScanAudit
from gmmas_schema.vocabulary import Layout, Modality, Task
from tests.gmmas_data.real_case import write_real
from tests.gmmas_data.scans import write_case

PATIENT = "Jane-Doe-19580203"


def run(root: Path, folder: Path, **options: object) -> tuple[CohortAudit, dict[str, Path], tuple[Case, ...]]:
    cases = read_cohort(root)
    audit, pictures = audit_cohort(cases, site="north", survey=survey_folder(root), folder=folder, **options)
    return audit, pictures, cases


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    for number in range(3):
        write_case(tmp_path / "data", case_id=f"{PATIENT}-{number}", segmentation=number != 1)
    (tmp_path / "data" / f"{PATIENT}-2_t2.nii").write_bytes(b"")
    return tmp_path / "data"


def test_an_audit_goes_on_where_it_was_and_looks_again_at_what_changed(
    tmp_path: Path, cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    real = gmmas_data.cohort_audit.audit_case

    def counting(case: Case) -> object:
        looked.append(case.case_id[-1])
        return real(case)

    monkeypatch.setattr(gmmas_data.cohort_audit, "audit_case", counting)
    first, pictures, _ = run(cohort, tmp_path / "kept")
    assert looked == ["0", "1", "2"]
    assert [case.fault for case in first.cases] == ["", "", "E_DATA_UNREADABLE"]
    assert sorted(pictures) == [f"{PATIENT}-0", f"{PATIENT}-1"]
    again, _, _ = run(cohort, tmp_path / "kept")
    assert looked == ["0", "1", "2"]
    assert again == first
    write_case(cohort, case_id=f"{PATIENT}-2")
    damaged = next((tmp_path / "kept").glob("*.json"))
    damaged.write_text("{")
    next((tmp_path / "kept" / "pictures").glob("*.png")).unlink()
    run(cohort, tmp_path / "kept")
    assert "2" in looked[3:]
    assert 2 <= len(looked[3:]) <= 3
    assert (tmp_path / "kept").stat().st_mode & 0o077 == 0


def test_twins_of_other_patients_are_found_and_time_points_are_not(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for case_id, mirrored in (("BraTS-GLI-00001-000", False), ("BraTS-GLI-00001-001", False), ("BraTS-GLI-00002-000", True)):
        write_real(root / case_id, case_id=case_id, mirrored=mirrored)
    write_real(root / "x", case_id="BraTS-GLI-00003-000")
    audit, _, _ = run(root, tmp_path / "kept")
    kinds = {case.case_id[10:]: {finding.kind for finding in case.findings} for case in audit.cases}
    assert kinds["00003-000"] >= {FindingKind.DUPLICATE, FindingKind.MIRRORED}
    assert FindingKind.MIRRORED in kinds["00002-000"]
    text = " ".join(finding.text for finding in audit.cases[0].findings)
    assert "00001-001" not in text


def test_the_report_is_one_file_that_asks_nothing_of_a_network(tmp_path: Path, cohort: Path) -> None:
    write_case(cohort, case_id="<script>alert(1)</script>"[:20].replace("/", "_"))
    audit, pictures, cases = run(cohort, tmp_path / "kept")
    path = write_report(tmp_path / "report", audit, aggregate_of(audit, cases), pictures)
    html = path.read_text()
    assert "default-src 'none'" in html
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!data:image/png)", html)
    assert "http" not in re.sub(r"data:image/png;base64,[^\"]*", "", html).replace("http-equiv", "")
    assert "<script" not in html
    assert "&lt;script" in html
    assert html.count("data:image/png") == 3
    assert "E_DATA_UNREADABLE" in html
    assert json.loads((tmp_path / "report" / "report.json").read_bytes())["site"] == "north"
    assert path.stat().st_mode & 0o077 == 0


def test_a_report_without_any_good_case_is_written(tmp_path: Path) -> None:
    write_case(tmp_path / "data", case_id="x")
    for path in (tmp_path / "data").iterdir():
        path.write_bytes(b"")
    audit, pictures, cases = run(tmp_path / "data", tmp_path / "kept")
    assert "refused by the quality gate" in render_report(audit, aggregate_of(audit, cases), pictures)


def made_up(number: int, *, modalities: tuple[Modality, ...], idh: bool | None, mask: bool) -> tuple[Case, CaseAudit]:
    name = f"{PATIENT}-{number}"
    scan = ScanAudit(
        spacing_mm=(1, 1, 2),
        shape=(9, 9, 9),
        axes="LPS",
        verdict="looks like it",
        contrast={},
        content=str(number),
        fingerprint=(0.1,) * 96,
    )
    case = Case(name, name, {m: Path("x") for m in modalities}, Path("seg") if mask else None, Layout.BRATS2021, idh=idh)
    audit = CaseAudit(
        case_id=name, patient_id=name, layout=Layout.BRATS2021, seconds=1, scans=dict.fromkeys(modalities, scan), stripped="yes"
    )
    return case, audit


SETS = st.sets(st.sampled_from(list(Modality)), min_size=1).map(lambda found: tuple(m for m in Modality if m in found))
GROUPS = st.lists(st.tuples(SETS, st.sampled_from([True, False, None]), st.booleans(), st.integers(1, 30)), min_size=1, max_size=5)


def cohort_of(groups: list[tuple[tuple[Modality, ...], bool | None, bool, int]]) -> list[tuple[Case, CaseAudit]]:
    members = [group for group in groups for _ in range(group[3])]
    return [made_up(n, modalities=g[0], idh=g[1], mask=g[2]) for n, g in enumerate(members)]


@settings(max_examples=12)
@given(groups=GROUPS)
def test_counts_add_up_and_no_small_one_is_told(groups: list[tuple[tuple[Modality, ...], bool | None, bool, int]]) -> None:
    table = make_table(cohort_of(groups))
    for one in table.sums:
        assert table.counts[one.total] == sum(table.counts[part] for part in one.parts), one
    told = suppress(table.counts, table.sums, hidden=table.hidden)
    assert all(count is None or count >= SMALLEST_COUNT for count in told.values())
    assert not set(told) & table.hidden


@settings(max_examples=8)
@given(groups=GROUPS)
def test_nothing_in_the_aggregate_tells_a_withheld_count(groups: list[tuple[tuple[Modality, ...], bool | None, bool, int]]) -> None:
    pairs = cohort_of(groups)
    audit = CohortAudit(site="north", layout=Layout.BRATS2021, cases=tuple(audit for _, audit in pairs))
    aggregate = aggregate_of(audit, [case for case, _ in pairs], salt=bytes(32))
    text = aggregate.model_dump_json()
    assert "Jane" not in text
    for modality in Modality:
        count = aggregate.counts.get(f"with {modality}")
        assert len(aggregate.fingerprints.get(modality, ())) == (count or 0)
    assert (aggregate.spacing_mm is None) == (len(pairs) < SMALLEST_COUNT)


def test_the_one_case_of_rare_sequences_is_not_computed_from_the_others() -> None:
    pairs = cohort_of([(tuple(Modality), None, False, SMALLEST_COUNT), ((Modality.T1,), None, False, 1)])
    audit = CohortAudit(site="north", layout=Layout.BRATS2021, cases=tuple(audit for _, audit in pairs))
    counts = aggregate_of(audit, [case for case, _ in pairs]).counts
    assert counts["sequences=other"] is None  # that there is a row says one at least, and the other row is one of eleven at least
    assert counts["cases"] is None


def test_a_large_even_cohort_is_told_almost_whole() -> None:
    every = tuple(Modality)
    pairs = cohort_of([(every, True, True, 40), (every, False, True, 40), (every[2:], True, False, 30), (every[2:], False, False, 25)])
    table = make_table(pairs)
    told = suppress(table.counts, table.sums, hidden=table.hidden)
    assert told["cases"] == 135
    # Nobody lacks IDH: that zero is small, and takes one neighbour with it in each row.
    assert (told["with t1"], told["idh=positive"], told["idh=unknown"]) == (80, 70, None)
    assert table.held == (*map(str, Modality), str(Task.SEGMENTATION), str(Task.IDH))
    assert aggregate_of(
        CohortAudit(site="n", layout=Layout.BRATS2021, cases=tuple(a for _, a in pairs)), [c for c, _ in pairs]
    ).spacing_mm == (2.0, 1.0)


def test_a_side_of_the_table_makes_the_audit_anew(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    case = write_real(tmp_path / "data")
    keys = {gmmas_data.cohort_audit._key_of(one) for one in (case, replace(case, side="left"), replace(case, layout=Layout.EGD))}
    assert len(keys) == 3
