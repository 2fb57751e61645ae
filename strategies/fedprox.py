"""FedProx: local training is held near the model it began with.

    minimise  F_k(theta) + mu/2 ||theta - theta_0||^2        gradient of the second term: mu (theta - theta_0)

Li, Sahu, Zaheer, Sanjabi, Talwalkar and Smith, "Federated Optimization in Heterogeneous Networks", MLSys 2020. theta_0 is what the site
received; only parameters that it trains and sends are held. The term is added as its gradient, after the backward pass and before
gradients are clipped: no graph, one more copy of the weights. It has no half at the coordinator.

A parameter without a gradient (an encoder that saw nothing this step) is pulled all the same. AdamW divides by the size of the gradients
it has seen, so a large mu holds the weights within a few step sizes of theta_0, not at it.
"""

from collections.abc import Iterable

import torch
from torch import Tensor


class ProximalPull:
    """Remembers where parameters are, and pulls them back there.

    Args:
        parameters: those that are to be held; their values now are theta_0.
        weight: mu.
    """

    def __init__(self, parameters: Iterable[Tensor], *, weight: float) -> None:
        self._weight = weight
        self._pairs = [(parameter, parameter.detach().clone()) for parameter in parameters]

    @torch.no_grad()
    def add_gradient(self) -> None:
        """Add mu (theta - theta_0) to the gradients."""
        for parameter, start in self._pairs:
            pull = self._weight * (parameter - start)
            parameter.grad = pull if parameter.grad is None else parameter.grad.add_(pull)
