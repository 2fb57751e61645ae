"""Cross-site validation: every site measures every given model on its own held-out patients.

    for each model definition: who is there?   ->  for each of its models: EVALUATE  ->  matrix[model, site]

One message a site and model, through the same Grid, checks and event log as a run's evaluations; at a site it is an evaluation like any
other. So a model that one site trained alone can be held against the federated one where it was not trained. The requests have `rounds` 0,
by which a site's policy knows that nothing is trained. Every model but the first is compared with the first, patient by patient, by the
site, as long as its trainer remembers the first (gmmas_workflows.earlier_scores): not after a restart, nor for another model definition.
"""

import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

from flwr.serverapp import Grid

from gmmas_model.temperature_fit import merge_statistics
from gmmas_model.weights import Weights
from gmmas_schema.calibration import CalibrationQuery, CalibrationStatistics
from gmmas_schema.errors import FederationError, GmmasError, ReasonCode
from gmmas_schema.events import Event, EventKind
from gmmas_schema.messages import Action, TaskRequest
from gmmas_schema.model import ModelDefinition
from gmmas_schema.validation import HeadError, MatrixRow, ValidatedModel, ValidationMatrix
from gmmas_schema.vocabulary import Region, Task
from gmmas_workflows.scores import score_model
from server.calibration import statistics_of
from server.courier import Courier, Timing
from server.events import EventLog
from server.membership import Member, Roster
from server.questions import evaluations
from server.records import Outcome, SiteRecord
from server.replies import Enquiry
from server.validation_folder import ValidationFolder
from strategies.wire import Holdings

logger = logging.getLogger(__name__)

Publish = Callable[[ValidationFolder, ValidationMatrix], None]

_NEUTRAL: Final = 1.0


def validate_in_folder(
    grid: Grid,
    folder: ValidationFolder,
    *,
    publish: Publish = lambda _folder, _matrix: None,
    on_event: Callable[[Event], None] | None = None,
    timing: Timing | None = None,
) -> ValidationMatrix:
    """Do what is left of a validation while no other process works in its folder.

    Args:
        grid: the way to the nodes.
        folder: of the validation; a finished one is returned as it is.
        publish: draws and tracks the matrix; what goes wrong there is logged, and the matrix stays.
        on_event: is called with every event after it has been written.
        timing: clock and polling.

    Raises:
        GmmasError: too few sites, a model that cannot be read, or the folder is in use; the event log says so too.
    """
    with folder.hold():
        events = EventLog(folder.events_path, on_event=on_event)
        try:
            return _Validation(grid, folder, publish=publish, events=events, timing=timing or Timing()).finish()
        except Exception as error:
            code = error.code if isinstance(error, GmmasError) else ReasonCode.INTERNAL
            message = str(error) if isinstance(error, GmmasError) else f"{type(error).__name__}: {error}"
            logger.exception("the validation failed")
            events.emit(EventKind.RUN_FAILED, code=code, message=message)
            raise
        finally:
            events.close()


