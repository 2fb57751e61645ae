import numpy as np
import torch

from gmmas_schema.groups import COMPLETION, GROUPS, by_group
from gmmas_schema.vocabulary import REQUIRED_TASKS, TASKS
from server.initial_model import make_initial_model
from tests.server.simulated_sites import make_config


def test_the_start_follows_from_the_seed_alone():
    config = make_config()
    first = make_initial_model(config)
    torch.rand(3)
    second = make_initial_model(config)
    other = make_initial_model(config.model_copy(update={"seed": 8}))
    assert {name: value.tobytes() for name, value in first.items()} == {name: value.tobytes() for name, value in second.items()}
    assert any(first[name].tobytes() != other[name].tobytes() for name in first)


def test_it_leaves_the_callers_random_state_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    make_initial_model(make_config())
    assert torch.equal(torch.rand(1), expected)


def test_it_has_every_group_in_float32_row_order():
    tensors = make_initial_model(make_config())
    optional = {f"{part}.{task}" for part in ("head", "uncertainty") for task in TASKS if task not in REQUIRED_TASKS}
    assert set(by_group(tensors)) == set(GROUPS) - set(COMPLETION) - optional
    assert all(value.dtype == np.float32 and value.flags.c_contiguous for value in tensors.values())
