"""Where the language model is. Off by default, and on a private address: what is sent is about a patient, though without a value.

Private are loopback, RFC 1918, RFC 4193 and RFC 6598 (carrier-grade, used by overlay networks). Link-local addresses are not: cloud
providers have their metadata there. A name is resolved for each call and the call goes to the address that was checked, so the name cannot
change its mind in between.
"""

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from gmmas_schema.base import ConfigPath, FrozenModel
from gmmas_schema.errors import ConfigError, PolicyError

PRIVATE: Final = tuple(
    ipaddress.ip_network(network)
    for network in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "::1/128", "fc00::/7")
)

Resolve = Callable[[str, int], list[str]]


class LanguageSettings(FrozenModel):
    """The `language` block of the portal's configuration.

    Attributes:
        enabled: nothing is sent while it is false.
        url: base of an OpenAI-compatible server (vLLM, Ollama, llama.cpp), as `http://127.0.0.1:8000/v1`.
        model: name by which the server knows the model.
        allow_public_host: an administrator's decision that an address outside the hospital may be used; needs https.
        api_key_file: holds the server's key, where it wants one.
        timeout_s: of one call.
        longest_answer_tokens: that the server is asked for.
    """

    enabled: bool = False
    url: str = "http://127.0.0.1:8000/v1"
    model: str = Field(default="local", min_length=1, max_length=200)
    allow_public_host: bool = False
    api_key_file: ConfigPath | None = None
    timeout_s: float = Field(default=60.0, gt=0, le=600)
    longest_answer_tokens: int = Field(default=4000, ge=100, le=32000)

    @model_validator(mode="after")
    def _address_is_usable(self) -> "LanguageSettings":
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
            raise ValueError("url is an http(s) address with a host, and without user, query and fragment")
        if self.allow_public_host and parts.scheme != "https":
            raise ValueError("a public host needs https")
        return self

    def read_key(self) -> str | None:
        """Return the server's key; None where none is configured.

        Raises:
            ConfigError: the file cannot be read or is empty.
        """
        if self.api_key_file is None:
            return None
        try:
            key = self.api_key_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            key = ""
        if not key:
            raise ConfigError(
                "the language model's key cannot be read",
                where="language.api_key_file",
                expected="a readable file with one line",
                remedy="write the key into the file and give its rights to the portal's user, or leave it out",
            )
        return key


@dataclass(frozen=True)
class Address:
    """Where a call goes: an address that was checked, and the name that the server is called by."""

    ip: str
    host: str
    port: int
    scheme: str
    path: str

    @property
    def base(self) -> str:
        """URL of the checked address."""
        return f"{self.scheme}://{f'[{self.ip}]' if ':' in self.ip else self.ip}:{self.port}{self.path}"


def resolve_host(host: str, port: int) -> list[str]:
    """Return the addresses of a name."""
    return sorted({str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})


def choose_address(settings: LanguageSettings, *, resolve: Resolve = resolve_host) -> Address:
    """Return the address to call.

    Raises:
        PolicyError: the host has an address that is not private, and `allow_public_host` is not set.
        ConfigError: the host has no address.
    """
    parts = urlsplit(settings.url)
    host, port = str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = resolve(host, port)
    except OSError:
        found = []
    if not found:
        raise ConfigError(
            "the language model's host is not known", where="language.url", got=host, remedy="check the name and the name server"
        )
    if not settings.allow_public_host and (public := [ip for ip in found if not is_private(ip)]):
        raise PolicyError(
            "the language model is not on a private address",
            where="language.url",
            got=", ".join(public),
            expected="loopback or a private network of the hospital",
            remedy="use a server at the hospital; allow_public_host: true is the administrator's decision to send text out",
        )
    return Address(found[0], host, port, parts.scheme, parts.path.rstrip("/"))


def is_private(ip: str) -> bool:
    """Return whether an address is loopback or private; an IPv4 address in IPv6 form counts as what it is."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return any((mapped or address) in network for network in PRIVATE)
