"""NVFlare's FedAvg recipe over numpy arrays; runs in the environment of NVFlare: `python job.py SETTINGS.json`.

POC mode is NVFlare's own deployment on one machine: provisioned start-up kits, mTLS, one server, one client process per site, and for the
job one process more at the server and at each site.
"""

import json
import sys
from pathlib import Path
from typing import Final

from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe
from nvflare.recipe import PocEnv, SimEnv

COMPLETED: Final = "FINISHED:COMPLETED"


def main(path: Path) -> None:
    """Run the job and wait for its end."""
    settings = json.loads(path.read_text())
    recipe = NumpyFedAvgRecipe(
        name="bench",
        initial_ckpt=settings["arrays"],
        min_clients=settings["sites"],
        num_rounds=settings["rounds"],
        train_script=str(Path(__file__).with_name("trainer.py")),
    )
    if settings["simulator"]:
        run = recipe.execute(SimEnv(num_clients=settings["sites"], num_threads=settings["sites"], workspace_root=settings["workspace"]))
    else:
        run = recipe.execute(PocEnv(num_clients=settings["sites"]))
    result, status = run.get_result(), run.get_status()  # in this order: the status of a job that is awaited
    print("status", status)
    print("result", result)
    # The simulator knows no status; what its sites noted is checked either way.
    if result is None or not (settings["simulator"] or status == COMPLETED):
        sys.exit(f"the job did not end well: status {status}, result {result}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
