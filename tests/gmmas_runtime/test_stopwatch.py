import threading
import time

import pytest

from gmmas_runtime.stopwatch import Stopwatch


def work(seconds: float) -> None:
    """Use the processor for so long."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_stages_add_up() -> None:
    watch = Stopwatch()
    for name in ("load", "train", "train"):
        with watch.stage(name):
            work(0.01)
    assert list(watch.seconds) == ["load", "train"]
    assert watch.seconds["train"] >= 0.02
    assert watch.seconds["load"] >= 0.01


def test_processor_seconds_are_those_of_all_threads() -> None:
    watch = Stopwatch()
    threads = [threading.Thread(target=work, args=(0.05,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.15 <= watch.cpu_seconds < 5


def test_waiting_costs_no_processor() -> None:
    watch = Stopwatch()
    with watch.stage("wait"):
        threading.Event().wait(0.3)
    assert watch.seconds["wait"] >= 0.3
    assert watch.cpu_seconds < 0.2


def test_a_stage_that_fails_is_not_counted() -> None:
    watch = Stopwatch()
    with pytest.raises(RuntimeError), watch.stage("train"):
        raise RuntimeError
    assert watch.seconds == {}
