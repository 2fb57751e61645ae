"""Documents are bounded and sound, or no documents."""

import re

import pytest
from pydantic import ValidationError

from gmmas_schema.errors import ReasonCode
from strategies.secure.coordinator import CoordinatorHalf
from strategies.secure.documents import (
    Terms,
)
from tests.strategies.secure.attempts import IDENTITIES, SIZES
from tests.strategies.secure.refusals import TERMS, refused


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"threshold": 2}, "threshold"),
        ({"threshold": 6}, "threshold"),
        ({"minimum_holders": 2}, "minimum_holders"),
        ({"invited": ("ash", "birch")}, "invited"),
        ({"invited": ("ash", "cedar", "birch", "dogwood", "elm")}, "invited"),
        ({"invited": ("ash", "ash", "birch", "dogwood", "elm")}, "invited"),
        ({"invited": ("ash", "birch", "cedar", "dogwood", "x/birch")}, "invited"),
        ({"ring_bits": 8}, "ring_bits"),
        ({"sizes": {}}, "sizes"),
        ({"sizes": {"weights": 3}}, "sizes"),
        ({"clip": {}}, "clip"),
        ({"sizes": {**SIZES, "fusion": 2**40}}, "fusion"),
        ({"weight_limit": 0}, "weight_limit"),
    ],
)
def test_unsound_terms_are_no_terms(change, key):
    with pytest.raises(ValidationError, match=re.escape(key)):
        Terms.model_validate(TERMS.model_dump() | change)


def test_a_document_that_is_too_long_is_not_parsed():
    half = CoordinatorHalf(TERMS, IDENTITIES)
    with refused(ReasonCode.PROTOCOL, "at most 49152"):
        half.add_advertisement("elm", b"{" * 49153)
    for raw in (b"", b"[]", b"{}", b"\xff\xfe", b'{"site": 1}'):
        with refused(ReasonCode.PROTOCOL):
            half.add_advertisement("elm", raw)
