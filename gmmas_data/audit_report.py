"""The audit as one HTML file that asks nothing of any network, and as JSON. Both name cases and stay at the site."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape

from gmmas_runtime.files import make_private_folder, write_atomic
from gmmas_schema.audit import AuditAggregate, CohortAudit, Finding, FindingKind
from gmmas_schema.vocabulary import MARKER_NAMES, MODALITIES, Modality, Region, Task

SHOWN_PICTURES = 60
"""Pictures in the report, cases with findings first; the others lie in the audit's folder."""

SERIOUS = frozenset(
    {
        FindingKind.UNREADABLE,
        FindingKind.SEQUENCE_DIFFERS,
        FindingKind.NOT_STRIPPED,
        FindingKind.SAME_VOXELS,
        FindingKind.LABEL_OUTSIDE,
        FindingKind.NO_ENHANCEMENT,
        FindingKind.SIDE_DIFFERS,
        FindingKind.DUPLICATE,
        FindingKind.MIRRORED,
    }
)
"""Findings that would teach the network something wrong; the others are to be looked at."""

_TASK_NAMES = {Task.SEGMENTATION: "segmentation", **MARKER_NAMES}


def write_report(folder: Path, audit: CohortAudit, aggregate: AuditAggregate, pictures: Mapping[str, Path]) -> Path:
    """Write report.html and report.json into a folder (rights 0700) and return the path of the former."""
    make_private_folder(folder)
    write_atomic(folder / "report.json", audit.model_dump_json(indent=1).encode())
    path = folder / "report.html"
    write_atomic(path, render_report(audit, aggregate, pictures).encode())
    return path


def render_report(audit: CohortAudit, aggregate: AuditAggregate, pictures: Mapping[str, Path]) -> str:
    """Return the report as HTML."""
    environment = Environment(
        loader=PackageLoader("gmmas_data", "report_files"), autoescape=select_autoescape(default=True), trim_blocks=True
    )
    order = sorted(audit.cases, key=lambda case: (-_weight(case.findings), case.case_id))
    shown = [case.case_id for case in order if case.case_id in pictures][:SHOWN_PICTURES]
    return environment.get_template("audit.html.j2").render(
        audit=audit,
        cases=order,
        patients=len({case.patient_id for case in audit.cases}),
        refused=sum(bool(case.fault) for case in audit.cases),
        flagged=sum(bool(case.findings) for case in audit.cases),
        seconds=sum(case.seconds for case in audit.cases) / max(len(audit.cases), 1),
        findings=Counter(
            finding.kind for case in audit.cases for finding in {one.kind: one for one in case.findings}.values()
        ).most_common(),
        serious=SERIOUS,
        modalities=MODALITIES,
        regions=tuple(Region),
        verdicts=_verdicts(audit),
        table=_table(audit),
        aggregate=aggregate,
        pictures={case_id: base64.b64encode(pictures[case_id].read_bytes()).decode() for case_id in shown},
        pictured=len(pictures),
    )


def _weight(findings: Sequence[Finding]) -> int:
    return 100 * sum(finding.kind in SERIOUS for finding in findings) + len(findings)


def _verdicts(audit: CohortAudit) -> list[tuple[Modality, dict[str, int]]]:
    """Return per sequence how many scans have each verdict."""
    return [
        (modality, dict(Counter(case.scans[modality].verdict for case in audit.cases if modality in case.scans))) for modality in MODALITIES
    ]


def _table(audit: CohortAudit) -> tuple[list[str], list[tuple[str, list[int]]]]:
    """Return headings and rows of the sequence x label table."""
    columns = [(task, value) for task in _TASK_NAMES for value in ("positive", "negative") if f"{task}={value}" in audit.table]
    headings = [
        _TASK_NAMES[task] if task is Task.SEGMENTATION else f"{_TASK_NAMES[task]} {'+' if value == 'positive' else '-'}"
        for task, value in columns
    ]
    kinds = [name.removeprefix("sequences=") for name in audit.table if name.startswith("sequences=")]
    rows = [
        (kind, [audit.table[f"sequences={kind}"], *(audit.table[f"{task}={value}, sequences={kind}"] for task, value in columns)])
        for kind in kinds
    ]
    return ["cases", *headings], [*rows, ("all", [audit.table["cases"], *(audit.table[f"{task}={value}"] for task, value in columns)])]
