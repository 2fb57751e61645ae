import pytest

from gmmas_schema.errors import ConfigError
from gmmas_schema.federation import FederationConfig
from gmmas_schema.robustness import RobustnessConfig

PRIVACY = {"clip_norm": 1.0, "noise_multiplier": 2.0, "epsilon": 8.0}


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"model": {"network": {"prototypes": 4}}}, "model.network.prototypes"),
        ({"training": {"uncertainty_weighting": "closed_form"}}, "uncertainty_weighting closed_form"),
        ({"robustness": {"cosine_limit": 0.0}}, "robustness.cosine_limit"),
        ({"robustness": {"clip": {"kind": "median"}}}, "robustness.clip"),
        ({"robustness": {"clip": {"kind": "fixed", "norm": 1.0}}}, "robustness.clip"),
        ({"robustness": {"combine": {"kind": "median"}}}, "robustness.combine median"),
        ({"robustness": {"combine": {"kind": "trimmed"}}}, "robustness.combine trimmed"),
    ],
)
def test_what_would_go_past_the_noise_is_refused_by_name_and_fine_without_privacy(other, named):
    FederationConfig.parse(other, where="test")
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")) as caught:
        FederationConfig.parse(other | {"privacy": PRIVACY}, where="test")
    assert "does not go with privacy" in caught.value.got


def test_the_reach_of_the_optimiser_goes_with_privacy():
    assert FederationConfig.parse({"privacy": PRIVACY}, where="test").robustness.norm_limit == 3.0


def test_a_denominator_of_no_group_is_refused():
    with pytest.raises(ConfigError, match=r"encoder\.pet"):
        FederationConfig.parse({"privacy": PRIVACY | {"holders": {"encoder.pet": 2}}}, where="test")


def test_a_median_gives_pseudo_labels_no_full_vote():
    with pytest.raises(ConfigError, match=r"training\.semi_supervised"):
        FederationConfig.parse({"robustness": {"combine": {"kind": "median"}}, "training": {"semi_supervised": {}}}, where="test")
    FederationConfig.parse({"robustness": {"combine": {"kind": "trimmed"}}, "training": {"semi_supervised": {}}}, where="test")


@pytest.mark.parametrize(
    ("raw", "needed"),
    [
        ({}, True),
        ({"norm_limit": None}, False),
        ({"norm_limit": None, "cosine_limit": 0.0}, True),
        ({"norm_limit": None, "clip": {"kind": "median"}}, True),
        ({"norm_limit": None, "combine": {"kind": "median"}}, True),
    ],
)
def test_replies_are_kept_only_where_something_needs_the_whole_round(raw, needed):
    assert RobustnessConfig.model_validate(raw).needs_whole_round is needed
