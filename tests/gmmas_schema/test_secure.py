import re

import pytest
from pydantic import ValidationError

from gmmas_schema.errors import ConfigError
from gmmas_schema.federation import FederationConfig
from gmmas_schema.secure import PhaseRequest, SecureConfig, SecureTask, choose_threshold
from gmmas_schema.strategy import FedAvgStrategy
from gmmas_schema.vocabulary import Region


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


SECURE = {"secure": {}, "quorum": {"sites": 3, "replies": 3}, "robustness": {"norm_limit": None}}


def test_a_secure_federation_is_one_where_no_single_update_is_needed():
    config = FederationConfig.parse(SECURE, where="test")
    assert config.secure == SecureConfig()
    assert FederationConfig().secure is None


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"quorum": {"sites": 3, "replies": 2}}, "quorum.replies 2"),
        ({"wire": {"up": "int8", "top_k": 0.1}}, "wire.top_k"),
        ({"wire": {"up": "int8"}}, "wire.up int8"),
        ({"robustness": {}}, "robustness.norm_limit"),
        ({"robustness": {"norm_limit": None, "cosine_limit": 0.0}}, "robustness.cosine_limit"),
        ({"robustness": {"norm_limit": None, "clip": {"kind": "median"}}}, "robustness.clip"),
        ({"robustness": {"norm_limit": None, "combine": {"kind": "median"}}}, "robustness.combine median"),
        ({"robustness": {"norm_limit": None, "combine": {"kind": "trimmed"}}}, "robustness.combine trimmed"),
    ],
)
def test_what_looks_at_single_updates_is_refused_by_both_keys(change, key):
    with pytest.raises(ConfigError, match=rf"{re.escape(key)}.* does not go with secure"):
        FederationConfig.parse(SECURE | change, where="test")


@pytest.mark.parametrize(
    ("sites", "secure", "reason"),
    [
        (4, {"threshold": 2}, r"secure\.threshold \(2\) must be more than half of the 4 sites"),
        (4, {"threshold": 5}, r"secure\.threshold \(5\) must be .* at most all"),
        (6, {"threshold": 3}, "more than half of the 6 sites"),
        (5, {"bits": 10, "ring_bits": 16}, r"secure\.bits 10 in secure\.ring_bits 16 leave 12 steps for the weights of 5 sites"),
        (257, {}, "at most 256 sites"),
    ],
)
def test_what_does_not_fit_the_sites_that_are_waited_for_is_refused_when_it_is_read(sites, secure, reason):
    changes = {"secure": secure, "quorum": {"sites": sites, "replies": 3}}
    with pytest.raises(ConfigError, match=rf"quorum\.sites {sites} does not go with secure: .*{reason}"):
        FederationConfig.parse(SECURE | changes, where="test")


def test_what_fits_exactly_is_read():
    for sites, secure in ((4, {"threshold": 3}), (4, {"threshold": 4}), (4, {"bits": 10, "ring_bits": 16})):
        FederationConfig.parse(SECURE | {"secure": secure, "quorum": {"sites": sites, "replies": 3}}, where="test")


@pytest.mark.parametrize("name", ["x/birch", "../birch", "Birch", "birch.", "", "b" * 32, "birch\n"])
def test_a_phase_shows_keys_of_sites_and_of_nothing_else(name):
    with pytest.raises(ValidationError, match="identities"):
        PhaseRequest(run="r", round=1, attempt="", phase=1, identities={name: "key"})


NOISE = {"clip_norm": 1.0, "noise_multiplier": 1.0, "epsilon": 8.0}


def test_a_secure_federation_may_be_private():
    config = FederationConfig.parse(SECURE | {"privacy": NOISE, "model": {"network": {"prototypes": 0}}}, where="test")
    assert config.privacy is not None
    assert config.privacy.colluders == 1


@pytest.mark.parametrize(
    ("secure", "privacy", "key"),
    [
        ({"bits": 8}, {}, "secure.bits"),
        ({"clip": 1.0}, {}, "secure.clip"),
        ({"clip_groups": {}}, {}, "secure.clip_groups"),
        ({"weight_limit": 2.0}, {}, "secure.weight_limit"),
        ({}, {"colluders": 3}, "secure.minimum_holders 3"),
    ],
)
def test_what_noise_takes_the_effect_from_is_refused(secure, privacy, key):
    changes = {"secure": secure, "privacy": NOISE | privacy, "model": {"network": {"prototypes": 0}}}
    with pytest.raises(ConfigError, match=rf"{re.escape(key)} does not go with privacy"):
        FederationConfig.parse(SECURE | changes, where="test")


@pytest.mark.parametrize("weight", [-0.1, 1.1])
def test_a_pseudo_labelled_case_counts_no_more_than_a_labelled_one(weight):
    with pytest.raises(ValidationError, match="pseudo"):
        SecureTask.model_validate({"terms": "", "strategy": FedAvgStrategy(), "pseudo": {"weights": {Region.WT: weight}}})
    with pytest.raises(ValidationError, match="pseudo"):
        SecureTask.model_validate({"terms": "", "strategy": FedAvgStrategy(), "pseudo": {"limits": {"decoder": weight}}})
