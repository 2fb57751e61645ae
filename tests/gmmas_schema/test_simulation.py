from pathlib import Path

import pytest

from gmmas_schema.errors import ConfigError
from gmmas_schema.federation import FederationConfig
from gmmas_schema.phantom import PhantomSpec
from gmmas_schema.simulation import SimulationConfig

CONFIGS = Path(__file__).parents[2] / "site_configs"
COHORTS = [{"name": "north", "root": "/north"}, {"name": "east", "root": "/east", "modalities": ["flair"]}]


def parse(**keys: object) -> SimulationConfig:
    return SimulationConfig.parse(keys, where="test")


def test_the_example_names_the_demos_own_files() -> None:
    config = SimulationConfig.from_yaml(CONFIGS / "simulation-example.yaml")
    assert config.federation == FederationConfig.from_yaml(CONFIGS / "federation-demo.yaml")
    assert config.phantom == PhantomSpec.from_yaml(CONFIGS / "phantom-demo.yaml")
    assert config.cohort_names == ("north", "south", "east", "west")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    config = parse(cohorts=COHORTS, copies=3)
    (tmp_path / "simulation.json").write_text(config.model_dump_json())
    assert SimulationConfig.from_yaml(tmp_path / "simulation.json") == config


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "simulation.yaml").write_text("cohorts: [{name: a, root: scans/a}, {name: b, root: /b}]\n")
    config = SimulationConfig.from_yaml(tmp_path / "simulation.yaml")
    assert [cohort.root for cohort in config.cohorts] == [tmp_path / "scans" / "a", Path("/b")]


def test_copies_share_a_cohort() -> None:
    config = parse(cohorts=COHORTS, copies=2)
    assert config.site_names == {"north-0001": "north", "north-0002": "north", "east-0001": "east", "east-0002": "east"}
    assert parse(cohorts=COHORTS).site_names == {"north": "north", "east": "east"}


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({}, "either `phantom` or `cohorts`"),
        ({"cohorts": COHORTS, "phantom": str(CONFIGS / "phantom-demo.yaml")}, "either `phantom` or `cohorts`"),
        ({"cohorts": COHORTS + COHORTS[:1]}, "several cohorts are called north"),
        ({"cohorts": COHORTS, "leave_out": ["west"]}, "leave_out names west, which is none of north, east"),
        ({"cohorts": COHORTS[:1]}, "federation.quorum.sites is 2, but the simulation has 1 sites"),
        ({"cohorts": COHORTS, "phantoms": 1}, "unknown key 'phantoms'"),
        ({"cohorts": COHORTS, "federation": {"round": 1}}, "unknown key 'federation.round'"),
        ({"cohorts": [{"name": "n" * 28, "root": "/n"}], "copies": 2}, "longer than 31 characters"),
        ({"cohorts": COHORTS, "federation": "nowhere.yaml"}, "nowhere.yaml"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(keys: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason.replace(".", r"\.")):
        parse(**keys)
