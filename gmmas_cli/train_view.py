"""A training on the terminal while it goes on: steps with speed and time left, losses per task, validation now and at its best.

On a terminal the picture is redrawn in place; into a file or pipe one line per round is written instead.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gmmas_cli.live import Redrawn
from gmmas_schema.messages import SiteDescription
from gmmas_schema.standalone import TrainConfig
from gmmas_schema.vocabulary import Split
from gmmas_workflows.scores import ModelScore, choose_best
from gmmas_workflows.train_folder import TrainRound
from gmmas_workflows.train_watch import TrainWatch
from server.run_view import RECENT_ROUNDS
from server.wording import format_metrics, format_seconds

RECENT_STEPS: Final = 20
"""The speed shown within a round rests on the last steps."""


class LiveTraining(Redrawn, TrainWatch):
    """Shows a training; what came of it is told by others. Use as a context, and give it to run_training as `watch`.

    Args:
        console: where to.
        config: the training.
        clock: seconds that only grow.
    """

    def __init__(self, console: Console, config: TrainConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._clock = config, clock
        self._stage = "reading the cohorts"
        self._bar = (0, 1)
        self._records: list[TrainRound] = []
        self._steps: deque[tuple[float, int]] = deque(maxlen=RECENT_STEPS + 1)
        self._round_began: float | None = None
        super().__init__(console, transient=True)

    def prepare(self, done: int, total: int) -> None:
        """`done` of `total` cases are ready for training."""
        self._stage, self._bar = "preparing cases", (done, total)
        if done == total:
            self._stage = "opening the record of the run"
            self._note(f"{total} cases are ready")

    def begin(self, description: SiteDescription, records: Sequence[TrainRound], *, device: str) -> None:
        """Training begins, or goes on after the rounds of `records`."""
        self._records = list(records)
        self._bar = (len(records) * self._config.training.local_steps, self._config.rounds * self._config.training.local_steps)
        self._start_round()
        labels = ", ".join(f"{count} {task}" for task, count in description.labelled.items() if count)
        self._note(
            f"{description.cases} training cases ({', '.join(description.modalities)}); labelled: {labels or 'none'}; on {device}",
            keep=True,
        )
        if records:
            self._note(f"resumed after round {len(records)} of {self._config.rounds}", keep=True)

    def step(self, done: int, total: int) -> None:
        """`done` of the `total` optimiser steps of all rounds are made."""
        self._bar = (done, total)
        self._steps.append((self._clock(), done))

    def evaluate(self, split: Split, done: int, total: int) -> None:
        """`done` of `total` cases of a split are evaluated."""
        self._stage = f"{split}: {done} of {total} cases"

    def round(self, record: TrainRound) -> None:
        """A round is finished and on disk."""
        self._records.append(record)
        self._note(self._describe(record))
        self._start_round()

    def render(self) -> RenderableType:
        """Return the picture of this moment."""
        head = Text.assemble((self._config.name, "bold"), "  ", (self._stage, "cyan"))
        return Group(head, self._progress(), *self._losses(), *self._validation())

    @property
    def samples_per_s(self) -> float | None:
        """Cases through the optimiser per second: over the last steps, or in the last round."""
        if len(self._steps) > 1:
            (first_s, first), (last_s, last) = self._steps[0], self._steps[-1]
            return (last - first) * self._config.training.batch_size / max(last_s - first_s, 1e-9)
        return self._records[-1].samples_per_s if self._records else None

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the last planned round ends, from the rounds before; None before the first has."""
        recent = [record.seconds for record in self._records[-RECENT_ROUNDS:]]
        if not recent:
            return None
        gone = 0.0 if self._round_began is None else self._clock() - self._round_began
        per_round = sum(recent) / len(recent)
        return max(0.0, (self._config.rounds - len(self._records)) * per_round - min(gone, per_round))

    def _start_round(self) -> None:
        self._steps.clear()
        self._round_began = self._clock()
        self._stage = f"round {min(len(self._records) + 1, self._config.rounds)} of {self._config.rounds}"

    def _note(self, text: str, *, keep: bool = False) -> None:
        """Write a line: always where there is no picture; above the picture if it is to be kept."""
        if self._live is None:
            self._console.print(Text.assemble((time.strftime("%H:%M:%S "), "dim"), text), soft_wrap=True)
        elif keep:
            self._console.print(Text(text), soft_wrap=True)

    def _describe(self, record: TrainRound) -> str:
        left = "" if not self.remaining_s else f", {self._left_text(self.remaining_s)}"
        parts = [f"round {record.round} of {record.rounds} in {format_seconds(record.seconds)}, {record.samples_per_s:.1f} samples/s{left}"]
        if record.training.losses:
            parts.append(_losses_text(record))
        if record.validation is not None:
            parts.append(f"validation {format_metrics(record.validation.metrics)}")
        return "  ".join(parts)

    def _left_text(self, seconds: float) -> str:
        return f"{'at most' if self._config.early_stop else 'about'} {format_seconds(seconds)} left"

    def _progress(self) -> Table:
        done, total = self._bar
        row = Table.grid(padding=(0, 2))
        speed, left = self.samples_per_s, self.remaining_s
        row.add_row(
            Text(f"{done} of {total}"),
            ProgressBar(total=max(total, 1), completed=done, width=24),
            Text("" if speed is None else f"{speed:.1f} samples/s", style="dim"),
            Text("" if left is None else self._left_text(left)),
        )
        return row

    def _losses(self) -> list[Text]:
        """Return the losses of the last finished round."""
        if not self._records or not self._records[-1].training.losses:
            return []
        return [Text.assemble((f"{'loss':<11}", "dim"), f"round {self._records[-1].round:<3} {_losses_text(self._records[-1], head='')}")]

    def _validation(self) -> list[Text]:
        """Return the validation of the newest validated model and of the best so far."""
        scores = [record.validation for record in self._records if record.validation is not None]
        if not scores:
            return []
        best = choose_best(scores, fallback=scores[-1].model_round)
        shown: list[tuple[str, ModelScore]] = [("validation", scores[-1])]
        shown += [("best", score) for score in scores if score.model_round == best]
        return [Text.assemble((f"{name:<11}", "dim"), f"round {s.model_round:<3} {format_metrics(s.metrics)}") for name, s in shown]


def _losses_text(record: TrainRound, *, head: str = "loss ") -> str:
    return head + " ".join(f"{task} {loss:.3f}" for task, loss in record.training.losses.items())
