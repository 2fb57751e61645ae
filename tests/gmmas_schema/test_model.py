"""The model definition: sizes, tasks, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from gmmas_schema.errors import ConfigError
from gmmas_schema.model import SIZES, ModelDefinition, NetworkConfig
from gmmas_schema.vocabulary import REQUIRED_TASKS, TASKS, Task


def parse(network: Any) -> NetworkConfig:
    return ModelDefinition.parse({"network": network}, where="test").network


def test_small_is_the_default() -> None:
    assert SIZES["small"] == NetworkConfig() == ModelDefinition().network
    assert SIZES["small"].tasks == REQUIRED_TASKS


@pytest.mark.parametrize("size", SIZES)
def test_a_size_equals_its_values(size: str, tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(f"network: {size}\n")
    named = ModelDefinition.from_yaml(path)
    assert named.network == SIZES[size] == parse({"size": size})
    assert named.digest() == ModelDefinition.parse({"network": SIZES[size].model_dump(mode="json")}, where="test").digest()
    # What travels and is recorded holds the values, so a size may grow in a later release without changing an old model.
    assert ModelDefinition.model_validate_json(named.model_dump_json()) == named
    assert "size" not in named.model_dump_json()


def test_single_values_go_beside_a_size() -> None:
    network = parse({"size": "paper", "tasks": ["segmentation", "idh", "codeletion", "mgmt"]})
    assert network == SIZES["paper"].model_copy(update={"tasks": (*REQUIRED_TASKS, Task.MGMT)})
    assert parse({"transformer_layers": 0}) == NetworkConfig(transformer_layers=0)


def test_tasks_are_put_in_order_and_are_part_of_the_digest() -> None:
    network = parse({"tasks": ["mgmt", "idh", "grade", "codeletion", "segmentation"]})
    assert network.tasks == TASKS
    assert network.digest() != NetworkConfig().digest()


@pytest.mark.parametrize(
    ("network", "told"),
    [
        ("large", "sizes are small, paper"),
        ({"size": "large"}, "sizes are small, paper"),
        ({"size": ["paper"]}, "sizes are small, paper"),
        ({"size": "paper", "depth": 3}, "unknown key 'network.depth'"),
        ({"channels": [8, 16, 32]}, "3 channel counts and 4 block counts"),
        ({"channels": [8, 12], "blocks": [1, 1], "transformer_heads": 5}, "5 does not divide 12"),
        ({"tasks": ["segmentation", "idh", "grade"]}, "missing codeletion"),
        ({"tasks": []}, "missing segmentation, idh, codeletion"),
        ({"tasks": ["segmentation", "idh", "codeletion", "idh"]}, "named twice"),
        ({"tasks": ["segmentation", "idh", "codeletion", "egfr"]}, "network.tasks.3"),
    ],
)
def test_a_wrong_network_is_refused_by_name(network: Any, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(network)
    assert told in refused.value.got
