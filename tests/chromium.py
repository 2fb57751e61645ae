"""Debian's Chromium for the tests of pages, driven by playwright's package from PyPI."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

CHROMIUM: Final = Path("/usr/bin/chromium")
NEEDS_CHROMIUM: Final = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not there (Debian: apt-get install chromium)"),
]


@contextmanager
def launched(*flags: str) -> Iterator[Any]:
    """Start Chromium without a window; skip where playwright is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--headless", "--no-sandbox", *flags])
        yield started
        started.close()
