from pathlib import Path

import pytest

from gmmas_schema.errors import ConfigError
from gmmas_schema.standalone import CohortConfig, TrainConfig

EXAMPLE = Path(__file__).parents[2] / "site_configs" / "train-example.yaml"


def make(**changes: object) -> TrainConfig:
    return TrainConfig.model_validate({"cohorts": ({"name": "north", "root": "/data/north"},)} | changes)


def test_the_commented_example_shows_the_defaults() -> None:
    example = TrainConfig.from_yaml(EXAMPLE)
    plain = TrainConfig(cohorts=example.cohorts, threads=example.threads)
    assert example == plain
    assert [cohort.name for cohort in example.cohorts] == ["north", "east"]


def test_cohorts_lie_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text("cohorts: [{name: north, root: scans/north, labels: /srv/labels.csv}]\n")
    (cohort,) = TrainConfig.from_yaml(tmp_path / "train.yaml").cohorts
    assert (cohort.root, cohort.labels) == (tmp_path / "scans/north", Path("/srv/labels.csv"))


@pytest.mark.parametrize(
    ("names", "reason"),
    [(("a", "b", "a"), "several cohorts are called a"), (("a", "pooled"), "pooled"), ((), "at least 1"), (("North",), "pattern")],
)
def test_cohorts_need_names_of_their_own(names: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        TrainConfig.parse({"cohorts": [{"name": name, "root": "/data"} for name in names]}, where="train.yaml")


def test_one_cohort_trains_under_its_name_and_several_as_pooled() -> None:
    assert make().site == "north"
    assert make(cohorts=({"name": "north", "root": "/a"}, {"name": "east", "root": "/b"})).site == "pooled"


@pytest.mark.parametrize(
    "changes",
    [
        {"threads": 7},
        {"device": "cpu"},
        {"early_stop": None},
        {"validate_every": 5},
        {"tracking": None},
        {"cohorts": ({"name": "north", "root": "/elsewhere", "labels": "/elsewhere/labels.csv"},)},
    ],
)
def test_the_random_draws_do_not_depend_on_where_and_for_how_long_a_run_is_computed(changes: dict[str, object]) -> None:
    assert make(**changes).run == make().run


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"rounds": 7},
        {"training": {"batch_size": 3}},
        {"cohorts": ({"name": "north", "root": "/data/north", "modalities": ["t1"]},)},
    ],
)
def test_the_identifier_tells_runs_of_other_weights_apart(changes: dict[str, object]) -> None:
    assert make(**changes).run != make().run


def test_a_pooled_model_does_not_take_over_a_federated_ones_name() -> None:
    assert make(tracking={"uri": "sqlite:////shared/mlflow.db"}).tracking.registered_model == "gmmas-local"


def test_a_cohort_is_described_as_in_a_site_configuration() -> None:
    assert set(CohortConfig.model_fields) - {"name"} == set(CohortConfig.__base__.model_fields)


@pytest.mark.parametrize("training", [{"proximal_weight": 0.1}, {"personalised": "norms"}])
def test_what_only_a_federation_gives_a_meaning_is_refused(training: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="needs a federation"):
        TrainConfig.parse({"cohorts": [{"name": "north", "root": "/data"}], "training": training}, where="train.yaml")
