"""The table of benchmarks/attacks.py: each attack under each defence against nobody hostile under the same defence.

For seed i and region R let P_R be the held-out patients who have R. The figure of a cell is

    D = mean over seeds of mean over R of mean over P_R of Dice(patient, R)

A model that outlines nothing scores 0. The BraTS convention, by which a region that is empty in truth and prediction scores 1, would give
it a third of the share of patients without enhancing tumour, and hide that it is worth nothing. The interval of a difference holds the
middle 95 % over resampled patients, the same ones on both sides (Efron, 1979); each seed is one training, and what another would give is
not in it. A run that did not come to its last round has no model to score.

Shapes: K patients, S resamples.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.hostile_sites import ATTACKS
from gmmas_model.metrics import percentile_interval, resample_patients
from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import DataError
from gmmas_schema.federation import FederationConfig
from gmmas_schema.messages import Interval
from gmmas_schema.vocabulary import Region

Float = NDArray[np.float64]

HONEST: Final = ATTACKS[0]
"""The row in which nobody is hostile."""


class Cell(FrozenModel):
    """One attack under one defence.

    Attributes:
        federation: the run, defence included.
        cohorts: digest of the phantoms.
        software: commit that made it.
        precision: of the training's forward passes, as `auto` came out on the machine.
        rounds: rounds that were finished; fewer than planned where the run broke down.
        ended: why it broke down; empty where it did not.
        patients: the held-out ones.
        dice: of the last round's model, per region of the patients who have it; empty where the run broke down.
        outlined: held-out patients in whom that model outlines anything.
        bad_refused: rounds in which the bad site was refused; `good_refused` replies of honest sites that were.
        seconds: wall time of the rounds.
    """

    attack: str
    defence: str
    seed: int
    federation: FederationConfig
    cohorts: str
    software: str
    precision: Literal["bf16", "fp32"]
    rounds: int
    ended: str
    patients: tuple[str, ...]
    dice: dict[Region, dict[str, float]]
    outlined: int
    bad_refused: int
    good_refused: int
    seconds: float

    @property
    def name(self) -> str:
        """What is told apart in a table."""
        return f"{self.attack}, {self.defence}, seed {self.seed}"

    @property
    def broke_down(self) -> bool:
        """Whether the run did not come to its last round."""
        return self.rounds < self.federation.rounds

    @property
    def mean_dice(self) -> float:
        """Mean over the regions of the mean over the patients who have it; nan where the run broke down."""
        return float(self.resampled(np.ones((1, len(self.patients))))[0])

    def resampled(self, counts_SK: Float) -> Float:
        """Return the mean Dice in every resample, nan where one lacks a region.

        Args:
            counts_SK: how often each of `patients` is drawn.
        """
        if self.broke_down:
            return np.full(len(counts_SK), np.nan)
        means = []
        for region in Region:
            dice_K = np.array([self.dice[region].get(patient, np.nan) for patient in self.patients])
            has_K = ~np.isnan(dice_K)
            with np.errstate(invalid="ignore"):
                means.append(counts_SK[:, has_K] @ dice_K[has_K] / counts_SK[:, has_K].sum(1))
        mean_S: Float = np.mean(means, axis=0)
        return mean_S


def compare(cells: Iterable[Cell], others: Iterable[Cell]) -> Interval:
    """Return the difference of mean Dice to the cells of the same seeds, over the seeds in which neither side broke down.

    Raises:
        DataError: the patients of a seed differ.
    """
    honest = {cell.seed: cell for cell in others if not cell.broke_down}
    pairs = [(cell, honest[cell.seed]) for cell in cells if not cell.broke_down and cell.seed in honest]
    if not pairs:
        return Interval()
    value_IS = []
    for cell, other in pairs:
        if cell.patients != other.patients:
            raise DataError("cells of one seed were scored on different patients", where=cell.name, remedy="run the seed again")
        counts_SK, _ = resample_patients(len(cell.patients), seed=cell.seed)
        value_IS.append(cell.resampled(counts_SK) - other.resampled(counts_SK))
    value = float(np.mean([cell.mean_dice - other.mean_dice for cell, other in pairs]))
    return percentile_interval(value, np.mean(value_IS, axis=0), n=sum(len(cell.patients) for cell, _ in pairs))


def write_table(cells: Sequence[Cell], *, defences: Sequence[str], sites: int, missing: Mapping[str, str] | None = None) -> str:
    """Return the page: the table, how to read it, every run, and what has no result.

    Args:
        cells: what was measured.
        defences: order of the columns.
        sites: that train in each run.
        missing: why a planned cell has no result, by its name.
    """
    columns = [name for name in defences if any(cell.defence == name for cell in cells)]
    lines = [_line(["attack", *columns]), "|---" * (len(columns) + 1) + "|"]
    for attack in (name for name in ATTACKS if any(cell.attack == name for cell in cells)):
        lines.append(_line([attack, *(_describe(attack, defence, cells) for defence in columns)]))
    lines += ["", *_legend(cells, sites), "", _line(["run", "rounds", *(f"Dice {region.upper()}" for region in Region), "refused"])]
    lines += ["|---" * (len(Region) + 3) + "|", *(_row(cell) for cell in cells)]
    broken = [f"- {cell.name}: after round {cell.rounds}, {cell.ended}" for cell in cells if cell.ended]
    for title, found in (
        ("Runs that ended with an error:", broken),
        ("Planned and without a result:", [f"- {name}: {why}" for name, why in (missing or {}).items()]),
    ):
        lines += ["", title, "", *found] if found else []
    return "\n".join(lines) + "\n"


def _legend(cells: Sequence[Cell], sites: int) -> list[str]:
    """Return how the table is to be read."""
    whole = [cell for cell in cells if not cell.broke_down]
    has = {region: sum(len(cell.dice[region]) for cell in whole) for region in Region}
    patients = sum(len(cell.patients) for cell in whole)
    nothing = sum(1 - count / patients for count in has.values()) / len(has) if patients else 0.0
    shares = ", ".join(f"{region.upper()} {count / max(patients, 1):.0%}" for region, count in has.items())
    return [
        f"One bad site of {sites}. Mean Dice of WT, TC and ET on the held-out hospital, each over the patients who have it ({shares});",
        "behind it the difference to nobody hostile (`none`) in the same column with its 95 % interval over patients, paired: what another",
        f"training would give is not in it. A model that outlines nothing scores 0 here, and {nothing:.2f} by the BraTS convention, by",
        "which an empty region that is left empty counts 1. (a/b): replies of the bad site and of honest ones that were refused.",
        f"Seeds {_joined(cell.seed for cell in cells)}; forward passes in {_joined(cell.precision for cell in cells)}. "
        f"Software {_joined(cell.software for cell in cells)}.",
    ]


def _describe(attack: str, defence: str, cells: Sequence[Cell]) -> str:
    """Return one cell of the table."""
    own = [cell for cell in cells if (cell.attack, cell.defence) == (attack, defence)]
    if not own:
        return ""
    whole, broken = ([cell for cell in own if cell.broke_down is ended] for ended in (False, True))
    said = [f"broke down in round {_joined(cell.rounds + 1 for cell in broken)}{_seeds(broken, cells)}"] if broken else []
    if whole:
        difference = compare(whole, [cell for cell in cells if (cell.attack, cell.defence) == (HONEST, defence)])
        text = f"{np.mean([cell.mean_dice for cell in whole]):.3f}"
        if attack != HONEST and difference.value is not None:
            text += f", {difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
        silent = not any(cell.outlined for cell in whole)
        said.insert(0, text + (", outlines nothing" if silent else "") + _seeds(whole, cells))
    return f"{'; '.join(said)} ({sum(cell.bad_refused for cell in own)}/{sum(cell.good_refused for cell in own)})"


def _seeds(own: Sequence[Cell], cells: Sequence[Cell]) -> str:
    """Return whose seeds these are, where they are not all seeds of the table."""
    seeds = {cell.seed for cell in own}
    return "" if seeds == {cell.seed for cell in cells} else f" (seed {_joined(seeds)})"


def _row(cell: Cell) -> str:
    """Return one run."""
    dice = [f"{np.mean(list(cell.dice[region].values())):.3f}" if cell.dice.get(region) else "" for region in Region]
    return _line([cell.name, f"{cell.rounds} of {cell.federation.rounds}", *dice, f"{cell.bad_refused}/{cell.good_refused}"])


def _joined(values: Iterable[object]) -> str:
    return ", ".join(map(str, sorted(set(values), key=str)))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
