"""The optimiser steps of one round at a site, which can be watched and stopped from outside.

for each batch:  step size of the run's global step -> loss -> gradient (+ FedProx) -> clip -> refuse what is not finite -> AdamW
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager

import torch

from gmmas_model.batch import Batch
from gmmas_model.losses import LossTerms
from gmmas_model.network import GmmasNetwork
from gmmas_schema.errors import GmmasError, ModelError, ReasonCode
from gmmas_schema.federation import TrainingPlan
from gmmas_schema.messages import TaskRequest
from gmmas_schema.vocabulary import TASKS, Modality, Task
from gmmas_workflows.objective import Objective
from gmmas_workflows.optimisation import learning_rate, make_optimizer
from strategies.fedprox import ProximalPull

Progress = Callable[[int, int], None]
"""Called with (done, total)."""
ShouldStop = Callable[[], bool]


def make_steps(
    network: GmmasNetwork,
    batches: Iterable[Batch],
    request: TaskRequest,
    plan: TrainingPlan,
    *,
    modalities: Collection[Modality],
    free: Collection[str] = (),
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> dict[Task, float]:
    """Train the parameters that require a gradient, in place, and return the mean loss per task that had labels.

    Args:
        network: on its device.
        batches: one a step, on any device.
        request: the round, which the step size follows.
        plan: the plan of `request`.
        modalities: sequences of the site.
        free: names of parameters that FedProx does not hold.
        on_progress: called with (steps done, steps of this round).
        should_stop: asked before every step.

    Raises:
        ModelError: the loss or a gradient is not finite.
        GmmasError: code CANCELLED after `should_stop` said so.
    """
    optimizer, objective = make_optimizer(network, plan), Objective(network, plan, modalities=modalities)
    held = [p for name, p in network.named_parameters() if p.requires_grad and name not in free]
    pull = ProximalPull(held, weight=plan.proximal_weight) if plan.proximal_weight > 0 else None
    first, steps = (request.round - 1) * plan.local_steps, request.rounds * plan.local_steps
    total, counted = dict.fromkeys(TASKS, 0.0), dict.fromkeys(TASKS, 0)
    device = next(network.parameters()).device
    network.train()
    for step, batch in enumerate(batches):
        where = f"round {request.round}, step {step}"
        check_stop(should_stop, where)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(plan, step=first + step, steps=steps)
        terms = objective(batch.to(device))
        optimizer.zero_grad(set_to_none=True)
        terms.total.backward()  # type: ignore[no-untyped-call]
        if pull is not None:
            pull.add_gradient()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), plan.gradient_clip_norm)
        _check_finite(terms, norm, where=where)
        optimizer.step()
        objective.after_step()
        for task, loss in terms.per_task.items():
            total[task] += float(loss) * terms.counted[task]
            counted[task] += terms.counted[task]
        if on_progress is not None:
            on_progress(step + 1, plan.local_steps)
    return {task: total[task] / counted[task] for task in TASKS if counted[task]}


def check_stop(should_stop: ShouldStop | None, where: str) -> None:
    """Raise a GmmasError with code CANCELLED if `should_stop` says so."""
    if should_stop is not None and should_stop():
        raise GmmasError("training was cancelled", where=where, code=ReasonCode.CANCELLED)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn the allocation errors of torch and Python into one error with a code; a context and a decorator."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise GmmasError(
            "memory ran out",
            where="training or evaluation",
            expected="room for one batch",
            remedy="lower training.batch_size or the grid, or give the trainer more memory",
            code=ReasonCode.OUT_OF_MEMORY,
        ) from error


def _check_finite(terms: LossTerms, gradient_norm: torch.Tensor, *, where: str) -> None:
    """Refuse a step whose loss or gradient is not finite, before it reaches the weights."""
    loss, norm = float(terms.total.detach()), float(gradient_norm.detach())
    if math.isfinite(loss) and math.isfinite(norm):
        return
    raise ModelError(
        "training diverged",
        where=where,
        got=f"loss {loss}, gradient norm {norm}",
        expected="finite values",
        remedy="lower training.learning_rate or training.gradient_clip_norm; check the scans with `gmmas data check`",
    )
