"""One arm with one seed: train it through the real round loop, score its last model, write the result. Interrupted, it goes on.

A federated arm is server.simulation with one InProcessSite a hospital. A pooled arm is the same with a single site that holds
every case, whose update is taken over as it is: so both share schedule, checkpoints, readiness and validation, and differ only in where
the cases are. The model judged is that of the last round, for every arm alike: choosing by validation would favour noisy arms.

The run's folder names the commits that trained it, one a line in their order: the software may change while a run is interrupted.
"""

import logging
import shutil
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path

import numpy as np

from benchmarks.learning.cohorts import leave_undrawn
from benchmarks.learning.controls import ScrambledTrainer, ZeroFilledNetwork, ZeroFillingTrainer, scramble_anchors
from benchmarks.learning.plan import Experiment
from benchmarks.learning.results import EXPERIMENT, ArmResult, Failure, Job, ValidationPoint, read_result
from benchmarks.learning.scoring import CaseRow, score_every_subset, score_shown
from client.in_process import InProcessSite
from gmmas_model.network import GmmasNetwork
from gmmas_model.precision import native_bf16
from gmmas_model.weights import load_tensors
from gmmas_runtime.files import write_atomic
from gmmas_runtime.worker import end_with_parent
from gmmas_schema.errors import ConfigError
from gmmas_schema.messages import Target
from gmmas_schema.vocabulary import MODALITIES, Modality, Split, Task
from gmmas_workflows.personalised import PersonalNorms
from gmmas_workflows.training import LocalTrainer
from server.checkpoint import RunFolder
from server.records import RoundRecord
from server.simulation import NoTracker, simulate
from strategies.exchange import tensors_down

SCORED = (Split.VALIDATION, Split.TEST)
SOFTWARE = "software.txt"
UNKNOWN = "unknown"
"""Stands for the commits of rounds that were trained before a run's folder named them."""


def run_job(job: Job) -> str:
    """Do a job, or what is left of it.

    Returns:
        Nothing, or why it failed: one failed arm does not end the benchmark.
    """
    if read_result(job) is not None:
        return ""
    end_with_parent()
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    job.failure_path.unlink(missing_ok=True)
    with _log_to(job.folder.with_suffix(".log")):
        try:
            result = _train_and_score(job)
        except Exception as error:
            logging.getLogger(__name__).exception("arm %s, seed %d", job.arm.name, job.seed)
            reason = "".join(traceback.format_exception_only(error)).strip()
            failure = Failure(experiment=job.experiment, reason=reason)
            write_atomic(job.failure_path, failure.model_dump_json().encode() + b"\n", mode=0o644)
            return reason
    write_atomic(job.result_path, result.model_dump_json().encode() + b"\n", mode=0o644)
    return ""


def _train_and_score(job: Job) -> ArmResult:
    experiment = job.experiment
    config = experiment.federation
    folder = _open_run(job)
    _note_software(job, folder)
    trainers = make_trainers(job)
    sites = {trainer.site: InProcessSite(trainer, folder=job.state_of(trainer.site)) for trainer in trainers}
    run = simulate(folder, sites, tracker=NoTracker())
    held = {m for trainer in trainers for m in trainer.modalities}
    tensors = folder.load_round(config.rounds).tensors
    network = make_network(tensors, experiment, tuple(m for m in MODALITIES if m in held))
    records = [folder.read_record(number) for number in folder.finished_rounds() if number > 0]
    scores = [record.validation for record in records if record.validation is not None] + ([run.last] if run.last else [])
    federated = experiment.kind == "federated"
    return ArmResult(
        experiment=experiment,
        software=", ".join(dict.fromkeys((*(_trained_by(job) or (UNKNOWN,)), job.software))),
        precision="bf16" if native_bf16("cpu") else "fp32",
        held_out={site: _score_site(job, network, site) for site in job.plan.held_out},
        own={site.name: own for site in job.plan.training_sites if (own := _score_own(job, network, site.name))},
        curve=tuple(ValidationPoint(round=score.model_round, score=score.score, metrics=score.metrics) for score in scores),
        mib_down=sum(record.bytes_down for record in records) / 2**20 if federated else 0.0,
        mib_up=sum(record.bytes_up for record in records) / 2**20 if federated else 0.0,
        seconds=sum(record.seconds for record in records),
        steps=sum(site.steps for record in records for site in record.sites),
        log_variance={task: float(tensors[f"uncertainty.{task}"]) for task in Task if f"uncertainty.{task}" in tensors},
        joined=first_ready(records),
    )


