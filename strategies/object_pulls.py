"""How long Flower waits for an object of a message that is still on its way.

flwr 1.41 tells of a message before its objects have arrived; who is quick asks for one of them too early and then waits 1 s, 2 s, ... up to
10 s between two tries. A model of 4 MB is there after 0.1 s. So the first wait is FIRST_WAIT_S here, and doubles as before: it stays below
what has been waited so far, and a slow line is asked no more often than that.
"""

from typing import Final

from flwr.supercore.inflatable import inflatable_utils

FIRST_WAIT_S: Final = 0.05
PULLS: Final = (inflatable_utils.pull_objects, inflatable_utils.pull_and_inflate_object_from_tree)
"""Both take their first wait from a default; their callers in Flower name none (tests/strategies/test_object_pulls.py)."""


def retry_soon() -> None:
    """Shorten the first wait in this process."""
    for pull in PULLS:
        defaults = pull.__kwdefaults__ or {}
        assert "initial_backoff" in defaults, "Flower's pulls have changed"
        defaults["initial_backoff"] = FIRST_WAIT_S
