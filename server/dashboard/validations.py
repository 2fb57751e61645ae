"""The pages of cross-site validations: which there are, and each as tables and as its picture; the same for programs."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from gmmas_schema.errors import ConfigError, GmmasError
from gmmas_schema.events import EventKind
from gmmas_schema.validation import ValidationMatrix
from server.dashboard.desk import NoSuchRunError
from server.dashboard.gate import ReadRoute
from server.dashboard.matrices import calibration_rows, matrix_tables, refusals
from server.dashboard.pages import desk_of, render
from server.events import EVENTS_FILE, events_after
from server.folder import CoordinatorFolder
from server.run_register import known_validations
from server.submission import is_at_work
from server.validation_folder import PICTURE, ValidationFolder

router = APIRouter(route_class=ReadRoute)

_ENDS: Final = frozenset({EventKind.RUN_FAILED, EventKind.RUN_FINISHED})


@dataclass(frozen=True)
class ValidationSummary:
    """One line of the list.

    Attributes:
        state: finished, at work, failed or stopped.
        made_at: when the matrix was made (UTC, ISO 8601); empty before.
        sites: hospitals that measured a model.
    """

    key: str
    folder: str
    state: str
    split: str
    models: tuple[str, ...]
    made_at: str
    sites: int


@router.get("/validations")
def show_validations(request: Request) -> Response:
    """Show all validations, the newest first; without any, how to begin one."""
    folder = desk_of(request).folder
    return render(request, "validations.html", validations=_summaries(folder), folder=folder.path)


@router.get("/validations/{key}")
def show_validation(request: Request, key: str) -> Response:
    """Show every model at every hospital."""
    validation = _open(request, key)
    matrix = validation.read_matrix()
    rows = () if matrix is None else matrix.rows
    return render(
        request,
        "validation.html",
        summary=_summary(key, validation, matrix),
        config=validation.config,
        matrix=matrix,
        tables=[] if matrix is None else matrix_tables(matrix),
        refusals=[] if matrix is None else refusals(matrix),
        calibration=calibration_rows(rows),
        has_picture=(validation.path / PICTURE).is_file(),
        path=validation.path,
    )


@router.get("/validations/{key}/matrix.png")
def show_picture(request: Request, key: str) -> Response:
    """Return the picture of a validation."""
    picture = _open(request, key).path / PICTURE
    if not picture.is_file():
        raise NoSuchRunError(
            "this validation has no picture",
            where=picture.parent,
            got=f"no {PICTURE}",
            expected="a finished validation",
            remedy="wait for its end, or go on with it: gmmas validate --resume",
        )
    return FileResponse(picture, media_type="image/png")


@router.get("/api/validations")
def list_validations(request: Request) -> Response:
    """Return all validations, the newest first."""
    return JSONResponse([asdict(summary) for summary in _summaries(desk_of(request).folder)])


@router.get("/api/validations/{key}")
def tell_validation(request: Request, key: str) -> Response:
    """Return one validation: for every metric and model a figure per hospital."""
    validation = _open(request, key)
    matrix = validation.read_matrix()
    told = asdict(_summary(key, validation, matrix)) | {"sites": [] if matrix is None else list(matrix.sites), "metrics": {}}
    for table in [] if matrix is None else matrix_tables(matrix):
        told["metrics"][table.metric] = {
            model: {"mean": table.means[model], "sites": dict(zip(told["sites"], map(asdict, cells), strict=True))}
            for model, cells in table.rows.items()
        }
    return JSONResponse(told)


def _open(request: Request, key: str) -> ValidationFolder:
    path = known_validations(desk_of(request).folder).get(key)
    if path is None:
        raise NoSuchRunError(
            "there is no such validation",
            where=desk_of(request).folder.path,
            got=key,
            expected="a validation of this coordinator",
            remedy="choose one from the list of validations",
        )
    return ValidationFolder.open(path)


def _summaries(folder: CoordinatorFolder) -> list[ValidationSummary]:
    """Return those that can be read, the newest first."""
    found = []
    for key, path in reversed(known_validations(folder).items()):
        try:
            validation = ValidationFolder.open(path)
            found.append(_summary(key, validation, validation.read_matrix()))
        except GmmasError:
            continue
    return found


def _summary(key: str, validation: ValidationFolder, matrix: ValidationMatrix | None) -> ValidationSummary:
    return ValidationSummary(
        key=key,
        folder=validation.path.name,
        state="finished" if matrix is not None else _state(validation.path),
        split=str(validation.config.split),
        models=tuple(model.label for model in validation.config.models),
        made_at="" if matrix is None else matrix.made_at,
        sites=0 if matrix is None else len(matrix.sites),
    )


def _state(path: Path) -> str:
    """Return how an unfinished validation stands."""
    try:
        if is_at_work(path):
            return "at work"
    except ConfigError:
        return "stopped"
    ends = [event.kind for _, event in events_after(path / EVENTS_FILE, 0, kinds=_ENDS)]
    return "failed" if ends and ends[-1] is EventKind.RUN_FAILED else "stopped"
