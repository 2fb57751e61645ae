"""Training without a federation, in the same rounds and steps: one hospital alone, or all cases pooled in one place.

These are the two ends a federated model is compared with. Because it is the same LocalTrainer with the same plan, nothing but the
exchange of models differs; what a coordinator does between rounds for one site alone is done here.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from gmmas_schema.federation import TrainingPlan
from gmmas_schema.messages import Action, SiteReport, Target, TaskRequest
from gmmas_schema.vocabulary import Split
from gmmas_workflows.local_evaluation import Tensors
from gmmas_workflows.local_steps import Progress, ShouldStop
from gmmas_workflows.training import LocalTrainer
from strategies.anchors import SUMS, settle_anchors
from strategies.exchange import tensors_down
from strategies.uncertainty import closed_form_tensors


@dataclass(frozen=True)
class LocalRound:
    """One finished round: the model it made, of a network with `trainer.modalities`, and the trainer's report."""

    tensors: Tensors
    report: SiteReport


def local_rounds(
    trainer: LocalTrainer,
    tensors: Mapping[str, np.ndarray],
    plan: TrainingPlan,
    *,
    rounds: int,
    seed: int,
    run: str = "local",
    done: int = 0,
    evaluate: Split | None = None,
    ready: Callable[[], Mapping[Target, float]] = dict,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> Iterator[LocalRound]:
    """Yield round after round, each trained from the result of the one before; whoever has enough stops asking.

    Args:
        trainer: holds the cases: one site's, or those of several sites together.
        tensors: model `done`, as a coordinator would send it; encoders the trainer has no use for are left out.
        plan: the plan of a federated run; its steps are per round.
        rounds: number of rounds of the whole run, which the step size follows.
        seed: seed of the run.
        run: name that the random draws depend on.
        done: rounds that were made before; the same rounds follow as if they had been made here.
        evaluate: split on which the model is evaluated before each round.
        ready: asked before each round for the ramp of the pseudo-labels per target that is ready.
        on_progress: called with (done, total) steps of all rounds.
        should_stop: asked before every step.

    Raises:
        ModelError, ProtocolError, GmmasError: as LocalTrainer.train.
    """
    current = tensors_down(tensors, modalities=trainer.modalities)
    for number in range(done + 1, rounds + 1):
        request = TaskRequest(
            action=Action.TRAIN,
            run=run,
            round=number,
            rounds=rounds,
            seed=seed,
            model=trainer.definition,
            plan=plan,
            evaluate=evaluate,
            ready=dict(ready()),
        )

        def report_step(made: int, total: int, before: int = number - 1) -> None:
            if on_progress is not None:
                on_progress(before * total + made, rounds * total)

        outcome = trainer.train(current, request, on_progress=report_step, should_stop=should_stop)
        anchors = settle_anchors(mean=outcome.tensors, current=current, sites=1) if SUMS in outcome.tensors else {}
        current = current | outcome.tensors | anchors
        if plan.uncertainty_weighting == "closed_form":
            current |= closed_form_tensors([(outcome.report.losses, outcome.report.labelled)])
        yield LocalRound(current, outcome.report)
