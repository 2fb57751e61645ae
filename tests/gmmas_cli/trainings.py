"""Rounds of a training as they are kept on disk."""

from gmmas_schema.messages import SiteReport
from gmmas_schema.vocabulary import Task
from gmmas_workflows.train_folder import TrainRound


def finished_round(number: int, *, rounds: int, seconds: float = 10.0) -> TrainRound:
    report = SiteReport(
        site="north",
        run="train-1",
        round=number,
        model_digest="0",
        cases=20,
        labelled={Task.SEGMENTATION: 20, Task.IDH: 10},
        losses={Task.SEGMENTATION: 0.7, Task.IDH: 0.3},
        steps=10,
        seconds={"train": 5.0},
    )
    return TrainRound(
        run="train-1",
        round=number,
        rounds=rounds,
        started_at=1_800_000_000.0,
        seconds=seconds,
        model_sha256="0" * 64,
        training=report,
        samples_per_s=4.0,
        device="cpu",
    )
