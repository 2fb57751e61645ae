"""FedAvgM: the coordinator's step repeats a share of the one before.

    theta_{r+1} = theta_r + eta (mean_r - theta_r) + beta (theta_r - theta_{r-1})

The mean of K sites' updates is shorter than the way each of them went, and steps of successive rounds point the same way; momentum makes
up for it without another step at any site. Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated
Visual Classification", 2019, written as Polyak's heavy ball: the state is the model before, which the run keeps anyway.
"""

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.strategy import MomentumStep

Float32 = NDArray[np.float32]


def step_with_momentum(config: MomentumStep, *, mean: Float32, current: Float32, previous: Float32 | None) -> Float32:
    """Return the next value of one tensor; `previous` is None in the first round."""
    # From the mean, not from the model: with rate 1 and no step before, the result is the mean to the last bit.
    step = np.float32(config.learning_rate - 1) * (mean - current)
    if previous is not None:
        step = step + np.float32(config.momentum) * (current - previous)
    return mean + step