class _Validation:
    """A validation in progress."""

    def __init__(self, grid: Grid, folder: ValidationFolder, *, publish: Publish, events: EventLog, timing: Timing) -> None:
        self._folder, self._publish, self._events = folder, publish, events
        self._config = folder.config
        self._courier, self._holdings = Courier(grid, timing), Holdings()

    def finish(self) -> ValidationMatrix:
        """Ask what has not been asked yet, and write the matrix."""
        matrix, started = self._folder.read_matrix(), time.monotonic()
        if matrix is None:
            detail = {"run": self._folder.run, "name": "validation", "rounds": 0}
            self._events.emit(EventKind.RUN_STARTED, detail=detail)
            rows = {row.model.label: row for definition in self._definitions() for row in self._ask_about(definition)}
            matrix = ValidationMatrix(
                validation=self._folder.run,
                split=self._config.split,
                made_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                seconds=round(time.monotonic() - started, 1),
                rows=tuple(rows[model.label] for model in self._config.models),
            )
            self._folder.write_matrix(matrix)
        try:
            self._publish(self._folder, matrix)
        except Exception:  # a picture can be made again; the sites' answers are there
            logger.exception("the matrix could not be drawn or tracked")
        self._events.emit(EventKind.RUN_FINISHED, detail={"models": len(matrix.rows), "sites": len(matrix.sites)})
        return matrix

    def _definitions(self) -> list[ModelDefinition]:
        """Return the models' definitions, each once; a site is set up for one at a time."""
        found: list[ModelDefinition] = []
        for model in self._config.models:
            if model.definition not in found:
                found.append(model.definition)
        return found

    def _ask_about(self, definition: ModelDefinition) -> Iterable[MatrixRow]:
        """Yield the rows of the models of one definition."""
        models = [model for model in self._config.models if model.definition == definition]
        roster: Roster | None = None
        for model in models:
            row = self._folder.read_row(model)
            if row is None:
                roster = roster or Roster(self._courier, request=self._request(models[0], Action.DESCRIBE), events=self._events)
                members = self._wait(roster)
                self._folder.write_row(row := self._measure(model, members))
            yield row

    def _wait(self, roster: Roster) -> tuple[Member, ...]:
        return roster.wait_for(self._config.sites, timeout_s=self._config.join_deadline_s)

    def _measure(self, model: ValidatedModel, members: tuple[Member, ...]) -> MatrixRow:
        """Ask every member about one model.

        Raises:
            FederationError: too few gave figures (code QUORUM).
        """
        weights, config = self._folder.load_model(model), self._config
        grid, query = _calibration_query(weights)
        first = config.models[0]
        request = self._request(model, Action.EVALUATE).model_copy(
            update={"evaluate": config.split, "calibrate": query, "against": "" if model is first else self._run_of(first)}
        )
        enquiry = Enquiry(
            self._courier,
            events=self._events,
            request=request,
            tensors=weights.tensors,
            timeout_s=config.deadline_s,
            holdings=self._holdings,
        )
        sites = enquiry.ask(members, count=lambda _report, _tensors: None)
        row = _row_of(model, sites, weights, grid)
        if len(row.sites) < config.sites:
            raise _too_few(row, config.sites)
        self._events.emit(EventKind.MODEL_VALIDATED, round=model.round, detail={"label": model.label, "metrics": row.metrics})
        return row

    def _request(self, model: ValidatedModel, action: Action) -> TaskRequest:
        return TaskRequest(
            action=action,
            run=self._run_of(model),
            round=0 if action is Action.DESCRIBE else model.round,
            rounds=0,
            seed=self._config.seed,
            model=model.definition,
        )

    def _run_of(self, model: ValidatedModel) -> str:
        """Return what a site knows a model's evaluation by: one name a model, so that answers cannot be taken for each other's."""
        return f"{self._folder.run}-{model.weights[:12]}"


def _too_few(row: MatrixRow, sites: int) -> FederationError:
    return FederationError(
        "too few sites measured a model",
        where=f"model {row.model.label}",
        got=", ".join(f"{site}: {code}" for site, code in row.refused.items()) or "no figures",
        expected=f"figures of at least {sites} site{'s' if sites > 1 else ''}",
        remedy="see why with `gmmas status FOLDER --events`, mend it, and go on with `gmmas validate --resume`",
        code=ReasonCode.QUORUM,
    )


def _calibration_query(weights: Weights) -> tuple[tuple[float, ...], CalibrationQuery]:
    """Return the temperatures at which the likelihood is asked for, and the question: the model's own, and 1 where it has none."""
    grid = tuple(sorted({_NEUTRAL, *weights.temperatures.values()}))
    return grid, CalibrationQuery(grid=grid, temperatures=dict(weights.temperatures))


def _row_of(model: ValidatedModel, sites: tuple[SiteRecord, ...], weights: Weights, grid: tuple[float, ...]) -> MatrixRow:
    measured = evaluations(sites)
    score = score_model(measured, model_round=model.round, split=next(iter(measured.values())).split) if measured else None
    silent = [site for site in sites if site.outcome is not Outcome.ACCEPTED or site.evaluation is None]
    return MatrixRow(
        model=model,
        sites=dict(sorted(measured.items())),
        refused={site.site: site.code or ReasonCode.INTERNAL for site in silent},
        metrics=score.metrics if score is not None else {},
        score=score.score if score is not None else None,
        calibration=_errors(statistics_of(sites), weights, grid),
    )


def _errors(parts: list[CalibrationStatistics], weights: Weights, grid: tuple[float, ...]) -> dict[Region | Task, HeadError]:
    """Return the calibration of the model as it is used, over all sites; a single site's sums are kept by nobody."""
    found = {}
    merged, _ = merge_statistics(parts)
    for head, own in merged.items():
        place = grid.index(weights.temperatures.get(head, _NEUTRAL))
        bins = own.reliability.after if own.reliability is not None else None
        found[head] = HeadError(
            patients=own.patients,
            nll=own.nll[place] / own.patients if own.patients and own.nll else None,
            ece=None if bins is None else bins.ece,
            reliability_patients=0.0 if bins is None else round(bins.total, 6),
        )
    return found


def publish_matrix(folder: ValidationFolder, matrix: ValidationMatrix) -> None:
    """Draw the matrix and write it to MLflow."""
    from gmmas_workflows.matrix_figure import draw_matrix
    from server.validation_tracking import track_validation

    draw_matrix(matrix, folder.path)
    track_validation(folder, matrix)
