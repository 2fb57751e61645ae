import pytest
from pydantic import ValidationError

from gmmas_schema.secure import SecureConfig, choose_threshold


def test_the_default_threshold_is_two_thirds_rounded_up():
    assert [choose_threshold(sites) for sites in (3, 4, 5, 6, 7, 10)] == [2, 3, 4, 4, 5, 7]


@pytest.mark.parametrize(("sites", "threshold"), [(4, 2), (5, 2), (3, 4)])
def test_a_threshold_of_half_or_more_than_all_is_refused(sites, threshold):
    with pytest.raises(ValueError, match=r"secure\.threshold"):
        choose_threshold(sites, threshold=threshold)


def test_a_clip_may_be_given_per_group_and_only_for_a_group():
    config = SecureConfig(clip=0.5, clip_groups={"decoder": 0.1})
    assert (config.clip_of("decoder"), config.clip_of("fusion")) == (0.1, 0.5)
    with pytest.raises(ValidationError, match="no such group: weights"):
        SecureConfig(clip_groups={"weights": 1.0})


@pytest.mark.parametrize(
    "wrong", [{"minimum_holders": 2}, {"bits": 3}, {"bits": 32}, {"ring_bits": 24}, {"clip": 0}, {"weight_limit": 0}, {"topk": 1}]
)
def test_settings_beyond_their_bounds_are_refused(wrong):
    with pytest.raises(ValidationError):
        SecureConfig(**wrong)
