"""The order of the suite: what takes longest begins first, or one worker is left with it in the end. No property test is timed."""

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

LONGEST = ("tests/integration/", "tests/server/", "tests/gmmas_portal/web/", "tests/gmmas_cli/", "tests/gmmas_workflows/")
"""Beginnings of node ids, the longest files first."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort whole folders; within one the order stays."""
    items.sort(key=lambda item: next((place for place, start in enumerate(LONGEST) if item.nodeid.startswith(start)), len(LONGEST)))
