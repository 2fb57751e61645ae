"""A page of the desk, taken apart."""

from html.parser import HTMLParser

from server.operators import Role
from tests.server.dashboard.conftest import DeskUnderTest


class Page(HTMLParser):
    """Collects what accessibility and the policy ask of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._title = self._cells = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data + " "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(desk: DeskUnderTest, path: str, role: Role = Role.COORDINATOR) -> Page:
    answer = desk.client(role).get(path)
    assert answer.status_code == 200
    return Page(answer.text)
