"""What single runs came to: where it lies, how it is read and kept, and why there is none.

<out>/<seed>/<arm>/               the run (server.checkpoint); experiment.json tells which, software.txt the commits that trained it
<out>/<seed>/<arm>.json           its result
<out>/<seed>/<arm>.failed.json    why there is none
<kept>/<seed>/<arm>.json.gz       a result that was made elsewhere or earlier (keep_result)
"""

import gzip
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from benchmarks.learning.cohorts import SeedCohorts
from benchmarks.learning.plan import Arm, Experiment, LearningPlan
from benchmarks.learning.scoring import CaseRow
from gmmas_runtime.files import write_atomic
from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import ConfigError
from gmmas_schema.messages import Target
from gmmas_schema.vocabulary import Split, Task

EXPERIMENT = "experiment.json"
"""What a run's folder is about: its federation alone does not tell who took part, of which patients, or what was done to the anchors."""
UNCOMMITTED = "-dirty"
"""Mark of software that is in no commit (benchmarks.software)."""


class ValidationPoint(FrozenModel):
    """Accuracy over the participants' validation patients after a round (server.scores)."""

    round: int
    score: float | None
    metrics: dict[str, float]


class ArmResult(FrozenModel):
    """What one arm with one seed came to.

    Attributes:
        software: commits that trained it, in their order, and the one that scored it if that is another; joined by commas.
        precision: in which its convolutions ran, which is the processor's choice.
        held_out: rows by held-out hospital and subset.
        own: rows by training hospital with segmentations and split, with the sequences the hospital has.
        curve: validation after each round.
        mib_down: sent to the participants over all rounds; `mib_up` received from them; 0 without a federation.
        seconds: wall time of the rounds, on a machine that did other things too.
        steps: optimiser steps made, over all participants.
        log_variance: of each task at the end.
        joined: the round in which pseudo-labels of a target first counted.
    """

    experiment: Experiment
    software: str
    precision: str = "unknown"
    held_out: dict[str, dict[str, tuple[CaseRow, ...]]]
    own: dict[str, dict[Split, tuple[CaseRow, ...]]]
    curve: tuple[ValidationPoint, ...]
    mib_down: float
    mib_up: float
    seconds: float
    steps: int
    log_variance: dict[Task, float]
    joined: dict[Target, int] = Field(default_factory=dict)

    @property
    def commits(self) -> tuple[str, ...]:
        """Return the commits of `software`."""
        return tuple(self.software.split(", "))


class Failure(FrozenModel):
    """Why a run ended without a result."""

    experiment: Experiment
    reason: str


class Missing(FrozenModel):
    """A run without a result.

    Attributes:
        state: `left out` is one that the call did not name.
        detail: why it failed, or how far it has come.
    """

    arm: str
    seed: int
    state: Literal["failed", "unfinished", "not run", "left out"]
    detail: str = ""


@dataclass(frozen=True, eq=False)
class Job:
    """One arm with one seed, in a folder.

    Attributes:
        software: commit of this installation.
        kept: folder of results that were made elsewhere or earlier (keep_result); None for none.
    """

    out: Path
    plan: LearningPlan
    arm: Arm
    seed: int
    software: str
    kept: Path | None = None

    @property
    def experiment(self) -> Experiment:
        """Return what is to be done."""
        return self.plan.experiment(self.arm, self.seed)

    @property
    def folder(self) -> Path:
        """Return the folder of the run."""
        return self.out / str(self.seed) / self.arm.name

    @property
    def result_path(self) -> Path:
        """Return the file of the result."""
        return self.folder.with_name(f"{self.arm.name}.json")

    @property
    def failure_path(self) -> Path:
        """Return the file that says why there is no result."""
        return self.folder.with_name(f"{self.arm.name}.failed.json")

    @property
    def kept_path(self) -> Path | None:
        """Return the file of the kept result, whether it is there or not."""
        return None if self.kept is None else self.kept / str(self.seed) / f"{self.arm.name}.json.gz"

    @property
    def cohorts(self) -> SeedCohorts:
        """Return the seed's hospitals."""
        return SeedCohorts(self.out / str(self.seed), self.plan.phantoms_of(self.seed))

    @property
    def has_begun(self) -> bool:
        """Tell whether the folder holds a run of this very experiment."""
        with suppress(FileNotFoundError, ValidationError):
            return Experiment.model_validate_json((self.folder / EXPERIMENT).read_bytes()) == self.experiment
        return False

    def state_of(self, site: str) -> Path:
        """Return the folder of what a hospital carries from round to round, if its plan has it carry anything."""
        return self.folder / "sites" / site

    def rounds_done(self) -> int:
        """Return the rounds that are on disk."""
        return max(0, sum(path.name.isdigit() for path in (self.folder / "rounds").glob("*")) - 1)


def read_result(job: Job) -> ArmResult | None:
    """Return the result of a job that is done; None where there is none, or one of another experiment.

    An experiment that was written before a key of the configuration existed is the same one where the key has its default.
    """
    for data in _results_of(job):
        with suppress(ValidationError):
            result = ArmResult.model_validate_json(data)
            if result.experiment == job.experiment:
                return result
    return None


def _results_of(job: Job) -> Iterator[bytes]:
    """Yield what may be a job's result: that of the working folder, then the kept one."""
    if job.result_path.is_file():
        yield job.result_path.read_bytes()
    if job.kept_path is not None and job.kept_path.is_file():
        yield gzip.decompress(job.kept_path.read_bytes())


def keep_result(job: Job) -> bool:
    """Put a result that is done into the folder of kept ones, where it goes on counting when the working folder is gone.

    Returns:
        Whether there is one, be it put there now or before.

    Raises:
        ConfigError: it was made with software that is in no commit, so that nobody could make it again.
    """
    result, path = read_result(job), job.kept_path
    if result is None or path is None:
        return False
    data = gzip.compress(result.model_dump_json().encode() + b"\n", mtime=0)
    if path.is_file() and path.read_bytes() == data:
        return True
    if UNCOMMITTED in result.software:
        raise ConfigError(
            "a result of software that is in no commit is not kept",
            where=f"arm {job.arm.name}, seed {job.seed}",
            got=result.software,
            expected="commits without changes beside them",
            remedy="commit the changes and run it anew (--fresh)",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, data, mode=0o644)
    return True


def discard(job: Job) -> None:
    """Delete a job's run and result, the kept one too, so that it is done anew."""
    for path in (job.result_path, job.failure_path, job.kept_path):
        if path is not None:
            path.unlink(missing_ok=True)
    shutil.rmtree(job.folder, ignore_errors=True)


def why_missing(job: Job) -> Missing:
    """Return why a job has no result, as far as its folder tells."""
    with suppress(FileNotFoundError, ValidationError):
        failure = Failure.model_validate_json(job.failure_path.read_bytes())
        if failure.experiment == job.experiment:
            return Missing(arm=job.arm.name, seed=job.seed, state="failed", detail=failure.reason)
    if job.has_begun:
        done = f"{job.rounds_done()} of {job.experiment.federation.rounds} rounds"
        return Missing(arm=job.arm.name, seed=job.seed, state="unfinished", detail=done)
    return Missing(arm=job.arm.name, seed=job.seed, state="not run")


def name_runs(runs: Iterable[tuple[str, int]]) -> str:
    """Return arms with their seeds in words: ``few` 101, 102; `semi` 103``."""
    seeds: dict[str, list[str]] = {}
    for arm, seed in runs:
        seeds.setdefault(arm, []).append(str(seed))
    return "; ".join(f"`{arm}` {', '.join(of_arm)}" for arm, of_arm in seeds.items())
