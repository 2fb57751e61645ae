"""FedAdam and FedYogi: the coordinator's step is scaled coordinate by coordinate, as Adam's is.

    D = mean_r - theta_r                                              the mean update is the gradient, with its sign turned
    m <- b1 m + (1 - b1) D
    v <- b2 v + (1 - b2) D^2                                          adam
    v <- v - (1 - b2) D^2 sign(v - D^2)                               yogi
    theta_{r+1} = theta_r + eta m / (sqrt(v) + tau)                   with m = 0 and v = tau^2 before the first round

Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2. As there, m and v are not corrected for their start (Kingma and
Ba's division by 1 - b^t): v begins at tau^2, not at 0, so early steps are small by themselves. Yogi's v moves by no more than
(1 - b2) D^2 a round, so one small update does not make the next step a large one (Zaheer et al., NeurIPS 2018).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.strategy import AdamStep, YogiStep

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Moments:
    """Running means of a tensor's updates and of their squares, in its shape."""

    first: Float32
    second: Float32


def initial_moments(config: AdamStep | YogiStep, like: Float32) -> Moments:
    """Return the moments before a tensor's first update."""
    return Moments(np.zeros_like(like), np.full_like(like, config.adaptivity**2))


def step_adaptively(config: AdamStep | YogiStep, *, mean: Float32, current: Float32, moments: Moments) -> tuple[Float32, Moments]:
    """Return the next value of one tensor and its next moments, all float32."""
    update = mean - current
    square, fresh = np.square(update), np.float32(1 - config.second_decay)
    first = np.float32(config.first_decay) * moments.first + np.float32(1 - config.first_decay) * update
    if isinstance(config, YogiStep):
        second = moments.second - fresh * square * np.sign(moments.second - square)
    else:
        second = np.float32(config.second_decay) * moments.second + fresh * square
    step = np.float32(config.learning_rate) * first / (np.sqrt(second) + np.float32(config.adaptivity))
    return current + step, Moments(first, second)
