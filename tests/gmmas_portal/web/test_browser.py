"""The platform in a real browser: an upload, its analysis, the overlay, a drawn correction, the report, and what the patient sees of it.

With GMMAS_SCREENSHOTS=FOLDER the pages are kept as pictures.
"""

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from PIL import Image

from gmmas_portal.web.accounts import Role
from gmmas_portal.web.worker import Worker
from tests.chromium import NEEDS_CHROMIUM, launched
from tests.gmmas_portal.web.conftest import CASE, NAMES, PortalUnderTest
from tests.server.dashboard.served import serve
from tests.server.ports import free_port

PICTURES: Final = os.environ.get("GMMAS_SCREENSHOTS", "")
FLAGS: Final = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
PATIENCE_MS: Final = 120_000
"""Frames are rendered by software here."""

pytestmark = NEEDS_CHROMIUM


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched(*FLAGS) as started:
        yield started


class Visit:
    """A page of one account, and everything it complained of or asked for."""

    def __init__(self, browser: Any, site: PortalUnderTest, address: str, role: Role, *, width: int = 1280, scheme: str = "light") -> None:
        self.address = address
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_default_timeout(PATIENCE_MS)
        self.page = context.new_page()
        self.complaints: list[str] = []
        self.addresses: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.addresses.append(request.url))
        self.page.goto(f"{address}/welcome?ticket={site.desk.accounts.make_ticket(NAMES[role])}")
        self.page.get_by_role("button", name="Open the platform").click()
        self.page.get_by_role("button", name="Sign out").wait_for()

    def open(self, path: str) -> None:
        self.page.goto(f"{self.address}{path}")

    def wait_for_viewer(self) -> None:
        self.page.locator("[data-ready=yes]").wait_for()
        self.page.wait_for_timeout(500)

    def pixels(self) -> np.ndarray:
        """Return the viewer as it is seen."""
        return np.asarray(Image.open(io.BytesIO(self.page.locator("#canvas").screenshot())).convert("RGB")).astype(int)

    def keep(self, name: str) -> None:
        if PICTURES:
            self.page.screenshot(path=str(Path(PICTURES) / f"{name}.png"), full_page=True)

    def foreign(self) -> set[str]:
        return {url for url in self.addresses if not url.startswith((f"{self.address}/", "data:", "blob:"))}


@pytest.fixture
def working(site: PortalUnderTest) -> Iterator[None]:
    """A worker, as a thread."""
    stop = threading.Event()
    thread = threading.Thread(target=Worker(site.folder).run, args=(stop,))
    thread.start()
    yield
    stop.set()
    thread.join(timeout=120)
    assert not thread.is_alive()


def coloured(pixels: np.ndarray) -> int:
    """Return how many pixels have a hue: grey images have none, the cross is thin."""
    return int(np.count_nonzero(pixels.max(axis=2) - pixels.min(axis=2) > 40))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("working")
