"""The report read back by pydicom alone: names, numbers, units, and what is left open."""

from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from gmmas_portal.analysis import Analysis, remeasure
from gmmas_portal.exports import export_dicom
from gmmas_portal.exports.concepts import SEGMENTS, name_of, segment_of
from gmmas_portal.exports.identity import CaseIdentity
from gmmas_portal.exports.mr_series import make_mr_series
from gmmas_portal.exports.structured_report import make_report
from gmmas_schema.case_record import CaseRecord, FactStatus
from gmmas_schema.vocabulary import OEDEMA, Modality


def _code(item: Any) -> str:
    return str(item.get("CodeValue") or item.get("LongCodeValue"))


def _groups(report: Any) -> list[Any]:
    """Return the containers of measurements."""
    measurements = next(item for item in report.ContentSequence if _code(item.ConceptNameCodeSequence[0]) == "126010")
    return list(measurements.ContentSequence)


def _values(group: Any) -> dict[str, tuple[Any, str]]:
    """Return the numbers and coded values of a group by the code of their name, with unit or meaning."""
    found = {}
    for item in group.ContentSequence:
        name = _code(item.ConceptNameCodeSequence[0])
        if item.ValueType == "NUM":
            measured = item.MeasuredValueSequence[0]
            found[name] = (
                float(measured.get("FloatingPointValue", measured.NumericValue)),
                _code(measured.MeasurementUnitsCodeSequence[0]),
            )
        elif item.ValueType == "CODE":
            code = item.ConceptCodeSequence[0]
            found[name] = (_code(code), str(code.CodeMeaning))
    return found


@pytest.fixture(scope="module")
def report(exported: Path) -> Any:
    return pydicom.dcmread(exported / "report.dcm")


def test_every_fact_is_in_the_report_and_found_numbers_have_their_value(corrected: CaseRecord, report: Any, exported: Path) -> None:
    seg = pydicom.dcmread(exported / "segmentation.dcm")
    labels = {str(s.TrackingUID): str(s.TrackingID).rsplit(" ", 1)[1] for s in seg.SegmentSequence}
    by_group: dict[str, dict[str, tuple[Any, str]]] = {}
    for group in _groups(report):
        uid = next(
            str(item.UID)
            for item in group.ContentSequence
            if item.ValueType == "UIDREF" and _code(item.ConceptNameCodeSequence[0]) == "112040"
        )
        by_group[labels.get(uid, "case")] = _values(group)
    numbers = 0
    for fact in corrected.facts:
        segment = segment_of(fact)
        group = by_group[segment if segment in by_group else "case"]
        value, more = group[str(name_of(fact, beside_segment=segment in by_group).value)]
        if fact.status is not FactStatus.FOUND:
            assert value == fact.codes[0]
            assert more.startswith(("Left open", "Not there"))
        elif isinstance(fact.value, int | float) and not isinstance(fact.value, bool):
            assert value == pytest.approx(fact.value)
            assert more == (fact.unit or "1")
            numbers += 1
    assert numbers > 15


def test_a_value_that_is_left_open_is_nowhere_in_the_report(corrected: CaseRecord, report: Any) -> None:
    fact = corrected.fact("marker.idh.p")
    assert fact is not None
    assert fact.status is FactStatus.ABSTAINED
    numbers = [float(item.NumericValue) for item in _everything(report) if "NumericValue" in item]
    assert numbers
    assert all(number != pytest.approx(fact.value, abs=1e-9) for number in numbers)
    meanings = {str(item.CodeMeaning) for item in _everything(report) if "CodeMeaning" in item}
    assert "wildtype" not in meanings
    assert "mutant" not in meanings


def _everything(dataset: Any) -> list[Any]:
    found = [dataset]
    for element in dataset:
        if element.VR == "SQ":
            found += [one for item in element.value for one in _everything(item)]
    return found


def test_groups_refer_to_the_segments_and_the_observer_is_the_model(analysis: Analysis, exported: Path, report: Any) -> None:
    seg = pydicom.dcmread(exported / "segmentation.dcm")
    referenced = [item for item in _everything(report) if "ReferencedSegmentNumber" in item]
    assert {str(item.ReferencedSOPInstanceUID) for item in referenced} == {str(seg.SOPInstanceUID)}
    assert sorted(int(item.ReferencedSegmentNumber) for item in referenced) == [int(s.SegmentNumber) for s in seg.SegmentSequence]
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    texts = {str(item.TextValue) for item in _everything(report) if "TextValue" in item}
    assert analysis.record.model.weights_sha256[:16] in texts
    assert "Weber^Änne" in {str(item.PersonName) for item in _everything(report) if "PersonName" in item}
    assert report.CompletionFlag == "COMPLETE"
    assert report.VerificationFlag == "UNVERIFIED"
    assert "99GMMAS" in {str(item.CodingSchemeDesignator) for item in report.CodingSchemeIdentificationSequence}


def test_highdicom_reads_it_as_a_measurement_report(corrected: CaseRecord, exported: Path) -> None:
    read = highdicom.sr.srread(exported / "report.dcm")
    groups = read.content.get_volumetric_roi_measurement_groups()
    assert groups
    volumes = [group.get_measurements(name=codes.SCT.Volume)[0] for group in groups]
    assert [volume.value for volume in volumes] == pytest.approx([corrected.fact(f"volume.{kind.key}").value for kind in SEGMENTS])
    assert {volume.unit.value for volume in volumes} == {"ml"}


def test_a_signed_report_names_who_signed(analysis: Analysis) -> None:
    identity = CaseIdentity.of(analysis.record)
    small = np.ones((4, 4, 4), dtype=np.float32)
    sources = make_mr_series(small, analysis.frame.affine_array, modality=Modality.T2, identity=identity)
    signer = ("Weber^Änne", "University hospital")
    signed = make_report(analysis.record, None, sources=sources, identity=identity, verified_by=signer)
    assert signed.VerificationFlag == "VERIFIED"
    assert str(signed.VerifyingObserverSequence[0].VerifyingObserverName) == "Weber^Änne"


def test_without_its_segment_a_measure_says_of_what_it_is(analysis: Analysis, outlined: np.ndarray) -> None:
    """Of a tumour that does not enhance there is no segment to say that `Volume` is that of the enhancing part."""
    oedema = np.where(outlined > 0, OEDEMA, 0).astype(np.uint8)
    record = remeasure(analysis.record, oedema, author="dr.weber", frame=analysis.frame)
    export = export_dicom(record, oedema, frame=analysis.frame, images={Modality.T2: analysis.case.images[Modality.T2]})
    (case,) = [group for group in _groups(export.report) if "volume.et" in _values(group)]
    names = [_code(item.ConceptNameCodeSequence[0]) for item in case.ContentSequence if item.ValueType in ("NUM", "CODE")]
    assert len(names) == len(set(names))
    assert {"volume.et", "volume.tc", "volume.necrosis", "foci.et"} <= set(names)
    assert _values(case)["volume.et"] == (0.0, "ml")
