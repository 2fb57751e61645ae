"""The documentation leads from nothing to a trained round, and what it says of rights and networks holds.

GMMAS_NEWCOMER=install (`make test-newcomer`) installs the software by the documentation's commands too, from the committed state; without
it the machines share this checkout's packages, and need no network.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.newcomer.machine import environment_of_this_checkout, machines
from tests.newcomer.steps import marks, read_steps
from tests.newcomer.story import HOSPITALS, Told, tell_everything

REPOSITORY = Path(__file__).parents[2]
LOOPBACK = ("127.0.0.1", "::1")
SHARED = ("gmmas-checkout", "gmmas-packages")
"""What stands for the installation, beside its folder."""

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("newcomer")
    steps = read_steps(REPOSITORY)
    release = folder / "release"
    installs = os.environ.get("GMMAS_NEWCOMER") == "install"
    if installs:
        release.mkdir()
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=REPOSITORY, capture_output=True, check=True)
        subprocess.run(["tar", "--extract", "--directory", str(release)], input=archive.stdout, check=True)
    else:
        shutil.copytree(REPOSITORY / "site_configs", release / "site_configs")
    with machines(release) as place:
        if installs:
            place.install(steps["install"].commands)
        else:
            place.install(environment_of_this_checkout(REPOSITORY))
            place.share(next(Path(path) for path in sys.path if path.endswith("site-packages")))
        yield tell_everything(place, steps, folder)


def test_two_hospitals_trained_a_round(told: Told) -> None:
    round_ = json.loads(str(told.facts["round"]))
    assert {site["site"]: site["outcome"] for site in round_["sites"]} == dict.fromkeys(HOSPITALS, "accepted")
    assert json.loads(str(told.facts["result"]))["best_round"] in (0, 1)


def test_every_block_of_the_documentation_was_run(told: Told) -> None:
    run = {step for step, _ in told.printed}
    assert run | {"install"} == set(marks(REPOSITORY))


def test_only_the_enrolment_is_missing_before_it(told: Told) -> None:
    for name in HOSPITALS:
        before, after = (told.printed[step, name] for step in ("join-check", "join-check-again"))
        assert "does not know this site's key" in before
        assert before.split().count("bad") == 1
        assert after.split().count("bad") == 0


def test_nobody_else_reads_data_or_keys(told: Told) -> None:
    assert len(told.facts["uids"]) == len(HOSPITALS)  # type: ignore[arg-type]
    for name in ("coordinator", *HOSPITALS):
        assert told.facts["readable", name, "/srv/gmmas"] == []
    for name in HOSPITALS:
        assert told.facts["readable", name, "/data/glioma"] == []
    for path in ("/srv/gmmas/keys/north", "/data/glioma/labels.csv"):
        assert told.facts["another hospital's user", path] == {"root": True, "north": True, "south": False}


def test_the_services_write_nothing_outside_their_folder(told: Told) -> None:
    for name in HOSPITALS:
        assert told.facts["written outside", name] == []


def test_hospitals_open_no_port_and_reach_one_port_only(told: Told) -> None:
    for name in HOSPITALS:
        listening = told.facts["listening", name]
        assert listening
        assert {address for address, _ in listening} <= set(LOOPBACK)  # type: ignore[attr-defined]
    open_ = {port for address, port in told.facts["listening", "coordinator"] if address not in LOOPBACK}  # type: ignore[attr-defined]
    assert open_ == {9443}
    assert told.facts["ways"] == {
        "north to the coordinator's port": True,
        "north to its dashboard": False,
        "north to south": False,
        "coordinator to north": False,
    }


def test_the_record_of_each_hospital_is_whole(told: Told) -> None:
    for name in HOSPITALS:
        assert str(told.facts["record", name]).startswith("whole: ")


def test_a_backup_holds_the_key_and_no_scan(told: Told) -> None:
    assert told.facts["backup rights"] == "600:root"
    files = told.facts["backup"]
    assert isinstance(files, list)
    assert {"./site.yaml", "./keys/north", "./state/audit-log/head.json"} <= set(files)
    assert not [name for name in files if "/cache/" in name or "/logs/" in name]


def test_leaving_leaves_nothing(told: Told) -> None:
    assert told.facts["user is gone"]
    left = told.facts["left"]
    assert isinstance(left, list)
    assert not [name for name in left if "gmmas" in name and name not in SHARED]
