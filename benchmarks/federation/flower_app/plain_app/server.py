"""FedAvg over all nodes, from arrays in a file."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class CountedFedAvg(FedAvg):
    """FedAvg that writes down how many replies it averaged: it goes on without those that failed, which is no measurement.

    Args:
        path: file that gets a line a round and kind of reply.
        options: of FedAvg.
    """

    def __init__(self, path: Path, **options: float) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self._path = path

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Count, and average."""
        return super().aggregate_train(server_round, self._count("train", server_round, replies))

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Count, and average."""
        return super().aggregate_evaluate(server_round, self._count("evaluate", server_round, replies))

    def _count(self, kind: str, server_round: int, replies: Iterable[Message]) -> list[Message]:
        listed = list(replies)
        failed = sum(reply.has_error() for reply in listed)
        with self._path.open("a") as handle:
            handle.write(json.dumps({"kind": kind, "round": server_round, "good": len(listed) - failed, "failed": failed}) + "\n")
        return listed


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds."""
    config = context.run_config
    sites, path = int(config["sites"]), Path(str(config["arrays"]))
    with np.load(path) as arrays:
        initial = ArrayRecord({name: Array(arrays[name]) for name in arrays.files})
    minima = {"min_train_nodes": sites, "min_evaluate_nodes": sites, "min_available_nodes": sites}
    strategy = CountedFedAvg(path.with_name("replies.jsonl"), fraction_evaluate=float(config["evaluate"]), **minima)
    strategy.start(grid=grid, initial_arrays=initial, num_rounds=int(config["rounds"]))
