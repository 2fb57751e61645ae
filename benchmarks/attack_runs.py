"""The runs of benchmarks/attacks.py: each attack under each defence, on the patients of one seed."""

import shutil
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal
from unittest import mock

from pydantic import ValidationError

from benchmarks.attack_table import HONEST, Cell
from benchmarks.hostile_sites import FORMS, make_site
from benchmarks.learning.cohorts import SeedCohorts
from gmmas_data.samples import Sample
from gmmas_model.network import GmmasNetwork
from gmmas_model.precision import native_bf16
from gmmas_model.prediction import Prediction
from gmmas_model.weights import load_tensors
from gmmas_runtime.files import write_atomic
from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import GmmasError, ReasonCode
from gmmas_schema.federation import FederationConfig
from gmmas_schema.phantom import PhantomSpec
from gmmas_schema.site import SplitConfig
from gmmas_schema.vocabulary import MODALITIES, Region
from gmmas_workflows.evaluation import score_samples, threshold
from server.checkpoint import RunFolder
from server.records import Outcome
from server.simulation import NoTracker, simulate

HELD_OUT: Final = "held-out"
DEADLINE_S: Final = 7 * 86400.0
FAILURE: Final = ".failure.txt"

DEFENCES: Final[dict[str, dict[str, Any]]] = {
    "no checks": {"norm_limit": None},
    "norm limit 10": {"norm_limit": 10.0},
    "default": {},
    "cosine": {"cosine_limit": -0.02},
    "clipped": {"clip": {"kind": "median", "multiple": 1.0}},
    "trimmed": {"combine": {"kind": "trimmed", "share": 0.2}},
    "median": {"combine": {"kind": "median"}},
}
"""The `robustness` block of each column."""

SCANNERS: Final = ("research-3t", "clinical-1.5t", "clinical-3t", "mixed-3t", "old-1.5t", "research-3t")


class Size(FrozenModel):
    """How large the benchmark is.

    Attributes:
        cases: patients of each training hospital; `unseen` of the held-out one.
        federation: the common run.
        split: of each training hospital.
    """

    cases: int
    unseen: int
    spacing_mm: float
    federation: FederationConfig
    split: SplitConfig

    def phantoms(self, seed: int) -> PhantomSpec:
        """Return the hospitals of a seed."""
        sites = [{"name": f"site-{number}", "cases": self.cases, "scanner": scanner} for number, scanner in enumerate(SCANNERS, start=1)]
        held_out = {"name": HELD_OUT, "cases": self.unseen, "scanner": "clinical-3t"}
        return PhantomSpec.model_validate({"seed": seed, "spacing_mm": self.spacing_mm, "sites": [*sites, held_out]})


def _federation(**changes: Any) -> FederationConfig:
    quorum = {"sites": len(SCANNERS), "replies": 2, "round_attempts": 1, "join_deadline_s": DEADLINE_S, "round_deadline_s": DEADLINE_S}
    return FederationConfig.model_validate({"name": "bench-attacks", "calibration": None, "quorum": quorum} | changes)


FULL: Final = Size(
    cases=16,
    unseen=16,
    spacing_mm=2.0,
    split=SplitConfig(validation=0.15, test=0.0),
    federation=_federation(
        rounds=16,
        model={"network": {"channels": [8, 16, 32], "blocks": [1, 1, 1]}, "grid": {"spacing_mm": 5.0, "shape": [32, 40, 32]}},
        training={"local_steps": 16, "learning_rate": 0.003, "warmup_steps": 24, "modality_dropout": 0.25},
    ),
)
QUICK: Final = Size(
    cases=2,
    unseen=1,
    spacing_mm=4.0,
    split=SplitConfig(validation=0.5, test=0.0),
    federation=_federation(
        rounds=2,
        model={
            "network": {"channels": [2, 4], "blocks": [1, 1], "transformer_layers": 1, "transformer_heads": 2},
            "grid": {"spacing_mm": 8.0, "shape": [16, 20, 16]},
        },
        training={"local_steps": 1, "warmup_steps": 1},
    ),
)


def pairs(attacks: Sequence[str], defences: Sequence[str]) -> list[tuple[str, str]]:
    """Return the cells of the table: what checks of form stop needs no more than those."""
    return [(attack, defence) for attack in attacks for defence in defences if attack not in FORMS or defence in {"no checks", "default"}]


