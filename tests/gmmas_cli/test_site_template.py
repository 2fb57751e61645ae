"""The site.yaml that a hospital starts from names every key there is."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from gmmas_cli.site_template import SITE_TEMPLATE
from gmmas_schema.policy import SitePolicy
from gmmas_schema.site import DataConfig, NodeConfig, SiteConfig
from gmmas_schema.vocabulary import Layout, Tissue

VALUES: dict[str, Any] = {
    "site": "north",
    "root": "/data",
    "labels": None,
    "modalities": ["t1", "t1ce", "t2", "flair"],
    "coordinator": "fed.example.org:9092",
    "root_certificate": "authority.pem",
    "private_key": "keys/north",
    "runtime_port": 19091,
    "threads": 2,
}
TEXT = SITE_TEMPLATE.format_map({key: json.dumps(value) for key, value in VALUES.items()})


def keys_of(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return every key of a model and of the models in it, joined by dots."""
    found = []
    for name, field in model.model_fields.items():
        found.append(f"{prefix}{name}")
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found += keys_of(kind, f"{prefix}{name}.")
    return found


@pytest.mark.parametrize("key", keys_of(SiteConfig))
def test_every_key_is_named(key: str) -> None:
    block = next(part for part in re.split(r"\n(?=(?:# )?\w+:)", TEXT) if re.match(rf"(?:# )?{key.split('.', maxsplit=1)[0]}:", part))
    assert re.search(rf"\b{key.rpartition('.')[2]}\b:?", block), key


def test_as_written_it_is_the_default_policy() -> None:
    site = SiteConfig.parse(yaml.safe_load(TEXT), where="template", folder=Path("/site"))
    assert site.policy == SitePolicy()
    assert set(yaml.safe_load(TEXT)["policy"]) == set(SitePolicy.model_fields)
    assert site.data == DataConfig(root=Path("/data"))
    assert site.node == NodeConfig(private_key=Path("/site/keys/north"), state=Path("/site/state"))


def test_what_stands_in_comments_is_valid_once_the_sign_is_taken_away() -> None:
    commented = re.sub(r"^  # (\w+: [\[{n])", r"  \1", TEXT, flags=re.MULTILINE)
    site = SiteConfig.parse(yaml.safe_load(commented), where="template", folder=Path("/site"))
    assert site.data.table is not None
    assert site.data.segmentation_values == {1: Tissue.NECROSIS, 2: Tissue.OEDEMA, 3: Tissue.ENHANCING}
    assert site.data.exclude == ()
    assert site.node.peers is None


def test_every_layout_is_named() -> None:
    assert all(layout in TEXT for layout in Layout)


def test_examples_in_words_are_valid() -> None:
    windows = re.findall(r"'((?:mon|sat)[^']*)'", TEXT)
    assert len(windows) == 2
    SitePolicy(hours=tuple(windows), zone="Europe/Berlin")
