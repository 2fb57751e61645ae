import pytest

from gmmas_runtime import web_looks
from gmmas_runtime.web_looks import REPEATED_S, Looks


def test_a_look_is_news_once_a_minute_for_each_visitor_page_and_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(web_looks.time, "monotonic", lambda: now)
    looks = Looks(most=10)
    assert looks.is_news("anna", "/cases", "200")
    assert not looks.is_news("anna", "/cases", "200")
    assert looks.is_news("ben", "/cases", "200")
    assert looks.is_news("anna", "/cases", "404")
    now += REPEATED_S
    assert looks.is_news("anna", "/cases", "200")


def test_what_a_page_fetches_by_itself_is_no_news() -> None:
    assert not Looks(most=10).is_news("anna", "/runs/x/part/now", "200")


def test_no_more_looks_are_remembered_than_asked_for() -> None:
    looks = Looks(most=2)
    assert all(looks.is_news("anna", path, "200") for path in ("/a", "/b", "/c"))
    assert looks.is_news("anna", "/a", "200")
    assert not looks.is_news("anna", "/c", "200")
