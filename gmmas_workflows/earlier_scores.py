"""What a site remembers of its last evaluations, so that the next model can be compared with an earlier one case by case.

Only differences over all patients leave the site, with their interval. The figures per case stay in this process's memory and are gone
with it; a site that no longer has them answers without a comparison.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from gmmas_schema.messages import Action, Evaluation, TaskRequest
from gmmas_schema.vocabulary import Split
from gmmas_workflows.evaluation import CaseScore, compare_scores

KEPT: Final = 4
"""Evaluations that are remembered; the one that others are compared with is remembered anew each time."""

FEWEST_PAIRED: Final = 2
"""Patients behind a difference that leaves a site."""


class EarlierScores:
    """The last evaluations of one trainer."""

    def __init__(self) -> None:
        self._scores: OrderedDict[tuple[str, Split], Sequence[CaseScore]] = OrderedDict()

    def compare(self, evaluation: Evaluation, scores: Sequence[CaseScore], request: TaskRequest, *, fewest: int = 1) -> Evaluation:
        """Return an evaluation with the differences that were asked for, if `fewest` patients stand behind them; remember its scores.

        Rounds of training are neither remembered nor compared.
        """
        if request.action is not Action.EVALUATE or request.evaluate is None:
            return evaluation
        earlier = self._recall((request.against, request.evaluate))
        self._keep((request.run, request.evaluate), scores)
        if earlier is None:
            return evaluation
        fewest = max(fewest, FEWEST_PAIRED)
        paired = {name: found for name, found in compare_scores(scores, earlier, seed=request.seed).items() if found.n >= fewest}
        return evaluation.model_copy(update={"against": request.against, "paired": paired})

    def _recall(self, key: tuple[str, Split]) -> Sequence[CaseScore] | None:
        if key not in self._scores:
            return None
        self._scores.move_to_end(key)
        return self._scores[key]

    def _keep(self, key: tuple[str, Split], scores: Sequence[CaseScore]) -> None:
        self._scores[key] = scores
        self._scores.move_to_end(key)
        while len(self._scores) > KEPT:
            self._scores.popitem(last=False)
