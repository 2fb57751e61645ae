"""Ends the task of a run that the coordinator no longer runs, so that nobody trains for hours what nobody waits for.

A SuperNode of flwr 1.41 learns that a run was stopped only when it hands over the reply. Here, while it waits for the executor, it asks
the coordinator for the run every CHECK_S; one that is not running any more loses its task:

    refused question -> task finished in the SuperNode -> the executor's next heartbeat is refused -> Cancel at the trainer

A message that is being fetched while its run is stopped is given up by Flower, but not the task it has made of it already: the executor
would wait for the message's tensors, and every later message behind it. Such a task is finished at once, and without a reply, for the
loop takes the next reply that it sees as the answer to the message that it has in hand.

A coordinator that does not answer proves nothing: it may be back in a minute, and the work goes on until the message's time to live is
over (client.app). Uses internal API of flwr 1.41 (tests/client/test_stopped_runs.py).
"""

import logging
import time
from collections.abc import Callable
from typing import Any, Final

import httpx
from flwr.common.constant import SubStatus
from flwr.supercore.constant import TaskType
from flwr.supercore.run import RunNotRunningException

logger = logging.getLogger(__name__)

CHECK_S: Final = 10.0
RUNNING: Final = "running"


class StoppedRuns:
    """Watches the run whose task the executor is at work on.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._state: Any = None
        self._is_running: Callable[[int], object] | None = None
        self._run_id: int | None = None
        self._next_check = 0.0

    def pulling(self, pull: Callable[..., int | None]) -> Callable[..., int | None]:
        """Return Flower's function that fetches a message, of which the way to ask for a run is kept."""

        def pull_and_note(**options: Any) -> int | None:
            self._state, self._is_running = options["state"], options["get_run"]
            self._next_check = self._clock() + CHECK_S
            before = {task.task_id for task in self._state.get_tasks()}
            self._run_id = pull(**options)
            if self._run_id is None:
                for task in self._state.get_tasks():
                    if task.task_id not in before:
                        self._state.finish_task(task.task_id, SubStatus.STOPPED, "its message was given up")
            return self._run_id

        return pull_and_note

    def look(self) -> None:
        """Ask, if it is time, whether the runs of running tasks are still run; called while the executor is waited for."""
        if self._is_running is None or self._clock() < self._next_check:
            return
        for task in self._state.get_tasks():
            if task.status.status == RUNNING and task.type == TaskType.CLIENT_APP and self._is_over(task.run_id):
                logger.warning("run %s was stopped at the coordinator: its task ends", task.run_id)
                finished = self._state.finish_task(task.task_id, SubStatus.STOPPED, "the run was stopped")
                if finished and task.run_id == self._run_id:
                    # The loop waits for a reply to every message; Flower makes one up for a task that it has lost.
                    self._state._on_task_tokens_expired([task])
        self._next_check = self._clock() + CHECK_S

    def _is_over(self, run_id: int) -> bool:
        """Return whether the coordinator says that it does not run a run; an absent coordinator is waited for, as for the reply."""
        assert self._is_running is not None
        try:
            self._is_running(run_id)
        except RunNotRunningException:
            return True
        except httpx.HTTPError as error:
            logger.info("the coordinator does not tell of run %s: %s", run_id, type(error).__name__)
        return False