def test_from_an_upload_to_what_the_patient_reads(site: PortalUnderTest, browser: Any) -> None:
    with serve(site.app, free_port()) as address:
        doctor = Visit(browser, site, address, Role.CLINICIAN)
        page = doctor.page

        # upload, confirm, wait: the page follows the job by itself
        doctor.open("/upload")
        page.get_by_label("Files").set_input_files([str(CASE / f"BraTS2021_00006_{m}.nii.gz") for m in ("t1", "t1ce", "t2", "flair")])
        page.get_by_role("button", name="Upload").click()
        page.get_by_role("button", name="Confirm and analyse").wait_for()
        doctor.keep("portal-confirm")
        page.get_by_label("Pseudonym of the patient").fill("P-0001")
        page.get_by_label("Day of the scan").fill("2026-10-05")
        page.get_by_role("button", name="Confirm and analyse").click()
        page.get_by_role("heading", name="Size").wait_for()
        doctor.wait_for_viewer()

        # the overlay is there, and goes and comes with its switch
        shown = coloured(doctor.pixels())
        page.locator("label[for=show-outline]").click()
        page.wait_for_timeout(1500)
        hidden = coloured(doctor.pixels())
        assert shown > hidden + 2000
        page.locator("label[for=show-outline]").click()
        page.wait_for_timeout(1500)
        assert coloured(doctor.pixels()) > hidden + 2000
        doctor.keep("portal-case")

        # a correction drawn by hand is a new version
        page.get_by_role("link", name="Correct the outline").click()
        doctor.wait_for_viewer()
        page.locator("label[for=view-axial]").click()
        page.locator("label[for=pen-2]").click()
        page.wait_for_timeout(1500)
        box = page.locator("#canvas").bounding_box()
        at = [
            (box["x"] + box["width"] * x, box["y"] + box["height"] * y)
            for x, y in ((0.4, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.6), (0.4, 0.4))
        ]
        page.mouse.move(*at[0])
        page.mouse.down()
        for x, y in at[1:]:
            page.mouse.move(x, y, steps=12)
        page.mouse.up()
        page.wait_for_timeout(1500)
        page.get_by_label("Reason").fill("the oedema was too small")
        doctor.keep("portal-correct")
        page.get_by_role("button", name="Save as a new version").click()
        page.get_by_text("corrected by dr.one").wait_for()
        newest = max(site.desk.cases.cases(), key=lambda case: case.created)
        versions = {row.version: row.record for row in site.desk.cases.versions(newest.key)}
        before, after = (versions[number].fact("volume.oedema").value for number in (1, 2))
        assert after > before + 0.5

        # review, signature, release
        page.get_by_role("link", name="Report").click()
        page.get_by_label("I have reviewed the images and both versions of the text").check()
        page.get_by_role("button", name="Sign").first.wait_for()
        page.locator("form[action$='/sign'] button").click()
        page.get_by_role("heading", name="Signed").wait_for()
        doctor.keep("portal-report")
        page.get_by_role("button", name="Release to the patient").click()
        page.get_by_role("heading", name="Released").wait_for()

        # the patient reads it, asks, and reaches nothing else
        patient = Visit(browser, site, address, Role.PATIENT)
        patient.page.get_by_role("link", name="Scan of 2026-10-05").click()
        patient.page.get_by_placeholder("for example").fill("where does it lie?")
        patient.page.get_by_role("button", name="Ask").click()
        patient.page.locator(".answer").wait_for()
        patient.keep("portal-patient")
        patient.open(f"/cases/{newest.key}")
        patient.page.get_by_text("This page is not for your account").wait_for()
    for visit in (doctor, patient):
        assert [text for text in visit.complaints if "403" not in text] == []
        assert visit.foreign() == set()
    assert len(doctor.addresses) > 20


def test_the_outline_is_seen_and_nothing_leaves_the_machine(site: PortalUnderTest, browser: Any) -> None:
    with serve(site.app, free_port()) as address:
        doctor = Visit(browser, site, address, Role.CLINICIAN, width=480)
        doctor.open(f"/cases/{site.key}")
        doctor.wait_for_viewer()
        assert coloured(doctor.pixels()) > 500
        assert doctor.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing is wider than the screen"
        doctor.page.evaluate(
            """() => {
                window.acted = false;
                const box = document.createElement("div");
                box.innerHTML = '<img src="x" onerror="window.acted = true"><img src="http://203.0.113.7/x.png">';
                document.body.append(box);
                const script = document.createElement("script");
                script.textContent = "window.acted = true";
                document.body.append(script);
                fetch("http://203.0.113.7/").catch(() => { window.refused = true; });
            }"""
        )
        doctor.page.wait_for_function("window.refused === true")
        assert doctor.page.evaluate("window.acted") is False
        assert any("Content Security Policy" in complaint for complaint in doctor.complaints)


def test_without_webgl_the_picture_stands_in(site: PortalUnderTest, browser: Any) -> None:
    with serve(site.app, free_port()) as address:
        doctor = Visit(browser, site, address, Role.CLINICIAN)
        doctor.page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
        doctor.open(f"/cases/{site.key}")
        doctor.page.get_by_text("This browser has no WebGL2").wait_for()
        assert doctor.page.locator("#picture").is_visible()
        assert not doctor.page.locator("#toolbar").is_visible()


def test_the_keyboard_reaches_everything(site: PortalUnderTest, browser: Any) -> None:
    with serve(site.app, free_port()) as address:
        doctor = Visit(browser, site, address, Role.CLINICIAN)
        page = doctor.page
        doctor.open(f"/cases/{site.key}/report")
        reached = []
        for _ in range(70):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("(document.activeElement.textContent.trim() || document.activeElement.name).slice(0, 30)"))
        assert reached[0] == "Skip to the content"
        assert {"Cases", "Upload", "Sign out", "Findings", "For the patient", "reviewed", "comment", "Sign", "question", "Ask"} <= set(
            reached
        )
