"""What the documentation points at is there: pages, headings, tests by name, blocks that the newcomer runs."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.newcomer.steps import marks, read_steps

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path.relative_to(ROOT) for place in ("*.md", "docs/**/*.md", "benchmarks/**/*.md") for path in ROOT.glob(place))
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_TEST = re.compile(r"`(tests/[\w/]+(?:\.py)?)`")


def without_code(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Return the addresses of a page's headings, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", without_code(path.read_text(encoding="utf-8")), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(without_code((ROOT / page).read_text(encoding="utf-8"))):
        if re.match(r"https?:|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (ROOT / page.parent / name).resolve() if name else ROOT / page
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_tests_that_are_named_exist(page: Path) -> None:
    for name in _TEST.findall((ROOT / page).read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), name


def test_a_broken_link_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("# A `b` (c), [d](e.md)\n\n```sh\n# not one\n```\n")
    assert anchors(tmp_path / "page.md") == {"a-b-c-d"}


def test_every_mark_stands_before_a_block_that_can_be_run() -> None:
    assert list(read_steps(ROOT)) == marks(ROOT)
    for step in read_steps(ROOT).values():
        assert step.machine in ("hospital", "coordinator", "every")
        assert step.user in ("root", "gmmas-node", "gmmas-fed")
        assert step.commands.strip()
        assert "```" not in step.commands


def test_the_installation_is_of_this_release() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    named = set(re.findall(r"gmmas-(\d+\.\d+\.\d+)", "".join(step.commands for step in read_steps(ROOT).values())))
    assert named == {version}
