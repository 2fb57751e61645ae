"""The commands of the documentation, as they stand in its Markdown.

A block that the newcomer runs has a line before it, which no reader of the page sees:

    <!-- newcomer: NAME | on which machines | as whom -->
"""

import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PAGES: Final = ("docs/installation.md", "docs/runbooks/joining.md")
EVERY: Final = "every"
_BLOCK: Final = re.compile(r"^[ ]*<!-- newcomer: (\S+) \| (\S+) \| (\S+) -->\n((?:[ ]*)```sh\n.*?^[ ]*```)$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Step:
    """One block of commands; `machine` is `hospital`, `coordinator` or EVERY."""

    name: str
    machine: str
    user: str
    commands: str


def read_steps(repository: Path, pages: Iterable[str] = PAGES) -> dict[str, Step]:
    """Return the marked blocks of the pages by name, in their order."""
    steps: dict[str, Step] = {}
    for page in pages:
        for name, machine, user, block in _BLOCK.findall((repository / page).read_text(encoding="utf-8")):
            assert name not in steps, f"two blocks are called {name}"
            lines = textwrap.dedent(block).splitlines()
            steps[name] = Step(name, machine, user, "\n".join(lines[1:-1]) + "\n")
    return steps


def marks(repository: Path, pages: Iterable[str] = PAGES) -> list[str]:
    """Return the names of all marks, those too that stand before nothing that could be run."""
    return [name for page in pages for name in re.findall(r"<!-- newcomer: (\S+)", (repository / page).read_text(encoding="utf-8"))]
