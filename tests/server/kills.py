"""Killing a coordinator at an event of a run."""

from collections.abc import Callable

from gmmas_schema.events import Event, EventKind


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the coordinator may catch it."""


def kill_at(kind: EventKind, number: int, site: str | None = None) -> Callable[[Event], None]:
    """Return an event hook that kills at one event of a round; of a site where one is given."""

    def hook(event: Event) -> None:
        if (event.kind, event.round) == (kind, number) and site in {None, event.site}:
            raise Killed

    return hook
