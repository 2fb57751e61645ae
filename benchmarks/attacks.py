"""What bad hospitals do to the model, with and without defences, and what defences cost where nobody is bad.

    python -m benchmarks.attacks            what is missing of the table, then the table in runs/bench-attacks
    python -m benchmarks.attacks --final    the table goes to benchmarks/results
    python -m benchmarks.attacks --quick    every step of it in seconds, on runs too small to measure anything

Hospitals of phantoms with every sequence and every label, so that each group has as many holders, train through the real round loop; the
last of them is bad. The model of the last round is scored on a held-out hospital, with all sequences. All cells of a seed share
patients, start and random draws. A cell that is done is kept; one that was interrupted begins anew, for a bad site has a memory.

`no checks` takes away even the checks of form and identity that every reply passes; it is what a bare average does.
"""

import argparse
import json
import math
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
from pydantic import ValidationError
from rich.console import Console
from rich.progress import track

from benchmarks.hostile_sites import ATTACKS, FORMS, make_site
from benchmarks.learning.cohorts import SeedCohorts
from benchmarks.software import commit
from gmmas_data.samples import Sample
from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import load_tensors
from gmmas_runtime.files import write_atomic
from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import ReasonCode
from gmmas_schema.federation import FederationConfig
from gmmas_schema.phantom import PhantomSpec
from gmmas_schema.site import SplitConfig
from gmmas_schema.vocabulary import MODALITIES, Region
from gmmas_workflows.evaluation import score_samples
from server.checkpoint import RunFolder
from server.records import Outcome
from server.simulation import NoTracker, simulate

ROOT: Final = Path(__file__).resolve().parents[1]
COMMITTED: Final = ROOT / "benchmarks" / "results"
HELD_OUT: Final = "held-out"
DEADLINE_S: Final = 7 * 86400.0

