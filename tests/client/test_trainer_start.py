"""How a trainer's process begins: cases that do not pass, and a site.yaml that is wrong."""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.folder import NodeFolder
from client.trainer import main
from gmmas_schema.errors import ReasonCode
from gmmas_schema.site import SiteConfig
from tests.client.serving import serving
from tests.client.sites import read_site, write_site


def spoil(config: SiteConfig) -> None:
    """Truncate the first scan of the cohort."""
    scan = sorted(config.data.root.rglob("*_t1.nii"))[0]
    scan.write_bytes(scan.read_bytes()[:500])


def test_bad_cases_are_left_out_where_the_site_says_so(tmp_path: Path) -> None:
    config = read_site(tmp_path, cases=4)
    spoil(config)
    lenient = config.model_copy(update={"data": config.data.model_copy(update={"skip_bad_cases": True})})
    with serving(lenient) as trainer:
        assert (trainer.status().cases, trainer.status().cases_left_out) == (3, 1)


@pytest.fixture
def handlers() -> Iterator[None]:
    """Give the signals back that main() takes."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_bad_cases_end_the_process_with_one_message_and_a_fault_for_the_supervisor(
    tmp_path: Path, handlers: None, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_site(tmp_path, cases=4)
    config = SiteConfig.from_yaml(path)
    spoil(config)
    assert main(["--config", str(path)]) == os.EX_CONFIG
    assert "1 of 4 cases do not pass the quality gate" in caplog.text
    fault = NodeFolder(config.node.state).read_fault()
    assert fault is not None
    assert fault.code is ReasonCode.DATA_UNREADABLE
    assert "skip_bad_cases" in fault.remedy
    assert not NodeFolder(config.node.state).socket.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("node: {}", "missing key 'site'"),
        ("surprise: 1", "unknown key 'surprise'"),
        ("site: Not Allowed", "site: String should match pattern"),
    ],
)
def test_a_wrong_site_yaml_is_explained(
    tmp_path: Path, handlers: None, caplog: pytest.LogCaptureFixture, change: str, message: str
) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(change)
    with caplog.at_level(logging.ERROR):
        assert main(["--config", str(path)]) == os.EX_CONFIG
    assert message in caplog.text