class Bench:
    """The cells of one seed.

    Args:
        out: working folder.
        size: FULL or QUICK.
        seed: of patients, start and draws.
        kept: cells that were done elsewhere or earlier; they count where the working folder has none.
    """

    def __init__(self, out: Path, size: Size, seed: int, *, kept: Sequence[Cell] = ()) -> None:
        self._size, self._seed, self._folder = size, seed, out / str(seed)
        self._kept = {cell.name: cell for cell in kept}
        self._phantoms = size.phantoms(seed)
        self._cohorts = SeedCohorts(self._folder, self._phantoms)
        self._grid = size.federation.model.grid

    def prepare(self, *, processes: int) -> None:
        """Make the patients, where they are not there yet."""
        self._cohorts.make([self._grid], processes=processes, on_scan=lambda *_: None, on_sample=lambda *_: None)

    def config(self, defence: str) -> FederationConfig:
        """Return the run of a column."""
        raw = self._size.federation.model_dump(mode="json")
        return FederationConfig.parse(raw | {"seed": self._seed, "robustness": DEFENCES[defence]}, where=f"defence {defence}")

    def read(self, attack: str, defence: str) -> Cell | None:
        """Return a cell that is done, as it would be done now."""
        as_now = (self.config(defence), self._phantoms.digest())
        found = (self._read_own(attack, defence), self._kept.get(self.name(attack, defence)))
        return next((cell for cell in found if cell is not None and (cell.federation, cell.cohorts) == as_now), None)

    def _read_own(self, attack: str, defence: str) -> Cell | None:
        with suppress(FileNotFoundError, ValidationError):
            return Cell.model_validate_json(self._path(attack, defence).with_suffix(".json").read_bytes())
        return None

    def discard(self, attack: str, defence: str) -> None:
        """Delete a cell of the working folder."""
        self._path(attack, defence).with_suffix(".json").unlink(missing_ok=True)

    def name(self, attack: str, defence: str) -> str:
        """Return the name of a cell, as Cell has it."""
        return f"{attack}, {defence}, seed {self._seed}"

    def why_not(self, attack: str, defence: str) -> str:
        """Return in one line why a cell has no result."""
        path = self._path(attack, defence).with_suffix(FAILURE)
        return f"failed: {path.read_text().strip()}" if path.exists() else "not run"

    def try_to_run(self, attack: str, defence: str, *, software: str) -> bool:
        """Do a cell as `run` does, and keep the reason where there is no result; returns whether there is one."""
        failure = self._path(attack, defence).with_suffix(FAILURE)
        failure.unlink(missing_ok=True)
        try:
            self.run(attack, defence, software=software)
        except Exception as error:
            traceback.print_exc()
            failure.write_text(_in_a_line(error) + "\n")
            return False
        return True

    def run(self, attack: str, defence: str, *, software: str) -> Cell:
        """Do a cell from its beginning and keep its result.

        Raises:
            Exception: whatever ended the run, if no attack can have done it.
        """
        path, config = self._path(attack, defence), self.config(defence)
        shutil.rmtree(path, ignore_errors=True)
        folder, ended = RunFolder.create(path, config, run=f"bench-{self._seed}"), ""
        names = [site.name for site in self._phantoms.sites if site.name != HELD_OUT]
        samples = {name: self._cohorts.split_samples(name, self._grid, self._size.split) for name in names}
        bad = names[-1]
        sites = [make_site(config.model, samples[name], site=name, attack=attack if name == bad else HONEST) for name in names]
        with _without_checks(defence == "no checks"):
            try:
                simulate(folder, dict(zip(names, sites, strict=True)), tracker=NoTracker())
            except Exception as error:  # a run that an attack breaks is a result, one that never began or that the machine broke is not
                if attack == HONEST or not folder.finished_rounds() or _is_the_machines(error):
                    raise
                ended = _in_a_line(error)
        records = folder.read_records()
        dice, outlined = self._score(folder, len(records)) if len(records) == config.rounds else ({}, 0)
        refused = [site.site for record in records for site in record.sites if site.outcome is Outcome.REFUSED]
        cell = Cell(
            attack=attack,
            defence=defence,
            seed=self._seed,
            federation=config,
            cohorts=self._phantoms.digest(),
            software=software,
            precision=_precision(config),
            rounds=len(records),
            ended=ended,
            patients=tuple(sample.case_id for sample in self._unseen()),
            dice=dice,
            outlined=outlined,
            bad_refused=refused.count(bad) if attack != HONEST else 0,
            good_refused=len(refused) - (refused.count(bad) if attack != HONEST else 0),
            seconds=sum(record.seconds for record in records),
        )
        write_atomic(path.with_suffix(".json"), cell.model_dump_json(indent=1).encode() + b"\n", mode=0o644)
        return cell

    def _unseen(self) -> Sequence[Sample]:
        return self._cohorts.samples(HELD_OUT, self._grid)

    def _score(self, folder: RunFolder, rounds: int) -> tuple[dict[Region, dict[str, float]], int]:
        """Return Dice of a round's model per region of the held-out patients who have it, and in how many it outlines anything."""
        network = GmmasNetwork(folder.config.model.network, modalities=MODALITIES)
        load_tensors(network, folder.load_round(rounds).tensors)
        outlined: list[bool] = []

        def look(_: Sample, prediction: Prediction) -> None:
            outlined.append(bool(threshold(prediction.region_probability()[0].cpu().numpy()).any()))

        scores = score_samples(network, self._unseen(), observe=look)
        dice = {region: {score.case_id: round(score.dice[region], 5) for score in scores if region in score.visible} for region in Region}
        return dice, sum(outlined)

    def _path(self, attack: str, defence: str) -> Path:
        return self._folder / f"{attack}--{defence.replace(' ', '-')}"


def _precision(config: FederationConfig) -> Literal["bf16", "fp32"]:
    """Return what the forward passes run in on this machine."""
    return "bf16" if config.training.precision == "bf16" or (config.training.precision == "auto" and native_bf16("cpu")) else "fp32"


def _in_a_line(error: Exception) -> str:
    text = error.brief() if isinstance(error, GmmasError) else " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}"


def _is_the_machines(error: Exception) -> bool:
    """Tell a full disk or memory from what an attack does."""
    return isinstance(error, OSError | MemoryError) or getattr(error, "code", None) in {ReasonCode.DISK, ReasonCode.OUT_OF_MEMORY}


@contextmanager
def _without_checks(active: bool) -> Iterator[None]:
    """Let every reply through while the context lasts, if asked to."""
    if not active:
        yield
        return
    with (
        mock.patch("server.replies.check_reply", return_value=None),
        mock.patch("strategies.aggregation.check_magnitude", return_value=None),
    ):
        yield
