"""Training without a federation, in the same rounds and steps: one hospital alone, or all cases pooled in one place.

These are the two ends a federated model is compared with. Because it is the same LocalTrainer with the same plan, nothing but the
exchange of models differs.
"""

from collections.abc import Callable, Mapping

import numpy as np

from gmmas_schema.federation import TrainingPlan
from gmmas_schema.groups import group_of, groups_received
from gmmas_schema.messages import Action, SiteReport, TaskRequest
from gmmas_schema.vocabulary import Split
from gmmas_workflows.training import LocalTrainer, Progress, ShouldStop, Tensors


def run_local_rounds(
    trainer: LocalTrainer,
    tensors: Mapping[str, np.ndarray],
    plan: TrainingPlan,
    *,
    rounds: int,
    seed: int,
    run: str = "local",
    evaluate: Split | None = None,
    on_progress: Progress | None = None,
    on_round: Callable[[SiteReport], None] | None = None,
    should_stop: ShouldStop | None = None,
) -> Tensors:
    """Train for `rounds` rounds, each from the result of the one before.

    Args:
        trainer: holds the cases: one site's, or those of several sites together.
        tensors: the start, as a coordinator would send it; encoders the trainer has no use for are left out.
        plan: the plan of a federated run; its steps are per round.
        rounds: number of rounds.
        seed: seed of the run.
        run: name that the random draws depend on.
        evaluate: split on which the model is evaluated before each round.
        on_progress: called with (done, total) steps of all rounds.
        on_round: called with each round's report.
        should_stop: asked before every step.

    Returns:
        The trained tensors, those of a network with `trainer.modalities`.

    Raises:
        ModelError, ProtocolError, GmmasError: as LocalTrainer.train.
    """
    received = groups_received(trainer.modalities)
    current = {name: value for name, value in tensors.items() if group_of(name) in received}
    for number in range(1, rounds + 1):
        request = TaskRequest(
            action=Action.TRAIN, run=run, round=number, rounds=rounds, seed=seed, model=trainer.definition, plan=plan, evaluate=evaluate
        )

        def report_step(done: int, total: int, before: int = number - 1) -> None:
            if on_progress is not None:
                on_progress(before * total + done, rounds * total)

        outcome = trainer.train(current, request, on_progress=report_step, should_stop=should_stop)
        current |= outcome.tensors
        if on_round is not None:
            on_round(outcome.report)
    return current
