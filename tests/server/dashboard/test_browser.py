"""The dashboard in a real browser: logging in, a run that grows while it is looked at, and nothing that the policy forbids.

With GMMAS_SCREENSHOTS=FOLDER the pages are kept as pictures.
"""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from gmmas_schema.events import EventKind
from server.events import EventLog
from server.operators import Role
from tests.chromium import NEEDS_CHROMIUM, launched
from tests.gmmas_cli.events import accepted, event, finished
from tests.server.dashboard.conftest import DeskUnderTest
from tests.server.dashboard.served import serve
from tests.server.ports import free_port

PICTURES: Final = os.environ.get("GMMAS_SCREENSHOTS", "")

pytestmark = NEEDS_CHROMIUM


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as started:
        yield started


class Watched:
    """A page and everything it complained of or asked for."""

    def __init__(self, browser: Any, scheme: str) -> None:
        self.page = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme).new_page()
        self.complaints: list[str] = []
        self.addresses: list[str] = []
        self.policies: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.addresses.append(request.url))
        self.page.on("response", lambda answer: self.policies.append(answer.headers.get("content-security-policy", "")))

    def log_in(self, address: str, token: str) -> None:
        self.page.goto(address)
        self.page.get_by_label("Token").fill(token)
        self.page.keyboard.press("Enter")
        self.page.get_by_role("heading", name="Runs").wait_for()

    def keep(self, name: str) -> None:
        if PICTURES:
            self.page.screenshot(path=str(Path(PICTURES) / f"{name}.png"), full_page=True)


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_a_growing_run_is_followed_without_loading_the_page_again(desk: DeskUnderTest, browser: Any, scheme: str) -> None:
    log = EventLog(desk.run_dir / "events.db")
    with serve(desk.app, free_port()) as address:
        watched = Watched(browser, scheme)
        page = watched.page
        watched.log_in(address, desk.tokens[Role.COORDINATOR])
        watched.keep(f"runs-{scheme}")
        page.get_by_role("link", name="demo").click()
        page.get_by_role("status").get_by_text("live", exact=True).wait_for()
        page.evaluate("window.unbroken = true")
        assert page.get_by_role("progressbar", name="Finished rounds").get_attribute("value") == "2"
        assert page.locator("#curve-dice canvas").count() == 1

        page.get_by_text("The curves as a table").click()  # it is still open when the round has ended

        def grow() -> None:
            log.append(event(EventKind.ROUND_STARTED, 50, number=3, attempt=1, sites=["north", "east"]))
            log.append(accepted("north", 3, 60))
            log.append(accepted("east", 3, 61))
            log.append(finished(3, 70, dice_wt=0.71, dice_tc=0.5, auc_idh=0.9))
            log.append(event(EventKind.RUN_FINISHED, 71, number=3, best_round=2, validation={}, test={"dice_wt": 0.7}))
            log.close()

        writer = threading.Thread(target=grow)
        writer.start()
        page.locator("#event-17").wait_for()
        writer.join()
        newest = page.locator("#feed tr").all_inner_texts()[:5]
        assert ["the run finished" in newest[0], "round finished" in newest[1]] == [True, True]
        page.get_by_text("Best model: round 2.").wait_for()
        page.locator("#now .state", has_text="finished").wait_for()
        assert page.get_by_role("progressbar", name="Finished rounds").get_attribute("value") == "3"
        page.locator("#curve-table").get_by_role("cell", name="0.710").wait_for()
        assert page.evaluate("document.activeElement.id") == "curve-table-summary", "the focus was lost"
        assert page.locator("#feed tr").count() == len({row.get_attribute("id") for row in page.locator("#feed tr").all()}) == 17
        assert page.evaluate("window.unbroken"), "the page was loaded again"
        watched.keep(f"run-{scheme}")
        page.get_by_role("link", name="What it costs").click()
        page.get_by_role("heading", name="Each hospital over the run").wait_for()
        page.get_by_role("button", name="Log out").click()
        page.get_by_role("heading", name="Log in").wait_for()
    assert watched.complaints == []
    assert {url for url in watched.addresses if not url.startswith(f"{address}/")} == set()
    assert len(watched.addresses) > 10
    assert all("default-src 'none'" in policy and "unsafe" not in policy for policy in watched.policies)


def test_the_policy_holds_against_markup_in_the_page(desk: DeskUnderTest, browser: Any) -> None:
    """Were something ever to be written into the page as markup, it could not act."""
    with serve(desk.app, free_port()) as address:
        watched = Watched(browser, "light")
        watched.log_in(address, desk.tokens[Role.RESEARCHER])
        watched.page.evaluate(
            """() => {
                window.acted = false;
                const box = document.createElement("div");
                box.innerHTML = '<img src="x" onerror="window.acted = true"><img src="http://203.0.113.7/x.png">';
                document.body.append(box);
                const script = document.createElement("script");
                script.textContent = "window.acted = true";
                document.body.append(script);
            }"""
        )
        watched.page.wait_for_timeout(200)
        assert watched.page.evaluate("window.acted") is False
        assert any("Content Security Policy" in complaint for complaint in watched.complaints)


def test_the_keyboard_reaches_everything(desk: DeskUnderTest, browser: Any) -> None:
    with serve(desk.app, free_port()) as address:
        watched = Watched(browser, "light")
        watched.log_in(address, desk.tokens[Role.COORDINATOR])
        page = watched.page
        page.goto(f"{address}/runs/{desk.key}")
        reached = []
        for _ in range(30):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.textContent.trim().slice(0, 30)"))
        assert reached[0] == "Skip to the content"
        assert {
            "Runs",
            "Hospitals",
            "New run",
            "Operators",
            "Log out",
            "Resume",
            "New run like this one",
            "The curves as a table",
            "What it costs",
        } <= set(reached)
