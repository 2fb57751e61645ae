"""Model 0 of a federated run."""

import subprocess
import sys
from typing import TYPE_CHECKING

import safetensors.numpy

from gmmas_schema.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gmmas_schema.federation import FederationConfig


def make_initial_model(config: "FederationConfig") -> "dict[str, NDArray[np.float32]]":
    """Return the seeded start as float32 arrays by tensor name; the same for the same seed, whatever was drawn before.

    A coordinator needs torch for nothing else, so a process that has not loaded it leaves this to a child and stays 180 MB smaller.

    Raises:
        ModelError: the child failed.
    """
    if "torch" in sys.modules:
        from gmmas_model.initialisation import initial_tensors

        return initial_tensors(config.model.network, seed=config.seed)
    command = [sys.executable, "-m", "gmmas_model.initialisation", str(config.seed)]
    done = subprocess.run(command, input=config.model.network.model_dump_json().encode(), capture_output=True, check=False)
    if done.returncode:
        raise ModelError(
            "the model that the run starts from could not be made",
            where=" ".join(command[1:]),
            got=f"exit status {done.returncode}: {done.stderr.decode(errors='replace').strip().rpartition(chr(10))[2] or 'no word'}",
            expected="a model",
            remedy="a negative status is a signal, -9 often a lack of memory; else call the command with the run's `network` as JSON",
        )
    return dict(sorted(safetensors.numpy.load(done.stdout).items()))
