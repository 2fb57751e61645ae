import torch
from hypothesis import given
from hypothesis import strategies as st

from strategies.fedprox import ProximalPull

numbers = st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=5)


@given(numbers, st.floats(0.0078125, 100, width=32), st.booleans())
def test_the_gradient_is_that_of_the_written_out_term(values, mu, trained):
    start = torch.tensor(values)
    parameter = torch.nn.Parameter(start.clone())
    pull = ProximalPull([parameter], weight=mu)
    with torch.no_grad():
        parameter.add_(torch.linspace(-1, 1, len(values)))
    written = parameter.detach().clone().requires_grad_()
    loss = mu / 2 * (written - start).square().sum()
    if trained:
        (written.sin().sum() + loss).backward()
        parameter.sin().sum().backward()
    else:
        loss.backward()
    pull.add_gradient()
    torch.testing.assert_close(parameter.grad, written.grad)


def test_at_the_start_nothing_is_pulled_and_what_is_not_named_never():
    held, free = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    pull = ProximalPull([held], weight=2.0)
    pull.add_gradient()
    assert held.grad is not None
    assert not held.grad.any()
    with torch.no_grad():
        held += 1
        free += 1
    held.grad = None
    pull.add_gradient()
    torch.testing.assert_close(held.grad, torch.full((3,), 2.0))
    assert free.grad is None


def test_gradient_descent_under_a_strong_pull_stays_where_it_began():
    """F = (theta - 1)^2 / 2 has its minimum at 1, with the pull at 1 / (1 + mu)."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    pull = ProximalPull([parameter], weight=9.0)
    for _ in range(200):
        parameter.grad = None
        ((parameter - 1).square().sum() / 2).backward()
        pull.add_gradient()
        with torch.no_grad():
            parameter -= 0.05 * parameter.grad
    torch.testing.assert_close(parameter.detach(), torch.tensor([0.1]))
