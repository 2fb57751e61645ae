"""One call of an OpenAI-compatible `/v1/chat/completions`: temperature 0, no redirects, no proxy of the environment, a bounded answer."""

import hashlib
import json
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Final

import httpx

from gmmas_portal.language.settings import LanguageSettings, Resolve, choose_address, resolve_host
from gmmas_schema.errors import PolicyError, ProtocolError

LARGEST_ANSWER: Final = 256 * 1024

Message = dict[str, str]


class Verdict(StrEnum):
    """What became of an answer."""

    ACCEPTED = "accepted"
    PARTLY = "partly-accepted"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class LanguageCall:
    """The record of one call, for the audit: hashes and codes, never text.

    Attributes:
        purpose: `report` or `question`.
        prompt_sha256: of the request's body; `answer_sha256` of the answer's text, empty without one.
        attempt: 1, or 2 for the second try.
        faults: codes of what was wrong, each once.
        seconds: that the call took.
    """

    purpose: str
    model: str
    prompt_sha256: str
    answer_sha256: str
    attempt: int
    verdict: Verdict
    faults: tuple[str, ...]
    seconds: float


OnCall = Callable[[LanguageCall], None]


class ChatEndpoint:
    """A language model's server.

    Args:
        settings: with `enabled`.
        resolve: names to addresses; by default the system's.

    Raises:
        PolicyError: it is not enabled, or not on a private address.
        ConfigError: the host has no address, or the key cannot be read.
    """

    def __init__(self, settings: LanguageSettings, *, resolve: Resolve = resolve_host) -> None:
        if not settings.enabled:
            raise PolicyError("the language model is off", where="language.enabled", remedy="an administrator can set it to true")
        self.settings, self._resolve, self._key = settings, resolve, settings.read_key()
        self._tls = _trusted()
        choose_address(settings, resolve=resolve)

    def body(self, messages: Sequence[Message]) -> bytes:
        """Return the body of a request; the same messages give the same bytes."""
        content: dict[str, Any] = {
            "model": self.settings.model,
            "messages": list(messages),
            "temperature": 0,
            "max_tokens": self.settings.longest_answer_tokens,
            "stream": False,
        }
        return json.dumps(content, ensure_ascii=False, sort_keys=True).encode()

    def complete(self, body: bytes) -> str:
        """Return the text of the first choice.

        Raises:
            ProtocolError: the server cannot be reached, answers with an error, or with something else than a completion.
            PolicyError: its host has moved to an address that is not private.
        """
        address = choose_address(self.settings, resolve=self._resolve)
        headers = {"Host": f"{address.host}:{address.port}", "Content-Type": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        extensions = {"sni_hostname": address.host} if address.scheme == "https" else {}
        try:
            with (
                httpx.Client(verify=self._tls, trust_env=False, follow_redirects=False, timeout=self.settings.timeout_s) as client,
                client.stream("POST", f"{address.base}/chat/completions", content=body, headers=headers, extensions=extensions) as response,
            ):
                return _read_completion(response, deadline=time.monotonic() + self.settings.timeout_s)
        except httpx.HTTPError as error:
            raise _fault(type(error).__name__) from error


@cache
def _trusted() -> ssl.SSLContext:
    """Return the system's trusted authorities; reading them takes longer than a call on loopback."""
    return ssl.create_default_context()


def _read_completion(response: httpx.Response, *, deadline: float) -> str:
    """Return the text of a completion, read up to LARGEST_ANSWER and until `deadline` (time.monotonic)."""
    if response.status_code != httpx.codes.OK:
        raise _fault(f"status {response.status_code}")
    content = b""
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > LARGEST_ANSWER:
            raise _fault(f"more than {LARGEST_ANSWER} bytes")
        if time.monotonic() > deadline:
            raise _fault("an answer that did not end in time")
    try:
        text = json.loads(content)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _fault("no completion") from error
    if not isinstance(text, str):
        raise _fault("a completion without text")
    return text


def sha256_of(content: bytes | str) -> str:
    """Return the SHA-256 of bytes or text, hex."""
    return hashlib.sha256(content if isinstance(content, bytes) else content.encode(errors="surrogatepass")).hexdigest()


def _fault(got: str) -> ProtocolError:
    return ProtocolError(
        "the language model did not answer",
        where="language.url",
        got=got,
        expected="a completion of /v1/chat/completions",
        remedy="see whether the server runs and knows the model; reports are complete without it",
    )
