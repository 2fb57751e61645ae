"""The specification of phantom cohorts: defaults, presets and refusals."""

from pathlib import Path
from typing import Any

import pytest

from gmmas_schema.errors import ConfigError
from gmmas_schema.phantom import SCANNERS, PhantomSpec
from gmmas_schema.vocabulary import MODALITIES, REQUIRED_TASKS, SUBTYPES, Layout, Modality, Task

DEMO = Path(__file__).parents[2] / "site_configs" / "phantom-demo.yaml"


def parse(**site: Any) -> PhantomSpec:
    return PhantomSpec.parse({"sites": [{"name": "a", "cases": 2, "scanner": "research-3t", **site}]}, where="test")


def test_defaults_are_a_fully_labelled_site() -> None:
    site = parse().sites[0]
    assert site.modalities == MODALITIES
    assert site.labelled == dict.fromkeys(REQUIRED_TASKS, 1.0)
    assert tuple(site.mix) == SUBTYPES
    assert site.layout is Layout.BRATS2021


def test_a_preset_equals_its_parameters() -> None:
    spelt_out = SCANNERS["clinical-3t"].model_dump()
    assert parse(scanner="clinical-3t").digest() == parse(scanner=spelt_out).digest()
    assert parse(scanner="clinical-3t").digest() != parse(scanner="old-1.5t").digest()


def test_scanner_presets_differ() -> None:
    assert len({scanner.digest() for scanner in SCANNERS.values()}) == len(SCANNERS)


def test_modalities_are_put_in_order() -> None:
    assert parse(modalities=["flair", "t1"]).sites[0].modalities == (Modality.T1, Modality.FLAIR)


def test_tasks_that_are_not_named_are_labelled() -> None:
    assert parse(labelled={"codeletion": 0.0}).sites[0].labelled == {Task.SEGMENTATION: 1.0, Task.IDH: 1.0, Task.CODELETION: 0.0}


def test_a_share_of_grades_can_be_named() -> None:
    assert parse(labelled={"grade": 0.5}).sites[0].labelled == {**dict.fromkeys(REQUIRED_TASKS, 1.0), Task.GRADE: 0.5}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"scanner": "toshiba"}, "presets are research-3t"),
        ({"scanner": {"noise": -1}}, "noise"),
        ({"cases": 0}, "cases"),
        ({"name": "North"}, "name"),
        ({"name": "../x"}, "name"),
        ({"modalities": ["t1", "t1"]}, "named twice"),
        ({"modalities": []}, "modalities"),
        ({"labelled": {"idh": 1.5}}, "labelled.idh"),
        ({"labelled": {"mgmt": 1.0}}, "no sign of MGMT"),
        ({"mix": {"glioblastoma": 0}}, "above 0"),
        ({"colour": "red"}, "unknown key 'sites.0.colour'"),
    ],
)
def test_a_wrong_site_is_refused_by_name(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(**change)
    assert told in refused.value.got


def test_two_sites_of_one_name_are_refused() -> None:
    site = {"name": "a", "cases": 1, "scanner": "research-3t"}
    with pytest.raises(ConfigError, match="same name: a"):
        PhantomSpec.parse({"sites": [site, site]}, where="test")


def test_the_demo_is_the_federation_it_claims_to_be() -> None:
    sites = {site.name: site for site in PhantomSpec.from_yaml(DEMO).sites}
    assert list(sites) == ["north", "south", "east", "west", "unseen"]
    assert Modality.T1CE not in sites["south"].modalities
    assert sites["south"].labelled[Task.CODELETION] == 0
    assert sites["east"].modalities == (Modality.T2, Modality.FLAIR)
    assert set(sites["east"].labelled.values()) == {0.5}
    assert sites["west"].labelled == {Task.SEGMENTATION: 0.0, Task.IDH: 1.0, Task.CODELETION: 1.0}
    assert len({site.scanner.digest() for site in sites.values()}) == len(sites)
    assert {site.layout for site in sites.values()} == {Layout.BRATS2021, Layout.BRATS2023}
