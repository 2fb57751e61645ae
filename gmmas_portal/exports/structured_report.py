"""The facts of a record as a DICOM structured report: TID 1500 Measurement Report in a Comprehensive 3D SR (PS3.16).

One group a segment holds what was measured on it and refers to the segment; one group of the case holds the rest: markers, subtype, checks,
what was entered. Numbers are measurements with UCUM units; words, and yes or no, are coded evaluations. A fact that is left open or was not
measured is an evaluation that says so and why, and its value is not in the report.
"""

from collections.abc import Sequence
from typing import Any, Final

from gmmas_portal.exports.concepts import BRAIN, IMAGING, SEGMENTS, coded, name_of, segment_of, unit_of, value_of
from gmmas_portal.exports.identity import (
    CHARACTER_SET,
    LONGEST_TEXT,
    MANUFACTURER,
    MODEL_NAME,
    CaseIdentity,
    person_name,
    software_version,
    uid_of,
)
from gmmas_portal.exports.segmentation import coding_scheme, tracking_id, tracking_uid
from gmmas_schema.case_record import NOTICE, CaseRecord, Fact, FactStatus

REPORT_SERIES: Final = 102
_CASE = "case"


def make_report(
    record: CaseRecord,
    segmentation: Any | None,
    *,
    sources: Sequence[Any],
    identity: CaseIdentity,
    verified_by: tuple[str, str] | None = None,
) -> Any:
    """Return a highdicom Comprehensive3DSR of a record.

    Args:
        record: what is told.
        segmentation: of the same version, as make_segmentation returned it; None where nothing is outlined.
        sources: pydicom datasets of the series that the segmentation lies on.
        identity: of the case.
        verified_by: name and organisation of the clinician who signed; None for a report that nobody verified.
    """
    from highdicom.sr import Comprehensive3DSR, MeasurementReport

    groups = _segment_groups(record, segmentation, identity)
    told = {fact.id for key, facts, _ in groups for fact in facts}
    rest = [fact for fact in record.facts if fact.id not in told]
    contents = [_segment_group(key, facts, number, segmentation, sources, identity) for key, facts, number in groups]
    if rest:
        contents.append(_case_group(rest, identity))
    content = MeasurementReport(
        observation_context=_observers(record),
        procedure_reported=coded(IMAGING),
        imaging_measurements=contents,
    )
    name, organisation = verified_by or (None, None)
    return Comprehensive3DSR(
        evidence=[*sources, *([] if segmentation is None else [segmentation])],
        content=content[0],
        series_instance_uid=identity.uid("report series"),
        series_number=REPORT_SERIES,
        sop_instance_uid=identity.uid("report", name or ""),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=verified_by is not None,
        verifying_observer_name=None if name is None else person_name(name),
        verifying_organization=organisation,
        series_description=NOTICE[:LONGEST_TEXT],
        manufacturer_model_name=MODEL_NAME,
        software_versions=software_version(),
        specific_character_set=CHARACTER_SET,
        coding_schemes=[coding_scheme()],
    )


def _segment_groups(record: CaseRecord, segmentation: Any | None, identity: CaseIdentity) -> list[tuple[str, list[Fact], int]]:
    """Return for each segment that is there its key, its facts and its number."""
    if segmentation is None:
        return []
    numbers = {str(item.TrackingUID): int(item.SegmentNumber) for item in segmentation.SegmentSequence}
    groups = []
    for kind in SEGMENTS:
        number = numbers.get(tracking_uid(identity, kind.key))
        facts = [fact for fact in record.facts if segment_of(fact) == kind.key]
        if number is not None and facts:
            groups.append((kind.key, facts, number))
    return groups


def _segment_group(key: str, facts: Sequence[Fact], number: int, segmentation: Any, sources: Sequence[Any], identity: CaseIdentity) -> Any:
    """Return the measurements on one segment (TID 1411)."""
    from highdicom.sr import (
        FindingSite,
        ReferencedSegment,
        SourceSeriesForSegmentation,
        TrackingIdentifier,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )

    kind = next(kind for kind in SEGMENTS if kind.key == key)
    measurements, evaluations = _items(facts, beside_segment=True)
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=tracking_uid(identity, key), identifier=tracking_id(identity, key)),
        referenced_segment=ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_series=SourceSeriesForSegmentation(sources[0].SeriesInstanceUID),
        ),
        finding_type=coded(kind.code),
        finding_sites=[FindingSite(anatomic_location=coded(BRAIN))],
        measurements=measurements,
        qualitative_evaluations=evaluations,
    )


def _case_group(facts: Sequence[Fact], identity: CaseIdentity) -> Any:
    """Return what is told of the case as a whole (TID 1501)."""
    from highdicom.sr import MeasurementsAndQualitativeEvaluations, TrackingIdentifier

    measurements, evaluations = _items(facts, beside_segment=False)
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=tracking_uid(identity, _CASE), identifier=tracking_id(identity, _CASE)),
        measurements=measurements,
        qualitative_evaluations=evaluations,
    )


def _items(facts: Sequence[Fact], *, beside_segment: bool) -> tuple[list[Any], list[Any]]:
    """Return measurements and evaluations; a number stands in the report only where it may be told."""
    from highdicom.sr import Measurement, QualitativeEvaluation

    measurements, evaluations = [], []
    for fact in facts:
        name = name_of(fact, beside_segment=beside_segment)
        if fact.status is FactStatus.FOUND and isinstance(fact.value, int | float) and not isinstance(fact.value, bool):
            unit = unit_of(fact if fact.unit else fact.model_copy(update={"unit": "1"}))
            measurements.append(Measurement(name=name, value=fact.value, unit=unit))
        else:
            evaluations.append(QualitativeEvaluation(name=name, value=value_of(fact)))
    return measurements, evaluations


def _observers(record: CaseRecord) -> Any:
    """Return who observed: the device, and beside it the person who corrected the mask."""
    from highdicom.sr import (
        DeviceObserverIdentifyingAttributes,
        ObservationContext,
        ObserverContext,
        PersonObserverIdentifyingAttributes,
    )
    from pydicom.sr.codedict import codes

    device = DeviceObserverIdentifyingAttributes(
        uid=uid_of("model", record.model.weights_sha256),
        name=record.model.name[:LONGEST_TEXT],
        manufacturer_name=MANUFACTURER,
        model_name=MODEL_NAME,
        serial_number=record.model.weights_sha256[:16],
    )
    person = None
    if record.segmentation.author != "model":
        attributes = PersonObserverIdentifyingAttributes(name=person_name(record.segmentation.author))
        person = ObserverContext(observer_type=codes.DCM.Person, observer_identifying_attributes=attributes)
    return ObservationContext(
        observer_person_context=person,
        observer_device_context=ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device),
    )
