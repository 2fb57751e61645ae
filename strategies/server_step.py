"""What the coordinator does with the mean of a round: take it, go part of the way, or step along it with a memory of earlier rounds.

    average    theta_{r+1} = theta_r + eta (mean_r - theta_r)
    momentum   strategies.momentum (FedAvgM)              adam, yogi   strategies.adaptive (FedAdam, FedYogi)

Only tensors that somebody sent this round move, and only their memory changes. Log-variances of the tasks and anchors are averaged
plainly: they follow the losses and the features, and a memory would carry them beyond.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.groups import group_of
from gmmas_schema.strategy import AdamStep, AverageStep, MomentumStep, ServerStep, YogiStep
from strategies.adaptive import Moments, initial_moments, step_adaptively
from strategies.momentum import step_with_momentum

Float32 = NDArray[np.float32]

_PLAIN = ("uncertainty.", "anchors")
_FIRST, _SECOND = "first_moment/", "second_moment/"


@dataclass(frozen=True)
class Step:
    """The next global model, and what the next step has to remember beside the model before (empty for most kinds).

    Attributes:
        tensors: in the order of the current model.
        state: float32 tensors under names of their own; they belong to this model and are kept with it.
    """

    tensors: dict[str, Float32]
    state: dict[str, Float32]


def make_step(
    config: ServerStep,
    *,
    mean: Mapping[str, Float32],
    current: Mapping[str, Float32],
    previous: Mapping[str, Float32] | None,
    moved: Collection[str],
    state: Mapping[str, Float32] = MappingProxyType({}),
) -> Step:
    """Return the next global model and its state.

    Args:
        config: kind and settings of the step.
        mean: the sites' weighted mean.
        current: the model the sites received.
        previous: the model of the round before; None in the first round.
        moved: groups that at least one site sent.
        state: that of the step before; empty in the first round.
    """
    following: dict[str, Float32] = {}
    kept = dict(state)
    for name, value in current.items():
        group = group_of(name)
        if group not in moved or group.startswith(_PLAIN):
            following[name] = mean[name]
        elif isinstance(config, AdamStep | YogiStep):
            known = Moments(kept[_FIRST + name], kept[_SECOND + name]) if _FIRST + name in kept else initial_moments(config, value)
            following[name], moments = step_adaptively(config, mean=mean[name], current=value, moments=known)
            kept |= {_FIRST + name: moments.first, _SECOND + name: moments.second}
        elif isinstance(config, MomentumStep):
            before = previous[name] if previous is not None else None
            following[name] = step_with_momentum(config, mean=mean[name], current=value, previous=before)
        else:
            following[name] = _go_part_way(config, mean=mean[name], current=value)
    return Step(following, kept)


def _go_part_way(config: AverageStep, *, mean: Float32, current: Float32) -> Float32:
    """Return the mean for rate 1, to the last bit."""
    return mean + np.float32(config.learning_rate - 1) * (mean - current)
