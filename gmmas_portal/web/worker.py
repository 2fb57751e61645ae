"""`python -m gmmas_portal.web.worker FOLDER`: do the queue's jobs, one after another, until SIGTERM. `gmmas portal` runs it.

Told to stop, it puts the job at hand back into the queue, as if nobody had begun it.
"""

import logging
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Final

from gmmas_portal.web.audit import AuditTrail
from gmmas_portal.web.cases import CaseStore
from gmmas_portal.web.intake import discard_old
from gmmas_portal.web.jobs import Job, JobQueue
from gmmas_portal.web.settings import DRAFT_HOURS, PortalFolder
from gmmas_portal.web.tables import Database
from gmmas_portal.web.tasks import Workshop
from gmmas_schema.errors import GmmasError

_LOG = logging.getLogger(__name__)
LOOK_S: Final = 0.5
TELL_S: Final = 0.3
"""Progress is written so often at most."""
_SWEEP_S: Final = 3600.0


class StopAsked(BaseException):
    """SIGTERM arrived; no handler of exceptions is to take it for a fault of the job."""


class Worker:
    """Does one job at a time.

    Args:
        folder: of the platform.
    """

    def __init__(self, folder: PortalFolder) -> None:
        database = Database(folder.database)
        self._folder, self.queue = folder, JobQueue(database)
        self.workshop = Workshop(folder, CaseStore(database), AuditTrail(database))

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`; jobs that an earlier worker left come first."""
        self.queue.take_up()
        swept = -_SWEEP_S
        while not stop.is_set():
            if time.monotonic() - swept > _SWEEP_S:
                swept = time.monotonic()
                self.sweep()
            if not self.do_next():
                stop.wait(LOOK_S)

    def do_next(self) -> bool:
        """Do the oldest job that waits; returns whether there was one."""
        job = self.queue.take()
        if job is None:
            return False
        try:
            self.workshop.do(job, _Reporter(self.queue, job))
        except StopAsked:
            self.queue.put_back(job)
            raise
        except Exception as error:
            # The log stays at this hospital, below a folder that nobody else may read; what the page says is without where.
            _LOG.warning("job %d (%s) failed", job.id, job.kind, exc_info=not isinstance(error, GmmasError))
            if isinstance(error, GmmasError):
                _LOG.warning("%s", error)
            self.queue.fail(job, error)
            self.workshop.audit.note(
                f"{job.kind} failed",
                who=job.asked_by,
                subject=job.subject,
                outcome=error.code if isinstance(error, GmmasError) else "E_INTERNAL",
            )
        else:
            self.queue.finish(job)
        return True

    def sweep(self) -> None:
        """Delete uploads that nobody confirmed, and conversions of studies that nobody imported."""
        discard_old(self._folder.incoming, hours=DRAFT_HOURS, confirmed=self.queue.drafts())
        for left in self._folder.imports.glob(".import-*"):
            with suppress(OSError):
                if left.stat().st_mtime < time.time() - DRAFT_HOURS * 3600:
                    shutil.rmtree(left, ignore_errors=True)


class _Reporter:
    """Writes a job's progress, not more often than a page looks at it."""

    def __init__(self, queue: JobQueue, job: Job) -> None:
        self._queue, self._job, self._last, self._step = queue, job, 0.0, ""

    def __call__(self, step: str, done: int, total: int) -> None:
        now = time.monotonic()
        if step != self._step or now - self._last > TELL_S:
            self._step, self._last = step, now
            self._queue.tell(self._job, step, done, total)


def main(arguments: list[str]) -> None:
    """Work for the platform in the folder named first."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder, stop = PortalFolder.open(Path(arguments[0])), threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        stop.set()
        raise StopAsked

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from the keyboard: the supervisor's to handle
    with suppress(StopAsked):
        Worker(folder).run(stop)


if __name__ == "__main__":
    main(sys.argv[1:])
