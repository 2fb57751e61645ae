"""A node whose clock is wrong: behind by minutes it takes part as ever, ahead by a minute it is told so at its start."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gmmas_runtime.process_state import stop_supervisor
from tests.faults.federation import VICTIM, Federation, forget, missing_replies, outcome
from tests.faults.table import EQUAL, Row, write_row

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(1800)]

LIBRARY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long skew(void) { const char *text = getenv("CLOCK_SKEW_S"); return text ? atol(text) : 0; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*next)(clockid_t, struct timespec *);
    if (!next) next = dlsym(RTLD_NEXT, "clock_gettime");
    int result = next(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += skew();
    return result;
}

time_t time(time_t *into) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}
"""


@pytest.fixture(scope="module")
def skewed_clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a library that shifts the wall clock of a process by CLOCK_SKEW_S."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for a shifted clock")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "skew.c").write_text(LIBRARY)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "skew.so", folder / "skew.c", "-ldl"], check=True)
    told = subprocess.run(
        [sys.executable, "-c", "import time, datetime; print(int(time.time()), int(datetime.datetime.now().timestamp()))"],
        env=os.environ | {"LD_PRELOAD": str(folder / "skew.so"), "CLOCK_SKEW_S": "-1000000"},
        capture_output=True,
        text=True,
        check=True,
    )
    now = int(time.time())
    if any(abs(now - int(seen) - 1_000_000) > 1000 for seen in told.stdout.split()):
        pytest.skip("the clock of this interpreter cannot be shifted")
    return folder / "skew.so"


@contextmanager
def node_with_clock(federation: Federation, library: Path, skew_s: int) -> Iterator[subprocess.Popen[str]]:
    """Start the victim's node anew with a shifted clock, as `gmmas site start` does."""
    stop_supervisor(federation.node().state_file)
    environment = os.environ | {"LD_PRELOAD": str(library), "CLOCK_SKEW_S": str(skew_s), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "gmmas_cli.main", "site", "start", "--config", str(federation.folder.site_yaml(VICTIM))]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def test_a_clock_that_is_behind_changes_nothing_and_one_that_is_ahead_is_told(
    tmp_path_factory: pytest.TempPathFactory, skewed_clock: Path
) -> None:
    with Federation(tmp_path_factory.mktemp("clocks")).up() as federation:
        folder, story = federation.run()
        unbroken = outcome(folder)
        with node_with_clock(federation, skewed_clock, 60) as ahead:
            text, _ = ahead.communicate(timeout=300)
            assert ahead.returncode != 0
            assert "clock" in text
        with node_with_clock(federation, skewed_clock, -200):
            folder, story = federation.run()
            assert missing_replies(folder) == 0
            assert outcome(folder) == unbroken
            write_row(Row("a node's clock 200 s behind", "whole run", EQUAL, story.resumes, 0, story.seconds))
            forget(folder)
