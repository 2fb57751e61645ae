import asyncio
import inspect
import os
import subprocess
import sys
import threading
import time

import pytest
from flwr.supernode import start_client_internal
from flwr.supernode.cli import flower_supernode

import client.supernode
from client.supernode import ACQUIRE_PATH, IDLE_S, SHORTEST_IDLE_S, SHORTEST_LOOK_S, HeldQuestions, Pace


class Clock:
    """Moves when somebody sleeps; remembers the pauses."""

    def __init__(self) -> None:
        self.now, self.pauses = 0.0, []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(clock=lambda: clock.now, sleep=clock.sleep)


def test_a_node_that_was_busy_asks_soon_and_then_ever_less_often(clock: Clock, pace: Pace) -> None:
    for _ in range(40):
        pace.sleep(IDLE_S)
    assert clock.pauses[0] == SHORTEST_IDLE_S
    assert clock.pauses == sorted(clock.pauses)
    assert clock.pauses[-1] == IDLE_S, "no more often than Flower's in the long run"


def test_what_is_waited_for_too_long_is_a_share_of_what_was_waited(clock: Clock, pace: Pace) -> None:
    for _ in range(12):
        before = clock.now
        pace.sleep(IDLE_S)
        assert clock.now - before <= max(SHORTEST_IDLE_S, 0.15 * before) + 1e-9


def test_a_running_task_is_looked_after_closely_first(clock: Clock, pace: Pace) -> None:
    for _ in range(200):
        pace.sleep(0.5)
    assert clock.pauses[0] == SHORTEST_LOOK_S
    assert clock.pauses[-1] == 0.5


def test_work_starts_the_pace_anew(clock: Clock, pace: Pace) -> None:
    for _ in range(40):
        pace.sleep(IDLE_S)
    pace.sleep(0.5)
    pace.sleep(IDLE_S)
    assert clock.pauses[-1] == SHORTEST_IDLE_S


def test_other_clocks_are_those_of_the_module(pace: Pace) -> None:
    assert pace.monotonic() > 0


def test_flowers_loop_still_sleeps_as_this_relies_upon() -> None:
    assert inspect.ismodule(start_client_internal)
    loop = inspect.getsource(start_client_internal.start_client_internal)
    assert loop.count("time.sleep(") == 1
    assert f"time.sleep({IDLE_S:g})" in loop
    assert inspect.getsource(start_client_internal._push_messages).count("time.sleep(0.5)") == 2
    assert flower_supernode.__globals__["start_client_internal"] is start_client_internal.start_client_internal
    assert "import (  # pylint: disable=import-outside-toplevel\n        create_app" in inspect.getsource(flower_supernode_module())


def flower_supernode_module():
    return inspect.getmodule(flower_supernode)


def test_the_held_path_is_that_of_the_runtime_api() -> None:
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.supernode.main import create_app
    from flwr.supernode.nodestate import NodeStateFactory

    paths = create_app(NodeStateFactory(ObjectStoreFactory()), superexec_auth_secret=None).openapi()["paths"]
    assert ACQUIRE_PATH in paths


async def passed(middleware: HeldQuestions, path: str) -> float:
    start = time.monotonic()
    await middleware({"type": "http", "path": path}, None, None)
    return time.monotonic() - start


async def nothing(*_: object) -> None:
    """Stand for Flower's app."""


def test_a_question_is_let_through_once_there_is_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.supernode, "HOLD_S", 0.4)
    work = threading.Event()
    middleware = HeldQuestions(nothing, work=work)

    async def ask() -> tuple[float, float, float]:
        asyncio.get_running_loop().call_later(0.1, work.set)
        return await passed(middleware, ACQUIRE_PATH), await passed(middleware, ACQUIRE_PATH), await passed(middleware, "/v1/other")

    told, empty, other = asyncio.run(ask())
    assert 0.09 <= told < 0.39
    assert empty >= 0.39, "one task lets one question through"
    assert other < 0.2


def test_work_is_told_when_the_loop_begins_to_wait_for_the_executor(clock: Clock) -> None:
    told = []
    pace = Pace(clock=lambda: clock.now, sleep=clock.sleep, on_work=lambda: told.append(clock.now))
    for seconds in (IDLE_S, 0.5, 0.5, IDLE_S, 0.5):
        pace.sleep(seconds)
    assert len(told) == 2


def test_a_loop_that_has_failed_ends_the_process_whatever_thread_is_left() -> None:
    program = """
import threading
import client.supernode as supernode

def fail():
    threading.Thread(target=threading.Event().wait).start()
    raise RuntimeError("the line")

supernode.flower_supernode = fail
supernode.main()
"""
    ended = subprocess.run([sys.executable, "-c", program], check=False, timeout=120, capture_output=True, text=True)
    assert ended.returncode == os.EX_TEMPFAIL, ended.stderr
    assert "the line" in ended.stderr
