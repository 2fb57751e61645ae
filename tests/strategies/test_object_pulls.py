import inspect
import time

import pytest
from flwr.supercore.inflatable.inflatable_utils import ObjectUnavailableError, pull_objects
from flwr.superlink.grid import http_grid
from flwr.supernode import start_client_internal
from flwr.supernode.runtime import run_clientapp

from strategies.object_pulls import FIRST_WAIT_S, PULLS, retry_soon


@pytest.fixture(autouse=True)
def as_before():
    before = [dict(pull.__kwdefaults__) for pull in PULLS]
    yield
    for pull, defaults in zip(PULLS, before, strict=True):
        pull.__kwdefaults__.update(defaults)


def test_an_object_that_comes_late_is_there_soon():
    retry_soon()
    tries = []

    def pull(identifier):
        tries.append(identifier)
        if len(tries) == 1:
            raise ObjectUnavailableError(identifier)
        return b"content"

    start = time.monotonic()
    assert pull_objects(["a"], pull) == {"a": b"content"}
    assert FIRST_WAIT_S * 0.7 < time.monotonic() - start < 0.8, "Flower itself waits for 0.8 to 1.2 s"


@pytest.mark.parametrize("caller", [http_grid.HttpGrid.pull_messages, run_clientapp.pull_task_input, start_client_internal])
def test_flowers_callers_name_no_wait_of_their_own(caller):
    source = inspect.getsource(caller)
    assert any(f"{pull.__name__}(" in source for pull in PULLS)
    assert "initial_backoff" not in source
