"""A function over many cases, one process per core, results in order."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from threadpoolctl import threadpool_limits

from gmmas_schema.errors import GmmasError, ReasonCode

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    processes: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Return function(item) for every item, in their order.

    Processes are spawned, not forked: a fork under a running gRPC or BLAS thread may hang. One process means no child at all.

    Args:
        function: a picklable function of one item.
        items: picklable items.
        processes: most processes at one time.
        on_progress: called with (done, total) at the start and after every item.

    Raises:
        Exception: the first that a function raised; items not yet begun are then left undone.
        GmmasError: a process died, most often for want of memory.
    """
    results: dict[int, Result] = {}

    def report() -> None:
        if on_progress is not None:
            on_progress(len(results), len(items))

    report()
    if processes <= 1 or len(items) <= 1:
        for place, item in enumerate(items):
            results[place] = function(item)
            report()
        return [results[place] for place in range(len(items))]
    with ProcessPoolExecutor(
        min(processes, len(items)), mp_context=multiprocessing.get_context("spawn"), initializer=_use_one_thread
    ) as pool:
        try:
            futures = {pool.submit(function, item): place for place, item in enumerate(items)}
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                report()
        except BrokenProcessPool as error:
            raise GmmasError(
                "a worker process died",
                got=f"{len(results)} of {len(items)} items done",
                expected="all of them",
                remedy="use fewer processes; the machine may be out of memory",
                code=ReasonCode.OUT_OF_MEMORY,
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [results[place] for place in range(len(items))]


def _use_one_thread() -> None:
    """Keep the numerical libraries of a worker to one thread: the processes fill the cores."""
    threadpool_limits(1)
