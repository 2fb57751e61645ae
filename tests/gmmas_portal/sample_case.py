"""A record as the analysis makes it, with results on tissue: what reports, verifier and questions are tried on."""

from collections.abc import Iterable
from datetime import date
from typing import Any

from gmmas_portal.reports.report import Audience, Report
from gmmas_portal.reports.writing import write_report
from gmmas_schema.case_record import AbstainCode, Abstention, CaseRecord, Fact, FactStatus, RecordModel, RecordSegmentation
from gmmas_schema.model_card import Accuracy, Figure, SubsetAccuracy
from gmmas_schema.vocabulary import Modality, Region, Task

ON = date(2026, 11, 28)
PSEUDONYM = "case-7f3a"


def measured(name: str, label: str, value: float | int | str | bool, unit: str = "", **more: Any) -> Fact:
    return Fact(id=name, label=label, value=value, unit=unit, source=more.pop("source", "segmentation"), **more)


MEASURES = (
    measured("volume.wt", "volume of the whole tumour", 31.42, "ml"),
    measured("volume.tc", "volume of the tumour core", 12.04, "ml"),
    measured("volume.et", "volume of the enhancing tumour", 8.27, "ml"),
    measured("volume.oedema", "volume of oedema and infiltrated tissue", 19.38, "ml"),
    measured("volume.necrosis", "volume of the core that does not enhance (necrosis)", 3.77, "ml"),
    measured("share.wt", "part of the brain taken by the whole tumour", 2.2, "%"),
    measured("diameter.wt.longest", "longest diameter of the whole tumour", 52.3, "mm"),
    measured("diameter.et.longest", "longest diameter of the enhancing tumour", 29.8, "mm"),
    measured("foci.wt", "number of foci of the whole tumour of 0.1 ml and more", 1),
    measured("foci.et", "number of enhancing foci of 0.1 ml and more", 2),
    measured("location.side", "side of the tumour", "left"),
    measured("midline.crossing", "tumour crosses the midline", False),
    measured("location.lobe_1", "main location of the tumour (atlas-estimated, by planes in MNI space)", "left frontal lobe"),
)
PREDICTIONS = (
    measured("marker.idh", "IDH status by imaging", "wildtype", source="network", confidence=0.93),
    measured("marker.idh.p", "probability of an IDH mutation", 0.07, "1", source="network", decimals=2),
    measured("marker.codeletion", "1p/19q status by imaging", "intact", source="network", confidence=0.97),
    measured("subtype.told", "subtype that the imaging pattern is most consistent with", "glioblastoma", source="network", confidence=0.9),
    measured("subtype.glioblastoma", "probability of glioblastoma", 0.9, "1", source="network", decimals=2),
)
OPEN = (
    measured(
        "marker.mgmt",
        "MGMT promoter status by imaging",
        "methylated",
        source="network",
        confidence=0.61,
        status=FactStatus.ABSTAINED,
        codes=(AbstainCode.LOW_CONFIDENCE,),
        reason="confidence 0.61 is below 0.80",
    ),
)
TISSUE = (
    measured("tissue.idh", "IDH status on tissue", "wildtype", source="clinician"),
    measured("tissue.codeletion", "1p/19q status on tissue", "intact", source="clinician"),
    measured("tissue.mgmt", "MGMT promoter status on tissue", "methylated", source="clinician"),
    measured("tissue.necrosis", "necrosis or microvascular proliferation on tissue", True, source="clinician"),
    measured("tissue.h3", "H3 alteration on tissue", False, source="clinician"),
)


def make_record(facts: Iterable[Fact] = (*MEASURES, *PREDICTIONS, *OPEN, *TISSUE), **changes: Any) -> CaseRecord:
    chosen = tuple(facts)
    ids = {fact.id for fact in chosen}
    values: dict[str, Any] = {
        "case": PSEUDONYM,
        "made_at": "2026-11-28T12:00:00Z",
        "facts": chosen,
        "abstentions": (
            (Abstention(code=AbstainCode.LOW_CONFIDENCE, reason="a marker is not confident enough", facts=("marker.mgmt",)),)
            if "marker.mgmt" in ids
            else ()
        ),
        "modalities_used": (Modality.T1, Modality.T1CE, Modality.FLAIR),
        "modalities_missing": (Modality.T2,),
        "accuracy": SubsetAccuracy(
            modalities=(Modality.T1, Modality.T1CE, Modality.FLAIR),
            sites=3,
            accuracy=Accuracy(
                dice={Region.WT: Figure(value=0.91, low=0.88, high=0.93, patients=40)}, auc={Task.IDH: Figure(value=0.94, patients=40)}
            ),
        ),
        "model": RecordModel(
            name="gmmas-glioma",
            version="run 12, round 40",
            weights_sha256="a" * 64,
            definition_digest="b" * 64,
            signed=True,
            calibrated=True,
            hospitals=5,
        ),
        "segmentation": RecordSegmentation(version=1, author="model", sha256="c" * 64),
        "inputs": {Modality.T1: "d" * 64, Modality.T1CE: "e" * 64, Modality.FLAIR: "f" * 64},
        "software": "gmmas-fed 0.1.0",
        "seconds": 41.5,
    }
    return CaseRecord(**(values | changes))


def sample_report(audience: Audience = Audience.CLINICIAN, **changes: Any) -> Report:
    return write_report(make_record(), audience=audience, on=ON, **changes)
