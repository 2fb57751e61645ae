"""The optimiser of local training and its step size.

AdamW (Loshchilov and Hutter, ICLR 2019) with decay on weight matrices only. The step size follows the run's global step
s = (round - 1) * local_steps + step, so a site that joins late or comes back is where the others are:

    s < w:   lr = peak * (s + 1) / w                                                   linear warm-up over w steps
    s >= w:  lr = peak * (f + (1 - f) * (1 + cos(pi * (s - w) / (S - w))) / 2)         cosine down to the share f at step S
"""

import math
from typing import TYPE_CHECKING

from gmmas_schema.federation import TrainingPlan

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


def learning_rate(plan: TrainingPlan, *, step: int, steps: int) -> float:
    """Return the step size at global `step` (0-based) of a run of `steps` optimiser steps."""
    if step < plan.warmup_steps:
        return plan.learning_rate * (step + 1) / plan.warmup_steps
    progress = min(1.0, (step - plan.warmup_steps) / max(1, steps - plan.warmup_steps))
    floor = plan.final_learning_rate_share
    return plan.learning_rate * (floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2)


def make_optimizer(network: "nn.Module", plan: TrainingPlan) -> "Optimizer":
    """Return AdamW over the trainable parameters; vectors and scalars (norms, biases, gates, uncertainties) are not decayed."""
    # Only here, so that the coordinator knows the step size without torch's 200 MB.
    import torch

    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=plan.learning_rate)
