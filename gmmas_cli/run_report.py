"""What a finished federated run is shown by: its learning curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from gmmas_schema.vocabulary import MARKER_NAMES, REGIONS, Task
from server.records import RoundRecord

CURVES: Final = "learning-curves.png"
MOST_LINES: Final = 12
_QUARTILES: Final = ("upper quartile", "median of the sites", "lower quartile")


def write_curves(records: Sequence[RoundRecord], path: Path) -> None:
    """Draw validation Dice over the sites, and the training losses of each site, or of many their quartiles, over the rounds.

    What was never measured has no panel; where nothing was, there is no picture.
    """
    from gmmas_workflows.figures import learning_curves

    scored = [record.validation for record in records if record.validation is not None]
    dice = {
        region.upper(): [(score.model_round, score.metrics[f"dice_{region}"]) for score in scored if f"dice_{region}" in score.metrics]
        for region in REGIONS
    }
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {"validation Dice over the hospitals": dice}
    for task in Task:
        panels[f"training loss: {MARKER_NAMES.get(task, task)}"] = _loss_lines(records, task)
    shown = {title: {name: points for name, points in lines.items() if points} for title, lines in panels.items()}
    if shown := {title: lines for title, lines in shown.items() if lines}:
        learning_curves(shown, path)


def _loss_lines(records: Sequence[RoundRecord], task: Task) -> dict[str, list[tuple[int, float]]]:
    """Return the loss of a task over the rounds, by site, or by quartile where there are more than MOST_LINES sites."""
    lines: dict[str, list[tuple[int, float]]] = {}
    many = len({site.site for record in records for site in record.sites}) > MOST_LINES
    for record in records:
        losses = {site.site: site.losses[task] for site in record.sites if task in site.losses}
        if many and losses:
            losses = dict(zip(_QUARTILES, np.quantile(list(losses.values()), (0.75, 0.5, 0.25)).tolist(), strict=True))
        for name, loss in losses.items():
            lines.setdefault(name, []).append((record.round, loss))
    return lines
