import pytest

from gmmas_schema.errors import ConfigError
from gmmas_schema.model import GridConfig, ModelDefinition


def _parse(**grid: object) -> ModelDefinition:
    return ModelDefinition.parse({"grid": grid}, where="here")


def test_without_a_patch_the_window_is_the_box() -> None:
    assert GridConfig(shape=(40, 48, 40)).window == (40, 48, 40)
    assert GridConfig(shape=(40, 48, 40), patch=(32, 16, 40)).window == (32, 16, 40)


def test_only_the_window_has_to_fit_the_network() -> None:
    assert _parse(shape=[150, 190, 155], patch=[96, 96, 96]).grid.patch == (96, 96, 96)
    with pytest.raises(ConfigError, match=r"grid.shape .*multiple of 8 and at least 16"):
        _parse(shape=[150, 190, 155])
    with pytest.raises(ConfigError, match=r"grid.patch .*multiple of 8 and at least 16"):
        _parse(shape=[150, 190, 155], patch=[96, 96, 100])
    with pytest.raises(ConfigError, match=r"grid.patch .*multiple of 8 and at least 16"):
        _parse(shape=[48, 48, 48], patch=[8, 48, 48])


def test_a_patch_beyond_the_box_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"must not exceed the box"):
        _parse(shape=[48, 48, 48], patch=[48, 64, 48])


def test_the_patch_is_part_of_the_definition() -> None:
    assert _parse().digest() != _parse(patch=[32, 32, 32]).digest()
