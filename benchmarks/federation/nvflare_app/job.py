"""NVFlare's FedAvg recipe over numpy arrays; runs in the environment of NVFlare: `python job.py SETTINGS.json`.

POC mode is NVFlare's own deployment on one machine: provisioned start-up kits, mTLS, one server, one client process per site, and for the
job one process more at the server and at each site.
"""

import json
import sys
from pathlib import Path

from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe
from nvflare.recipe import PocEnv, SimEnv


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
    print("status", run.get_status())
    print("result", run.get_result())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
