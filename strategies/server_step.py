"""What the coordinator does with the mean of a round: plain averaging, or a step along it with momentum.

    theta_{r+1} = theta_r + eta (mean_r - theta_r) + beta (theta_r - theta_{r-1})

The mean of K sites' updates is shorter than the way each of them went, and steps of successive rounds point the same way; momentum makes
up for it without another step at any site. Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated
Visual Classification" (FedAvgM), 2019, written as Polyak's heavy ball: the state is the model before, which the run keeps anyway.

Only tensors that somebody sent this round move. Log-variances of the tasks are averaged plainly: they follow the losses, and
momentum would carry them beyond.
"""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.federation import ServerStep
from gmmas_schema.groups import group_of

Float32 = NDArray[np.float32]

_PLAIN = ("uncertainty.", "anchors")


def make_step(
    config: ServerStep,
    *,
    mean: Mapping[str, Float32],
    current: Mapping[str, Float32],
    previous: Mapping[str, Float32] | None,
    moved: Collection[str],
) -> dict[str, Float32]:
    """Return the next global model, in the order of `current`.

    Args:
        config: learning rate and momentum.
        mean: the sites' weighted mean.
        current: the model the sites received.
        previous: the model of the round before; None in the first round.
        moved: groups that at least one site sent.
    """
    following: dict[str, Float32] = {}
    for name, value in current.items():
        group = group_of(name)
        if group not in moved or group.startswith(_PLAIN):
            following[name] = mean[name]
            continue
        # From the mean, not from the model: with rate 1 and no momentum the result is the mean to the last bit.
        step = np.float32(config.learning_rate - 1) * (mean[name] - value)
        if previous is not None:
            step = step + np.float32(config.momentum) * (value - previous[name])
        following[name] = mean[name] + step
    return following
