"""Processor seconds of trees of real processes, against what the processes themselves say they used."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, subprocess, sys, time
from benchmarks.federation.accounting import TreeSampler, at, become_reaper
become_reaper()
burn = "import time, sys\\nwhile time.process_time() < float(sys.argv[1]): pass"
middle = "import subprocess, sys\\n" + sys.argv[1]
sampler = TreeSampler()
sampler.sample()
parent = subprocess.Popen([sys.executable, "-c", middle, burn])
sampler.roles[parent.pid] = "site"
deadline = time.monotonic() + 60
done = False
while not done and time.monotonic() < deadline:
    time.sleep(0.05)
    sampler.sample()
    done = parent.poll() is not None and len([p for p in sampler.samples[-1].seconds if p[0] != "ended"]) == 0
sampler.sample()
own = time.process_time()
print(json.dumps({
    "total": sampler.samples[-1].total_s,
    "fell": sampler.ended_unseen_s,
    "roles": sorted({role for sample in sampler.samples for role, _ in sample.seconds}),
    "peak": sum(sampler.peaks_mib().values()),
    "half": at(sampler.samples, (sampler.samples[0].time + sampler.samples[-1].time) / 2).total_s,
}))
"""

WAITED = "subprocess.run([sys.executable, '-c', sys.argv[1], '0.5'], check=True)"
ORPHANED = "subprocess.Popen([sys.executable, '-c', sys.argv[1], '0.5'], start_new_session=True)"


def account(middle: str) -> dict:
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", SCRIPT, middle], cwd=root, capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout)


@pytest.mark.parametrize("middle", [WAITED, ORPHANED])
def test_grandchildren_that_have_ended_count_waited_for_or_not(middle: str) -> None:
    found = account(middle)
    # The burner itself burns 0.5 s; two interpreters start, which takes a few hundredths to some tenths.
    assert 0.5 <= found["total"] < 2.5
    assert found["fell"] == pytest.approx(0, abs=0.05)
    assert "site" in found["roles"]
    assert found["peak"] > 5
    assert 0 <= found["half"] <= found["total"]
