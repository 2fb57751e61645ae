"""The progress bar of long work: done of total, and the time left."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(console: Console, what: str, *, each: str = "") -> Iterator[Callable[[int, int], None]]:
    """Show a bar while the context lasts; yields what is to be called with (done, total). With `each`, seconds per such thing are shown."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[rate]}"),
    )
    start = time.monotonic()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=None, rate="")

        def update(done: int, total: int) -> None:
            rate = f"{(time.monotonic() - start) / done:.1f} s a {each}" if each and done else ""
            progress.update(task, completed=done, total=total, rate=rate)

        yield update
