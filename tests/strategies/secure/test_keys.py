import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from gmmas_schema.errors import ProtocolError
from strategies.secure.keys import KeyPair, bind, check_signature, derive_key, seal, sign, unseal

parts = st.lists(st.binary(max_size=4) | st.text(max_size=3), max_size=4)


@given(parts, parts)
def test_other_parts_are_bound_to_other_bytes(one, other):
    def raw(values):
        return [value.encode() if isinstance(value, str) else value for value in values]

    assert (bind(*one) == bind(*other)) == (raw(one) == raw(other))


def test_both_ends_agree_and_a_purpose_has_its_own_key():
    one, other = KeyPair.make(), KeyPair.make()
    secret = one.agree(other.public)
    assert secret == other.agree(one.public)
    assert len({secret, derive_key(secret, "a"), derive_key(secret, "b"), derive_key(secret, "a", "b"), derive_key(secret, "ab")}) == 5


def test_a_sealed_box_opens_with_its_key_purpose_and_length_only():
    key = bytes(32)
    box = seal(key, b"share", purpose=b"p")
    assert unseal(key, box, purpose=b"p", plain_bytes=5, where="w") == b"share"
    for other_key, other_box, purpose, length in (
        (bytes([1] * 32), box, b"p", 5),
        (key, box, b"q", 5),
        (key, box[:-1], b"p", 5),
        (key, box, b"p", 6),
    ):
        with pytest.raises(ProtocolError):
            unseal(other_key, other_box, purpose=purpose, plain_bytes=length, where="w")
    assert seal(key, b"share", purpose=b"p") != box


def test_a_signature_fits_its_signer_and_its_parts_only():
    key = ec.generate_private_key(ec.SECP384R1())
    signature = sign(key, "a", b"b")
    check_signature(key.public_key(), signature, "a", b"b", where="w")
    for public, found, said in (
        (ec.generate_private_key(ec.SECP384R1()).public_key(), signature, ("a", b"b")),
        (key.public_key(), signature, ("ab",)),
        (key.public_key(), b"", ("a", b"b")),
    ):
        with pytest.raises(ProtocolError):
            check_signature(public, found, *said, where="w")


def test_a_key_of_small_order_is_refused():
    with pytest.raises(ProtocolError, match="gives no secret"):
        KeyPair.make().agree(bytes(32))


def test_private_keys_are_in_no_representation():
    pair = KeyPair.make()
    assert repr(pair.private)[2:-1] not in repr(pair)
