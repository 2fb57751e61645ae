import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import torch

from gmmas_schema.errors import ModelError
from gmmas_schema.groups import COMPLETION, GROUPS, by_group
from gmmas_schema.vocabulary import REQUIRED_TASKS, TASKS
from server.initial_model import make_initial_model
from tests.server.simulated_sites import make_config

COORDINATOR = """
import sys
from pathlib import Path
import safetensors.numpy
import server.app, server.tracking
from gmmas_model.mlflow_flavor import save_model
from gmmas_model.weights import save_weights
from gmmas_schema.federation import FederationConfig
from server.initial_model import make_initial_model

folder = Path(sys.argv[1])
config = FederationConfig.model_validate_json((folder / "config.json").read_bytes())
start = make_initial_model(config)
(folder / "start.safetensors").write_bytes(safetensors.numpy.save(start))
save_weights(folder / "weights", start, config.model)
save_model(folder / "weights", path=folder / "logged")
print(list(start) == sorted(start), "torch" in sys.modules)
"""


def test_a_coordinator_makes_and_logs_models_without_torch(tmp_path):
    config = make_config()
    (tmp_path / "config.json").write_text(config.model_dump_json())
    (tmp_path / "weights").mkdir()
    done = subprocess.run([sys.executable, "-c", COORDINATOR, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
    here, there = make_initial_model(config), safetensors.numpy.load_file(tmp_path / "start.safetensors")
    assert {name: value.tobytes() for name, value in here.items()} == {name: value.tobytes() for name, value in there.items()}
    assert (tmp_path / "logged" / "MLmodel").is_file()


def test_a_child_that_fails_says_why(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ModelError, match="exit status 1"):
        make_initial_model(make_config())


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
