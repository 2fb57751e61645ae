import numpy as np
import pytest

from strategies.content_hash import hash_tensors

PLAIN = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float32(1) * np.ones((), np.float32)}


def test_order_and_memory_layout_do_not_matter():
    turned = {"b": PLAIN["b"], "a": np.asfortranarray(PLAIN["a"])}
    assert hash_tensors(turned) == hash_tensors(PLAIN)
    assert len(hash_tensors(PLAIN)) == 64


def test_the_digest_is_fixed_for_good():
    """Both sides must compute the same one, whatever the machine."""
    assert hash_tensors({}) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert hash_tensors({"a": np.ones(2, np.float32)}) == "967ee9b9ac551c3c480fb30c06cd991c12c7a409d613a44b6016e2aaa4572abd"


@pytest.mark.parametrize(
    "changed",
    [
        PLAIN | {"a": PLAIN["a"].reshape(3, 2)},
        PLAIN | {"a": -PLAIN["a"]},
        {"a": PLAIN["a"], "c": PLAIN["b"]},
        {"a": PLAIN["a"]},
        PLAIN | {"c": np.empty(0, np.float32)},
        PLAIN | {"a": np.nextafter(PLAIN["a"], np.float32(9))},
    ],
)
def test_names_shapes_and_every_bit_count(changed):
    assert hash_tensors(changed) != hash_tensors(PLAIN)
