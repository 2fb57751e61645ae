"""Sizes, origins and paths of requests, before anybody looks at what they ask."""

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from gmmas_runtime.web_requests import LARGEST_FORM_BYTES, fault_of, own_path, same_secret


def request(method: str = "POST", **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in {"host": "127.0.0.1:9094", **headers}.items()]
    return Request({"type": "http", "method": method, "path": "/", "headers": raw, "query_string": b""})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, None),
        ({"content_length": "10"}, None),
        ({"content_length": str(LARGEST_FORM_BYTES)}, None),
        ({"content_length": str(LARGEST_FORM_BYTES + 1)}, 413),
        ({"content_length": "-1"}, 413),
        ({"content_length": "ten"}, 413),
        ({"transfer_encoding": "chunked"}, 413),
        ({"transfer_encoding": "Chunked"}, 413),
        ({"transfer_encoding": "gzip, CHUNKED", "content_length": "1"}, 413),
        ({"origin": "http://127.0.0.1:9094"}, None),
        ({"origin": "http://127.0.0.1:9093"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec_fetch_site": "same-origin"}, None),
        ({"sec_fetch_site": "none"}, None),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
    ],
)
def test_a_request_is_refused_for_its_size_or_its_origin(headers: dict[str, str], status: int | None) -> None:
    fault = fault_of(request(**headers))
    assert (None if fault is None else fault[0]) == status
    looked = fault_of(request("GET", **headers))
    assert (None if looked is None else looked[0]) == (status if status == 413 else None), "looking is allowed from anywhere"


def test_a_route_may_take_more() -> None:
    assert fault_of(request(content_length=str(2**30)), largest_bytes=2**30) is None


@pytest.mark.parametrize("path", ["/", "/cases", "/cases/0a1b", "/runs/a-b_c/costs/"])
def test_an_own_path_is_kept(path: str) -> None:
    assert own_path(path) == path


@pytest.mark.parametrize("path", ["", "//evil.example", "https://evil.example", "/\\evil.example", "/a?b=//c", "/a#b", "/a\n", "/.."])
def test_another_path_leads_to_the_beginning(path: str) -> None:
    assert own_path(path) == "/"


def test_a_long_path_is_looked_at_once() -> None:
    """Tried in every way of cutting it, forty letters would hold up everybody for a day."""
    assert own_path("/" + 1000 * "a" + "!") == own_path("/" + 1000 * "a/" + "!") == "/"
    assert own_path("/" + 1000 * "a") != "/"


@given(one=st.text(max_size=20), other=st.text(max_size=20))
def test_secrets_are_the_same_where_they_are_equal(one: str, other: str) -> None:
    assert same_secret(one, one)
    assert same_secret(one, other) is (one == other)
