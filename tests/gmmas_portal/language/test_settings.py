"""Only private addresses are called, whatever name they go by; a public one needs an administrator's word and https."""

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_portal.language.endpoint import ChatEndpoint
from gmmas_portal.language.settings import Address, LanguageSettings, choose_address, is_private
from gmmas_schema.errors import ConfigError, PolicyError


def settings_of(**changes: Any) -> LanguageSettings:
    return LanguageSettings.parse({"enabled": True, "url": "http://llm.hospital.example:8000/v1"} | changes, where="test")


@pytest.mark.parametrize(
    "ip",
    [
        "127.0.0.1",
        "127.8.9.1",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.254",
        "192.168.4.4",
        "100.64.0.1",
        "::1",
        "fd00::1",
        "::ffff:10.0.0.1",
    ],
)
def test_private_addresses(ip: str) -> None:
    assert is_private(ip)


@pytest.mark.parametrize(
    "ip",
    [
        "8.8.8.8",
        "172.32.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "255.255.255.255",
        "100.128.0.1",
        "fe80::1%eth0",
        "2001:db8::1",
        "::ffff:8.8.8.8",
        "::",
        "224.0.0.1",
    ],
)
def test_other_addresses(ip: str) -> None:
    assert not is_private(ip)


@given(st.ip_addresses())
def test_no_global_address_counts_as_private(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if ip.is_global:
        assert not is_private(str(ip))


def test_one_public_address_among_private_ones_is_refused() -> None:
    with pytest.raises(PolicyError, match="not on a private address"):
        choose_address(settings_of(), resolve=lambda host, port: ["10.0.0.1", "8.8.8.8"])


def test_private_name_is_called_by_its_address() -> None:
    address = choose_address(settings_of(), resolve=lambda host, port: ["10.0.0.1"])
    assert address == Address("10.0.0.1", "llm.hospital.example", 8000, "http", "/v1")
    assert address.base == "http://10.0.0.1:8000/v1"
    assert Address("::1", "localhost", 1, "http", "").base == "http://[::1]:1"


def test_public_host_needs_the_administrators_word_and_https() -> None:
    allowed = settings_of(url="https://llm.example/v1", allow_public_host=True)
    assert choose_address(allowed, resolve=lambda host, port: ["8.8.8.8"]).port == 443
    with pytest.raises(ConfigError, match="needs https"):
        settings_of(allow_public_host=True)


def test_name_that_moves_to_a_public_address_is_refused_at_the_call() -> None:
    addresses = [["10.0.0.1"], ["8.8.8.8"]]
    endpoint = ChatEndpoint(settings_of(), resolve=lambda host, port: addresses.pop(0))
    with pytest.raises(PolicyError, match="not on a private address"):
        endpoint.complete(endpoint.body([]))


def test_unknown_host_is_told() -> None:
    def fail(host: str, port: int) -> list[str]:
        raise OSError

    with pytest.raises(ConfigError, match="host is not known"):
        choose_address(settings_of(), resolve=fail)


@pytest.mark.parametrize(
    "url", ["ftp://a/v1", "http://", "http://user:secret@127.0.0.1/v1", "http://127.0.0.1/v1?x=1", "127.0.0.1:8000", "file:///etc/passwd"]
)
def test_unusable_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="url is an http"):
        settings_of(url=url)


def test_it_is_off_by_default() -> None:
    with pytest.raises(PolicyError, match="is off"):
        ChatEndpoint(LanguageSettings())


def test_key_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    with pytest.raises(ConfigError, match="key cannot be read"):
        settings_of(api_key_file=str(file)).read_key()
    file.write_text("secret\n")
    assert settings_of(api_key_file=str(file)).read_key() == "secret"
    assert settings_of().read_key() is None
