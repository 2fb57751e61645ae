"""A language model's server on loopback that answers what a test tells it to."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from gmmas_portal.language.aliases import Aliases
from gmmas_portal.language.endpoint import ChatEndpoint, LanguageCall
from gmmas_portal.language.settings import LanguageSettings
from gmmas_portal.reports.report import Sentence


@dataclass
class FakeModel:
    """What the server was asked, and what it answers: `reply` gets the request's body and returns status, headers and content."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    reply: Callable[[dict[str, Any]], tuple[int, dict[str, str], bytes]] = lambda _: completion("{}")
    calls: list[LanguageCall] = field(default_factory=list)

    def endpoint(self, **changes: Any) -> ChatEndpoint:
        return ChatEndpoint(LanguageSettings(**({"enabled": True, "url": self.url, "model": "fake", "timeout_s": 10} | changes)))

    def answer(self, *texts: str) -> None:
        """Answer with these texts in turn; the last one stays."""
        self.requests.clear()
        self.calls.clear()
        left = list(texts)
        self.reply = lambda _: completion(left.pop(0) if len(left) > 1 else left[0])


def completion(text: str) -> tuple[int, dict[str, str], bytes]:
    return (
        200,
        {"Content-Type": "application/json"},
        json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode(),
    )


def as_given(sentences: Sequence[Sentence], *, among: Sequence[Sentence] = (), **changed: Any) -> str:
    """Return the answer that gives every sentence back, those named in `changed` (dots as two underscores) with other keys.

    Ids of sentences and sources become the aliases under which the model knows them; `among` are all sentences that it was given.
    """
    aliases, by_id, rows = Aliases.of(among or sentences), {name.replace("__", "."): change for name, change in changed.items()}, []
    for sentence in sentences:
        row = {"text": sentence.template, "cites": list(sentence.evidence)} | by_id.get(sentence.id, {})
        cites = [aliases.evidence.get(name, name) for name in row["cites"]]
        rows.append({"id": aliases.sentences[sentence.id], "text": aliases.hide_template(row["text"]), "cites": cites})
    return json.dumps({"sentences": rows})


@contextmanager
def run_fake_model() -> Iterator[FakeModel]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            model.requests.append(body)
            model.headers.append(dict(self.headers))
            model.paths.append(self.path)
            status, headers, content = model.reply(body)
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(content)), "Connection": "close"}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    model = FakeModel(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield model
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
