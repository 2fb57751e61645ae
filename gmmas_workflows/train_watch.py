"""What a training without a federation tells whoever watches it."""

from collections.abc import Sequence

from gmmas_schema.messages import SiteDescription
from gmmas_schema.vocabulary import Split
from gmmas_workflows.train_folder import TrainRound


class TrainWatch:
    """Is told how a training goes on; whoever shows it overrides these."""

    def begin(self, description: SiteDescription, records: Sequence[TrainRound], *, device: str) -> None:
        """Training begins on these cases, or goes on after the rounds of `records`."""

    def step(self, done: int, total: int) -> None:
        """`done` of the `total` optimiser steps of all rounds are made."""

    def evaluate(self, split: Split, done: int, total: int) -> None:
        """`done` of `total` cases of a split are evaluated."""

    def round(self, record: TrainRound) -> None:
        """A round is finished and on disk."""
