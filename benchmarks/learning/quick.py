"""The benchmark in seconds: every step of it, on patients, network and runs too small to measure anything."""

from typing import Final

from benchmarks.learning.plan import LearningPlan, merge
from gmmas_schema.federation import FederationConfig
from gmmas_schema.phantom import PhantomSpec
from gmmas_schema.site import SplitConfig

QUICK_ARMS: Final = ("gmmas", "pooled", "fedavg-zero-fill", "semi")
"""One of each kind."""
CASES: Final = 3
SPACING_MM: Final = 4.0
AT_ONCE: Final = {
    "training.semi_supervised": {"ready_dice": 0.0, "ready_auc": 0.0, "ready_rounds": 1, "voxel_confidence": 0.51, "voxel_spread": 0.5}
}
"""A run is to come to its pseudo-labels: in the third round at the earliest, for the start is not validated as a model, and only where a
tumour is found, which takes a few steps."""
TINY: Final = {
    "rounds": 3,
    "model": {
        "network": {"channels": [2, 4], "blocks": [1, 1], "transformer_layers": 1, "transformer_heads": 2},
        "grid": {"spacing_mm": 8.0, "shape": [16, 20, 16]},
    },
    "training": {"local_steps": 8, "warmup_steps": 1},
}


def shrink(plan: LearningPlan) -> LearningPlan:
    """Return the plan with one seed and everything tiny."""
    sites = [site.model_copy(update={"cases": CASES}) for site in plan.phantoms.sites]
    phantoms = PhantomSpec.model_validate(plan.phantoms.model_dump() | {"spacing_mm": SPACING_MM, "sites": sites})
    federation = FederationConfig.parse(merge(plan.federation.model_dump(mode="json"), TINY), where="quick.py")
    arms = tuple(
        arm.model_copy(update={"changes": arm.changes | AT_ONCE}) if AT_ONCE.keys() <= arm.changes.keys() else arm for arm in plan.arms
    )
    split = SplitConfig(validation=1 / CASES, test=1 / CASES)
    small = {"phantoms": phantoms, "federation": federation, "arms": arms, "split": split, "seeds": plan.seeds[:1], "more_seeds": ()}
    return plan.model_copy(update=small)
