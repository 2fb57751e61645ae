"""Any YAML is a site or is refused in words."""

from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gmmas_schema.errors import ConfigError
from gmmas_schema.site import SiteConfig

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12
)
KEYS = ("root", "layout", "labels", "modalities", "table", "segmentation_values", "exclude", "skip_bad_cases", "split")


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(data=st.dictionaries(st.sampled_from(KEYS), VALUES), other=VALUES)
def test_any_values_are_taken_or_refused(data: dict[str, object], other: object) -> None:
    for raw in ({"site": "north", "data": data, "coordinator": other, "node": other}, other):
        with suppress(ConfigError):
            SiteConfig.parse(raw, where="site.yaml")


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(text=st.binary(max_size=200) | VALUES.map(lambda value: yaml.safe_dump(value).encode()))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    path: Path = tmp_path_factory.mktemp("fuzz") / "site.yaml"
    path.write_bytes(text)
    with pytest.raises(ConfigError):
        SiteConfig.from_yaml(path)
