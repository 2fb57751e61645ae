import subprocess
import sys
from pathlib import Path

import pytest

from gmmas_runtime.flower import flower_environment, flower_program


def test_environment_keeps_flower_quiet_and_at_home(tmp_path: Path) -> None:
    environment = flower_environment(tmp_path)
    assert environment["FLWR_HOME"] == str(tmp_path)
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"


def test_a_proxy_never_sees_loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    entries = flower_environment(tmp_path)["NO_PROXY"].split(",")
    assert entries == ["intranet.example", "127.0.0.1", "localhost"]


def test_programs_are_those_of_this_environment(tmp_path: Path) -> None:
    environment = flower_environment(tmp_path)
    found = subprocess.run(["/bin/sh", "-c", "command -v flwr-serverapp"], env=environment, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()) == Path(flower_program("flwr-serverapp"))
    assert Path(flower_program("flower-superlink")).parent == Path(sys.executable).parent


def test_relative_home_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="absolute"):
        flower_environment(Path("home"))
