import io
import tomllib
import zipfile
from importlib import import_module

import pytest
from flwr.clientapp import ClientApp
from flwr.common.config import validate_config
from flwr.serverapp import ServerApp

from server.app_bundle import RUN_DIR, make_app_bundle

pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")


def test_flower_accepts_it_and_finds_both_components_where_they_are_installed() -> None:
    bundle = zipfile.ZipFile(io.BytesIO(make_app_bundle().content))
    config = tomllib.loads(bundle.read("pyproject.toml").decode())
    assert validate_config(config, check_module=True) == (True, [], [])
    components = config["tool"]["flwr"]["app"]["components"]
    for kind, expected in (("serverapp", ServerApp), ("clientapp", ClientApp)):
        module, _, name = components[kind].partition(":")
        assert isinstance(getattr(import_module(module), name), expected)
    assert config["tool"]["flwr"]["app"]["config"] == {RUN_DIR: ""}


def test_no_code_travels() -> None:
    content = make_app_bundle().content
    assert sorted(zipfile.ZipFile(io.BytesIO(content)).namelist()) == [".info/CONTENT", "README.md", "pyproject.toml"]
    assert len(content) < 2000


def test_it_is_always_the_same() -> None:
    assert make_app_bundle() == make_app_bundle()
