import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_schema.base import FrozenModel, differing_keys
from gmmas_schema.errors import ConfigError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.dictionaries(st.text("ab", min_size=1), v), max_leaves=8
)


@given(json_values, json_values)
def test_differences_are_there_exactly_when_values_differ(before: object, after: object) -> None:
    differences = differing_keys(before, after)
    same = json.dumps(_without_none(before), sort_keys=True) == json.dumps(_without_none(after), sort_keys=True)
    assert (differences == []) == same
    assert differing_keys(before, before) == []


def _without_none(value: object) -> object:
    """A key that is None and a key that is missing are the same configuration."""
    if isinstance(value, dict):
        return {key: inner for key, each in value.items() if (inner := _without_none(each)) is not None}
    return value


def test_records_in_a_list_are_told_apart_by_their_place() -> None:
    before = {"cohorts": [{"root": "/a", "seed": 0}, {"root": "/b", "seed": 0}], "channels": [4, 8]}
    after = {"cohorts": [{"root": "/a", "seed": 0}, {"root": "/b", "seed": 1}], "channels": [8, 8]}
    assert differing_keys(before, after) == ["cohorts.1.seed: 0 -> 1", "channels: [4, 8] -> [8, 8]"]


def test_what_is_left_at_its_default_is_no_choice() -> None:
    class Part(FrozenModel):
        depth: int = 2

    class Before(FrozenModel):
        name: str
        part: Part = Part()

    class After(Before):
        new: bool = False

    assert Before(name="a").choices_digest() == After(name="a", part=Part(depth=2)).choices_digest()
    assert After(name="a").choices_digest() != After(name="a", new=True).choices_digest()
    assert After(name="a").choices_digest() != After(name="a", part=Part(depth=3)).choices_digest()
    assert Before(name="a").digest() != After(name="a").digest()


@pytest.mark.parametrize("text", ["since: 2026-02-30", "[" * 5000, "a: {", "\x00"])
def test_what_is_no_yaml_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "federation.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="not valid YAML"):
        FrozenModel.from_yaml(path)
