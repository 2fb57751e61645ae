"""What is served as it is: libraries as published, and our own files without anything inline or foreign."""

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

import pytest

from gmmas_portal.web.app import STATIC, make_templates
from server.dashboard.app import STATIC as DASHBOARD

VENDOR: Final = STATIC / "vendor"
TEMPLATES: Final = STATIC.parent / "templates"


def test_libraries_are_those_that_were_published() -> None:
    lines = (VENDOR / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split() for line in lines)}
    for name, digest in sums.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest
    assert {path.name for path in VENDOR.iterdir()} - set(sums) == {"README.md", "SHA256SUMS"}
    assert (VENDOR / "htmx.min.js").read_bytes() == (DASHBOARD / "vendor" / "htmx.min.js").read_bytes()


class Inline(HTMLParser):
    """Collects what a strict policy forbids."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.found += [f"{tag} {name}" for name in attributes if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and not (attributes.get("src") or "").startswith("/static/")):
            self.found.append(tag)
        for name in ("src", "href", "action"):
            if re.match(r"(https?:)?//|javascript:", attributes.get(name) or ""):
                self.found.append(f"{tag} {name}")


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.html")), ids=lambda path: path.stem)
def test_templates_hold_nothing_inline_or_foreign(path: Path) -> None:
    parser = Inline()
    parser.feed(re.sub(r"{[%#].*?[%#]}", "", path.read_text()))
    assert parser.found == []
    text = path.read_text()
    assert text.count('method="post"') == text.count('name="csrf"'), "every form has its secret"
    assert "| safe" not in text
    assert make_templates().get_template(path.name) is not None


@pytest.mark.parametrize("name", ["portal.css", "viewer.js", "progress.js", "icon.svg"])
def test_our_own_files_ask_for_nothing_foreign(name: str) -> None:
    text = (STATIC / name).read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|@import|eval\(|innerHTML", text)
