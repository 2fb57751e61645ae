import json
from pathlib import Path

import pytest

from benchmarks.thousand_sites import RESULT, main


@pytest.mark.slow
def test_it_measures_a_round_of_real_messages(tmp_path: Path) -> None:
    main(["--sites", "3", "--processes", "1", "--out", str(tmp_path / "result.json")])
    result = json.loads((tmp_path / "result.json").read_text())
    found = result["sites"]["3"]
    # Half precision down and single up, of the groups that a site has sequences for.
    assert 0.5 < found["mib_down_per_site"] / (result["parameters"] * 2 / 2**20) <= 1.01
    assert 0.5 < found["mib_up_per_site"] / (result["parameters"] * 4 / 2**20) <= 1.01
    assert found["coordinator_peak_mib"] >= found["coordinator_mib_before"] > 10


@pytest.mark.slow  # it imports all that a coordinator does
def test_a_measuring_process_that_dies_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(EOFError):
        main(["--sites", "0", "--processes", "1", "--out", str(tmp_path / "result.json")])


def test_the_committed_result_shows_memory_that_does_not_grow_with_the_sites() -> None:
    sites = json.loads(RESULT.read_text())["sites"]
    assert set(sites) == {"10", "100", "1000"}
    assert sites["1000"]["coordinator_peak_mib"] < 1.1 * sites["10"]["coordinator_peak_mib"]
