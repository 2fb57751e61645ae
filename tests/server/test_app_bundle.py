import io
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.cli.config_utils import load_and_validate

from server.app_bundle import RUN_DIR, write_app_bundle

pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")


def test_flower_accepts_it_and_finds_both_components(tmp_path: Path) -> None:
    config, warnings = load_and_validate(write_app_bundle(tmp_path / "app") / "pyproject.toml")
    assert warnings == []
    assert config["tool"]["flwr"]["app"]["config"] == {RUN_DIR: ""}


def test_no_code_travels(tmp_path: Path) -> None:
    bundle = build_fab_from_disk(write_app_bundle(tmp_path / "app"))
    names = zipfile.ZipFile(io.BytesIO(bundle)).namelist()
    assert sorted(names) == [".info/CONTENT", "README.md", "pyproject.toml"]
    assert len(bundle) < 2000


def test_it_is_the_same_wherever_it_was_made(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    first = build_fab_from_disk(write_app_bundle(tmp_path / "one" / "app"))
    assert build_fab_from_disk(write_app_bundle(tmp_path / "other" / "app-2")) == first
    assert build_fab_from_disk(write_app_bundle(tmp_path / "one" / "app")) == first
