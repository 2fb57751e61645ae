import json

import pytest

from benchmarks.whole_volume import main


@pytest.mark.slow
def test_a_small_scan_is_measured_in_a_process_of_its_own(tmp_path) -> None:
    out = tmp_path / "result.json"
    sizes = ["--network", "small", "--scan", "40", "40", "32", "--box", "32", "40", "32", "--patches", "16"]
    main([*sizes, "--threads", "1", "--uncertainty", "--out", str(out)])
    result = json.loads(out.read_text())
    found = result["windows"]["16"]
    # 3 x 4 x 3 places, predicted twice: once plainly, once with dropped features.
    assert 2 * 3 * 4 * 3 - 8 <= found["windows"] <= 2 * 3 * 4 * 3
    assert found["wall_s"] > 0
    assert 100 < found["peak_memory_mib"] < 4000
    assert result["uncertainty"] is True
