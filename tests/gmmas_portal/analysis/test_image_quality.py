from gmmas_data.sequence_identity import Verdict
from gmmas_portal.analysis.image_quality import brain_fault, quality_faults
from gmmas_schema.audit import CaseAudit, Finding, FindingKind, ScanAudit
from gmmas_schema.vocabulary import Layout, Modality


def _audit(
    *, verdicts: dict[Modality, Verdict], contents: dict[Modality, str] | None = None, brain_ml: float = 1300, head: bool = False
) -> CaseAudit:
    def scan(modality: Modality) -> ScanAudit:
        content = (contents or {}).get(modality, modality)
        verdict = str(verdicts[modality])
        return ScanAudit(spacing_mm=(1, 1, 1), shape=(9, 9, 9), axes="RAS", verdict=verdict, contrast={}, content=content, fingerprint=())

    findings = (Finding(kind=FindingKind.NOT_STRIPPED, text="/data/Miller^Ann.nii.gz"),) if head else ()
    return CaseAudit(
        case_id="c",
        patient_id="p",
        layout=Layout.BRATS2021,
        seconds=0,
        scans={m: scan(m) for m in verdicts},
        brain_ml=brain_ml,
        findings=findings,
    )


def test_scans_that_agree_or_cannot_be_told_are_no_fault() -> None:
    assert quality_faults(_audit(verdicts={Modality.T1: Verdict.AGREES, Modality.FLAIR: Verdict.UNKNOWN})) == ()


def test_a_scan_that_is_something_else_is_named_by_its_sequence() -> None:
    assert quality_faults(_audit(verdicts={Modality.FLAIR: Verdict.DISAGREES})) == ("the scan taken for FLAIR does not look like one",)


def test_one_scan_under_two_names_is_a_fault() -> None:
    same = {Modality.T1: "x", Modality.T1CE: "x"}
    found = quality_faults(_audit(verdicts=dict.fromkeys(same, Verdict.AGREES), contents=same))
    assert found == ("T1 and T1ce are the same scan",)


def test_a_head_and_half_a_brain_are_faults_and_name_no_file() -> None:
    (head,) = quality_faults(_audit(verdicts={Modality.T1: Verdict.AGREES}, brain_ml=2300, head=True))
    assert "skull" in head
    assert "Miller" not in head
    (half,) = quality_faults(_audit(verdicts={Modality.T1: Verdict.AGREES}, brain_ml=500))
    assert "500 ml" in half
    assert [bool(brain_fault(ml)) for ml in (699, 700, 1400, 2200, 2201)] == [True, False, False, False, True]