def first_ready(records: Sequence[RoundRecord]) -> dict[Target, int]:
    """Return the first round in which each target was ready."""
    return {target: record.round for record in reversed(records) for target, ramp in record.ready.items() if ramp > 0}


def make_trainers(job: Job) -> list[LocalTrainer]:
    """Return the trainer of each node: one a participant, or one with the cases of all."""
    experiment, cohorts = job.experiment, job.cohorts
    definition = experiment.federation.model
    samples = {name: cohorts.split_samples(name, definition.grid, experiment.split) for name in experiment.participants}
    samples = {name: split | {Split.TRAIN: leave_undrawn(split[Split.TRAIN], experiment.drawn)} for name, split in samples.items()}
    if experiment.kind == "pooled":
        samples = {"pooled": {part: tuple(s for split in samples.values() for s in split[part]) for part in Split}}
    trainer = ZeroFillingTrainer if experiment.zero_fill else ScrambledTrainer if experiment.scramble_anchors else LocalTrainer
    return [
        trainer(definition, split, modalities=MODALITIES, site=name, device="cpu", threads=1, folder=job.state_of(name))
        for name, split in samples.items()
    ]


def make_network(tensors: Mapping[str, np.ndarray], experiment: Experiment, modalities: tuple[Modality, ...]) -> GmmasNetwork:
    """Return the network of the sequences that somebody trained; an encoder nobody trained would only add noise."""
    kind = ZeroFilledNetwork if experiment.zero_fill else GmmasNetwork
    network = kind(experiment.federation.model.network, modalities=modalities)
    tensors = scramble_anchors(tensors) if experiment.scramble_anchors else tensors
    load_tensors(network, tensors_down(tensors, modalities=modalities))
    return network


def _open_run(job: Job) -> RunFolder:
    """Return the folder of the run, emptied where it holds another experiment's.

    All arms of a seed have the same run name, from which the sites draw: the same patients in the same order, augmented alike.
    """
    experiment = job.experiment
    with suppress(ConfigError):
        if job.has_begun:
            return RunFolder.open(job.folder)
    # The kept result stays: it may be what the arm was before, and will be again.
    job.result_path.unlink(missing_ok=True)
    shutil.rmtree(job.folder, ignore_errors=True)
    folder = RunFolder.create(job.folder, experiment.federation, run=f"bench-{job.seed}")
    write_atomic(job.folder / EXPERIMENT, experiment.model_dump_json(indent=1).encode() + b"\n", mode=0o644)
    return folder


def _note_software(job: Job, folder: RunFolder) -> None:
    """Add the commit of this installation to those that trained the run, if rounds are left to train and it is not the last of them."""
    done = max(folder.finished_rounds(), default=0)
    noted = _trained_by(job) or ((UNKNOWN,) if done > 0 else ())
    if done < job.experiment.federation.rounds and noted[-1:] != (job.software,):
        write_atomic(job.folder / SOFTWARE, "".join(f"{commit}\n" for commit in (*noted, job.software)).encode(), mode=0o644)


def _trained_by(job: Job) -> tuple[str, ...]:
    """Return the commits that trained the run; none where its folder does not tell."""
    with suppress(FileNotFoundError):
        return tuple((job.folder / SOFTWARE).read_text(encoding="utf-8").split())
    return ()


def _score_site(job: Job, network: GmmasNetwork, site: str) -> dict[str, tuple[CaseRow, ...]]:
    samples = job.cohorts.samples(site, job.experiment.federation.model.grid)
    return score_every_subset(network, samples, surfaces=job.arm.surfaces)


def _score_own(job: Job, network: GmmasNetwork, site: str) -> dict[Split, tuple[CaseRow, ...]]:
    """Return rows of a training hospital's validation and test patients that have a segmentation, with the sequences it has.

    In a personalised run the hospital looks at them with its own norms.
    """
    federation = job.experiment.federation
    if federation.training.personalised == "norms":
        network = deepcopy(network)
        norms = PersonalNorms(site, federation.model, folder=job.state_of(site))
        norms.put_in(network, run=RunFolder.open(job.folder).run, round=federation.rounds + 1)
    split = job.cohorts.split_samples(site, job.experiment.federation.model.grid, job.plan.split)
    labelled = {part: [sample for sample in split[part] if sample.regions_RXYZ is not None] for part in SCORED}
    return {part: score_shown(network, kept, MODALITIES) for part, kept in labelled.items() if kept}


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Write what is logged to a file, instead of over the progress bar."""
    handler = logging.FileHandler(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    handler.setLevel(logging.WARNING)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
