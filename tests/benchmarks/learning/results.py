"""Made-up results: Dice and probabilities that follow from a skill, for tests of tables and plots."""

from collections.abc import Mapping

import numpy as np

from benchmarks.learning.plan import Arm, LearningPlan
from benchmarks.learning.results import ArmResult, ValidationPoint
from benchmarks.learning.scoring import CaseRow
from gmmas_schema.vocabulary import MODALITIES, REGIONS, Modality, Region, Split, Task
from gmmas_workflows.evaluation import subsets


def make_rows(skill: float, *, seed: int, cases: int = 12, without_et: int = 3) -> dict[str, tuple[CaseRow, ...]]:
    """Return rows in which patients differ, more sequences help, and arms of one seed share their patients.

    The first patients have no enhancing tumour; some is outlined there where T1ce is not shown.
    """
    rng = np.random.default_rng(seed)
    hard_K, truth_K = rng.normal(0, 0.05, cases), rng.permutation(cases) % 2 == 0
    rows = {}
    for subset in subsets(MODALITIES):
        dice_K = np.clip(skill + 0.03 * (len(subset) - 4) + hard_K, 0, 1)
        p_K = np.clip(0.5 + (truth_K - 0.5) * skill + rng.normal(0, 0.2, cases), 0.01, 0.99)
        none = {Region.ET: float(Modality.T1CE in subset)}
        rows["+".join(subset)] = tuple(
            CaseRow(
                case=f"c{k}",
                dice={region: float(max(0.0, dice_K[k] - 0.05 * place)) for place, region in enumerate(REGIONS)}
                | (none if k < without_et else {}),
                probability=dict.fromkeys((Task.IDH, Task.CODELETION), float(p_K[k])),
                truth=dict.fromkeys((Task.IDH, Task.CODELETION), bool(truth_K[k])),
                hd95_mm=dict.fromkeys(REGIONS, float(20 * (1 - dice_K[k]))),
            )
            for k in range(cases)
        )
    return rows


def make_result(plan: LearningPlan, arm: Arm, seed: int, *, skill: float, software: str = "abc1234") -> ArmResult:
    return ArmResult(
        experiment=plan.experiment(arm, seed),
        software=software,
        held_out={site: make_rows(skill, seed=seed) for site in plan.held_out},
        own={"full": {split: make_rows(skill + 0.1, seed=seed)["t1+t1ce+t2+flair"] for split in (Split.VALIDATION, Split.TEST)}},
        curve=tuple(
            ValidationPoint(round=number, score=skill * (1 - 0.7**number), metrics={"dice_wt": skill, "dice_et": skill * (1 - 0.8**number)})
            for number in range(17)
        ),
        mib_down=20.0,
        mib_up=19.0,
        seconds=300.0,
        steps=1280,
        log_variance={Task.SEGMENTATION: -0.5, Task.IDH: -1.0},
    )


def make_results(plan: LearningPlan, skills: Mapping[str, float]) -> dict[str, dict[int, ArmResult]]:
    """Return results of the arms by name and seed."""
    return {name: {seed: make_result(plan, plan.arm(name), seed, skill=skill) for seed in plan.seeds} for name, skill in skills.items()}
