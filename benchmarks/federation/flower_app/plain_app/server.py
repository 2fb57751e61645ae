"""FedAvg over all nodes, from arrays in a file."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds."""
    config = context.run_config
    sites = int(config["sites"])
    with np.load(str(config["arrays"])) as arrays:
        initial = ArrayRecord({name: Array(arrays[name]) for name in arrays.files})
    strategy = FedAvg(
        fraction_evaluate=float(config["evaluate"]), min_train_nodes=sites, min_evaluate_nodes=sites, min_available_nodes=sites
    )
    strategy.start(grid=grid, initial_arrays=initial, num_rounds=int(config["rounds"]))