DEFENCES: Final[dict[str, dict[str, Any]]] = {
    "no checks": {"norm_limit": None},
    "default": {},
    "cosine": {"cosine_limit": 0.0},
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


class Cell(FrozenModel):
    """One attack under one defence.

    Attributes:
        federation: the run, defence included.
        cohorts: digest of the phantoms.
        software: commit that made it.
        rounds: rounds that were finished; fewer than planned where the run broke down.
        ended: why it broke down; empty where it did not.
        dice: mean over the held-out patients per region; 0 where the model says nothing that can be read.
        bad_refused: rounds in which the bad site was refused; `good_refused` replies of honest sites that were.
        seconds: wall time of the rounds.
    """

    attack: str
    defence: str
    seed: int
    federation: FederationConfig
    cohorts: str
    software: str
    rounds: int
    ended: str
    dice: dict[Region, float]
    bad_refused: int
    good_refused: int
    seconds: float

    @property
    def mean_dice(self) -> float:
        """Mean over the regions."""
        return sum(self.dice.values()) / len(self.dice)


def pairs(attacks: Sequence[str], defences: Sequence[str]) -> list[tuple[str, str]]:
    """Return the cells of the table: what checks of form stop needs no more than those."""
    return [(attack, defence) for attack in attacks for defence in defences if attack not in FORMS or defence in {"no checks", "default"}]


class Bench:
    """The cells of one seed.

    Args:
        out: working folder.
        size: FULL or QUICK.
        seed: of patients, start and draws.
    """

    def __init__(self, out: Path, size: Size, seed: int) -> None:
        self._size, self._seed, self._folder = size, seed, out / str(seed)
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
        try:
            cell = Cell.model_validate_json(self._path(attack, defence).with_suffix(".json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        return cell if (cell.federation, cell.cohorts) == (self.config(defence), self._phantoms.digest()) else None

    def run(self, attack: str, defence: str, *, software: str) -> Cell:
        """Do a cell from its beginning and keep its result."""
        path, config = self._path(attack, defence), self.config(defence)
        shutil.rmtree(path, ignore_errors=True)
        folder, ended = RunFolder.create(path, config, run=f"bench-{self._seed}"), ""
        names = [site.name for site in self._phantoms.sites if site.name != HELD_OUT]
        samples = {name: self._cohorts.split_samples(name, self._grid, self._size.split) for name in names}
        bad = names[-1]
        sites = [make_site(config.model, samples[name], site=name, attack=attack if name == bad else "none") for name in names]
        with _without_checks(defence == "no checks"):
            try:
                simulate(folder, dict(zip(names, sites, strict=True)), tracker=NoTracker())
            except Exception as error:  # a run that an attack breaks is a result, one that never began or that the machine broke is not
                if attack == "none" or not folder.finished_rounds() or _is_the_machines(error):
                    raise
                ended = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        records = folder.read_records()
        refused = [site.site for record in records for site in record.sites if site.outcome is Outcome.REFUSED]
        cell = Cell(
            attack=attack,
            defence=defence,
            seed=self._seed,
            federation=config,
            cohorts=self._phantoms.digest(),
            software=software,
            rounds=len(records),
            ended=ended,
            dice=self._score(folder, len(records)),
            bad_refused=refused.count(bad) if attack != "none" else 0,
            good_refused=len(refused) - (refused.count(bad) if attack != "none" else 0),
            seconds=sum(record.seconds for record in records),
        )
        write_atomic(path.with_suffix(".json"), cell.model_dump_json(indent=1).encode() + b"\n", mode=0o644)
        return cell

    def _score(self, folder: RunFolder, rounds: int) -> dict[Region, float]:
        """Return the mean Dice of the last finished model on the held-out patients."""
        tensors = folder.load_round(rounds).tensors
        if not all(np.isfinite(value).all() for value in tensors.values()):
            return dict.fromkeys(Region, 0.0)
        network = GmmasNetwork(folder.config.model.network, modalities=MODALITIES)
        load_tensors(network, tensors)
        unseen: Sequence[Sample] = self._cohorts.samples(HELD_OUT, self._grid)
        scores = score_samples(network, unseen)
        return {region: float(np.mean([score.dice[region] for score in scores])) for region in Region}

    def _path(self, attack: str, defence: str) -> Path:
        return self._folder / f"{attack}--{defence.replace(' ', '-')}"


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


def write_table(cells: Sequence[Cell]) -> str:
    """Return the Markdown table: mean Dice over regions and seeds, and how often sites were refused."""
    defences = [name for name in DEFENCES if any(cell.defence == name for cell in cells)]
    lines = ["| attack | " + " | ".join(defences) + " |", "|---" * (len(defences) + 1) + "|"]
    for attack in (name for name in ATTACKS if any(cell.attack == name for cell in cells)):
        own = [[cell for cell in cells if (cell.attack, cell.defence) == (attack, defence)] for defence in defences]
        lines.append(f"| {attack} | " + " | ".join(_describe(found) for found in own) + " |")
    seeds, commits = sorted({cell.seed for cell in cells}), sorted({cell.software for cell in cells})
    lines += [
        "",
        f"Mean Dice of WT, TC and ET on the held-out hospital; one bad site of {len(SCANNERS)}. (a/b): replies of the bad site and of",
        f"honest ones that were refused. Seeds {', '.join(map(str, seeds))}; a few hundredths are chance. Software {', '.join(commits)}.",
    ]
    broken = [f"- {cell.attack}, {cell.defence}, seed {cell.seed}: after round {cell.rounds}, {cell.ended}" for cell in cells if cell.ended]
    return "\n".join([*lines, *(["", "Runs that broke down:", "", *broken] if broken else [])]) + "\n"


def _describe(cells: Sequence[Cell]) -> str:
    if not cells:
        return ""
    dice = math.fsum(cell.mean_dice for cell in cells) / len(cells)
    return f"{dice:.3f} ({sum(cell.bad_refused for cell in cells)}/{sum(cell.good_refused for cell in cells)})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attacks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--attacks", default=",".join(ATTACKS), help="rows, with commas")
    parser.add_argument("--defences", default=",".join(DEFENCES), help="columns, with commas")
    parser.add_argument("--seeds", default="201", help="with commas")
    parser.add_argument("--processes", type=int, default=1, help="that make the patients")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-attacks")
    parser.add_argument("--report", action="store_true", help="only the table of what is there")
    parser.add_argument("--final", action="store_true", help="write the table to benchmarks/results")
    parser.add_argument("--quick", action="store_true", help="tiny")
    options = parser.parse_args(arguments)
    if options.quick and options.final:
        parser.error("--quick measures nothing, so it has no final table")
    for named, known in ((options.attacks, ATTACKS), (options.defences, DEFENCES)):
        if unknown := set(named.split(",")) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    console, software = Console(), commit()
    wanted = pairs(options.attacks.split(","), options.defences.split(","))
    benches = [Bench(options.out, QUICK if options.quick else FULL, int(seed)) for seed in options.seeds.split(",")]
    missing = [(bench, *pair) for bench in benches for pair in wanted if bench.read(*pair) is None]
    if not options.report:
        for bench in dict.fromkeys(bench for bench, *_ in missing):
            bench.prepare(processes=options.processes)
        for bench, attack, defence in track(missing, "cells", console=console, transient=True):
            bench.run(attack, defence, software=software)
    cells = [cell for bench in benches for pair in wanted if (cell := bench.read(*pair)) is not None]
    table = write_table(cells)
    target = (COMMITTED if options.final else options.out) / "attacks"
    command = f"python -m benchmarks.attacks {' '.join(sys.argv[1:] if arguments is None else arguments)}".strip()
    summary = {"command": command, "machine": platform.machine(), "cells": [cell.model_dump(mode="json") for cell in cells]}
    write_atomic(target.with_suffix(".json"), json.dumps(summary, indent=1).encode() + b"\n", mode=0o644)
    write_atomic(target.with_suffix(".md"), table.encode(), mode=0o644)
    console.print(table, markup=False, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
