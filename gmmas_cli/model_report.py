"""What `gmmas model` shows: versions of the registry, the findings of a gate, and two models side by side."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from gmmas_schema.errors import ConfigError, ModelError
from gmmas_schema.promotion import GateFinding, Verdict
from gmmas_schema.validation import MatrixRow, ValidatedModel, ValidationMatrix
from gmmas_schema.vocabulary import MARKER_NAMES, REGIONS, Split
from server.promotion import Assessment
from server.records import RunResult
from server.registry import ModelVersion, Registry
from server.validation_folder import MATRIX
from server.wording import format_metrics

_STYLES: Final = {Verdict.HOLDS: "green", Verdict.FAILS: "bold red", Verdict.NOT_JUDGED: "yellow"}
_METRICS: Final = {f"dice_{r}": f"Dice {r.upper()}" for r in REGIONS} | {
    f"auc_{task}": f"AUC {name}" for task, name in MARKER_NAMES.items()
}


@dataclass(frozen=True)
class Comparison:
    """Two models at every site.

    Attributes:
        matrix: with two rows.
        validated: whether both were measured in one validation.
        told: where the figures come from.
    """

    matrix: ValidationMatrix
    validated: bool
    told: str


def versions_table(versions: list[ModelVersion]) -> Table:
    """Return the versions of a registry, the newest first."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("version", "aliases", "made (UTC)", "round", "weights", "validation"):
        table.add_column(column, justify="right" if column == "round" else "left", overflow="fold")
    for own in versions:
        aliases = Text(", ".join(own.aliases), style="green" if set(own.aliases) - {"best", "last"} else "")
        shown = format_metrics(own.metrics)
        table.add_row(f"{own.name}/{own.version}", aliases, f"{own.made_at:%Y-%m-%d %H:%M}", str(own.round), own.weights[:12], shown)
    return table


def gate_table(assessment: Assessment, alias: str) -> Table:
    """Return what the gate found, failures first."""
    champion = "nobody" if assessment.champion is None else assessment.champion.address
    table = Table(
        title=f"{assessment.candidate.address} for {alias}, against {champion}", title_justify="left", box=SIMPLE_HEAD, pad_edge=False
    )
    for column, justify in (("check", "left"), ("hospital", "left"), ("before", "right"), ("after", "right"), ("difference", "right")):
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("verdict", overflow="fold")
    order = {Verdict.FAILS: 0, Verdict.NOT_JUDGED: 1, Verdict.HOLDS: 2}
    for found in sorted(assessment.findings, key=lambda f: order[f.verdict]):
        verdict = Text(str(found.verdict), style=_STYLES[found.verdict])
        if found.note:
            verdict.append(f": {found.note}", style="dim")
        table.add_row(
            _METRICS.get(found.subject, found.subject),
            found.site,
            _number(found.champion),
            _number(found.candidate),
            _difference(found),
            verdict,
        )
    if any(found.low is not None and not found.paired for found in assessment.findings):
        table.caption = "intervals marked ~ are those of unrelated means, wider than on the same patients"
    return table


def find_comparison(registry: Registry, versions: tuple[ModelVersion, ModelVersion], *, evidence: Path | None) -> Comparison:
    """Return two versions at every site.

    Raises:
        ModelError: neither a validation nor their own runs measured both.
    """
    digests = [own.weights for own in versions]
    matrix = read_evidence(evidence) if evidence is not None else next(registry.matrices(digests), None)
    rows = [] if matrix is None else [row for digest in digests if (row := matrix.row_of(digest)) is not None]
    if matrix is not None and len(rows) == len(versions):
        told = f"{matrix.validation} of {matrix.made_at}: both on the same patients"
        return Comparison(matrix.model_copy(update={"rows": tuple(rows)}), True, told)
    own = [row for version in versions if (row := _own_test(registry, version)) is not None]
    if len(own) < len(versions):
        raise ModelError(
            "these models were not measured side by side",
            where=registry.uri.rpartition("@")[2],
            got="no validation with both, and not both were tested by their runs",
            expected="a validation, or the best models of two runs",
            remedy=f"gmmas validate {versions[0].address} {versions[1].address} --out FOLDER --tracking-uri STORE",
        )
    told = "from the tests of their own runs: hospitals and patients need not be the same; `gmmas validate` measures both on the same"
    made = ValidationMatrix(validation="own tests", split=Split.TEST, made_at="", seconds=0, rows=tuple(own))
    return Comparison(made, False, told)


def read_evidence(path: Path) -> ValidationMatrix:
    """Return the matrix in a file, or in the folder of a validation.

    Raises:
        ConfigError: there is none.
    """
    file = path / MATRIX if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(
            "this is no validation",
            where=path,
            got=f"no {MATRIX}",
            expected="the folder of a finished `gmmas validate`",
            remedy="go on with it by --resume, or name another",
        )
    return ValidationMatrix.from_yaml(file)


def draw_comparison(matrix: ValidationMatrix, picture: Path) -> None:
    """Write the picture of a comparison."""
    from gmmas_workflows.matrix_figure import draw_matrix

    picture.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=picture.parent) as scratch:
        draw_matrix(matrix, Path(scratch)).replace(picture)


def comparison_links(registry: Registry, versions: tuple[ModelVersion, ModelVersion]) -> list[str]:
    """Return how MLflow's pages show both runs beside each other: addresses on a server, else the command that serves the store."""
    runs = ",".join(f'"{own.run}"' for own in versions)
    experiments = ",".join(f'"{each}"' for each in dict.fromkeys(registry.experiment_of(own.run) for own in versions))
    path = f"#/compare-runs?runs={quote(f'[{runs}]')}&experiments={quote(f'[{experiments}]')}"
    if registry.uri.startswith(("http://", "https://")):
        return [f"  MLflow     {registry.uri.rpartition('@')[2].rstrip('/')}/{path}"]
    return [f"  MLflow     mlflow ui --backend-store-uri {registry.uri} --host 127.0.0.1", f"             http://127.0.0.1:5000/{path}"]


def _own_test(registry: Registry, version: ModelVersion) -> MatrixRow | None:
    """Return a version's row from the test of its own run, if it is the model that the run tested."""
    content = registry.artifact(version.run, "result.json")
    resolved = registry.artifact(version.run, "federation.json")
    if content is None or resolved is None:
        return None
    result = RunResult.parse(content, where=f"MLflow run {version.run}")
    if result.test is None or result.best_sha256 != version.weights:
        return None
    return MatrixRow(
        model=ValidatedModel(
            label=f"{version.name}-{version.version}",
            source=version.address,
            weights=version.weights,
            definition=resolved["model"],
            run=result.run,
            round=version.round,
        ),
        sites=result.test.sites,
        metrics=result.test.metrics,
        score=result.test.score,
    )


def _difference(found: GateFinding) -> str:
    if found.difference is None:
        return ""
    text = f"{found.difference:+.3f}"
    if found.low is not None and found.high is not None:
        text += f"\n{'' if found.paired else '~'}[{found.low:+.2f}, {found.high:+.2f}]"
    return text


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
