"""One call: what is sent, and that an answer of any other kind is an error and not a text."""

import json
from pathlib import Path

import pytest

from gmmas_portal.language.endpoint import LARGEST_ANSWER, ChatEndpoint
from gmmas_portal.language.settings import LanguageSettings
from gmmas_schema.errors import ProtocolError
from tests.gmmas_portal.language.fake_model import FakeModel, completion

MESSAGES = [{"role": "user", "content": "hello"}]


def call(endpoint: ChatEndpoint) -> str:
    return endpoint.complete(endpoint.body(MESSAGES))


def test_request_is_deterministic(fake_model: FakeModel, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret")
    fake_model.answer("hi")
    assert call(fake_model.endpoint(api_key_file=key, longest_answer_tokens=500)) == "hi"
    assert fake_model.paths == ["/v1/chat/completions"]
    assert fake_model.requests == [{"model": "fake", "messages": MESSAGES, "temperature": 0, "max_tokens": 500, "stream": False}]
    assert fake_model.headers[0]["Authorization"] == "Bearer secret"


def test_proxies_of_the_environment_are_not_used(fake_model: FakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    fake_model.answer("hi")
    assert call(fake_model.endpoint()) == "hi"


@pytest.mark.parametrize(
    ("status", "headers", "content"),
    [
        (302, {"Location": "http://example.org/"}, b""),
        (500, {}, b"{}"),
        (404, {}, b"{}"),
        (200, {}, b"not json"),
        (200, {}, b"{}"),
        (200, {}, b"[]"),
        (200, {}, json.dumps({"choices": []}).encode()),
        (200, {}, json.dumps({"choices": [{"message": {"content": None}}]}).encode()),
        (200, {}, completion("x" * LARGEST_ANSWER)[2]),
        (200, {}, b"[" * 100_000),
    ],
)
def test_anything_but_a_completion_is_an_error(status: int, headers: dict[str, str], content: bytes, fake_model: FakeModel) -> None:
    fake_model.reply = lambda _: (status, headers, content)
    with pytest.raises(ProtocolError, match="did not answer"):
        call(fake_model.endpoint())
    assert len(fake_model.requests) == 1, "no redirect is followed"


def test_nobody_there_is_an_error() -> None:
    endpoint = ChatEndpoint(LanguageSettings(enabled=True, url="http://127.0.0.1:9/v1", timeout_s=2))
    with pytest.raises(ProtocolError, match="did not answer"):
        call(endpoint)
