import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from strategies.secure import masks
from strategies.secure.keys import derive_key
from strategies.secure.masks import apply_mask

SEED = bytes(range(32))


@given(st.sampled_from(["<u2", "<u4", "<u8"]), st.integers(1, 300), st.binary(min_size=32, max_size=32))
def test_a_mask_that_is_added_and_subtracted_is_gone(dtype, size, seed):
    value = np.arange(size, dtype=dtype) * np.array(977, dtype)
    masked = value.copy()
    apply_mask(masked, seed, label="a", sign=1)
    assert size < 8 or (masked != value).any()
    apply_mask(masked, seed, label="a", sign=-1)
    assert (masked == value).all()


@pytest.mark.parametrize("dtype", ["<u2", "<u4", "<u8"])
def test_the_mask_is_the_keystream_of_aes_ctr_in_whatever_blocks(dtype, monkeypatch):
    encryptor = Cipher(algorithms.AES(derive_key(SEED, "mask", "a")), modes.CTR(bytes(16))).encryptor()
    expected = np.frombuffer(encryptor.update(bytes(1000 * np.dtype(dtype).itemsize)), dtype)
    monkeypatch.setattr(masks, "BLOCK_BYTES", 64)
    found = np.zeros(1000, dtype)
    apply_mask(found, SEED, label="a", sign=1)
    assert (found == expected).all()


def test_another_label_or_seed_is_another_mask():
    seen = set()
    for seed, label in ((SEED, "a"), (SEED, "b"), (bytes(32), "a")):
        value = np.zeros(16, "<u4")
        apply_mask(value, seed, label=label, sign=1)
        seen.add(value.tobytes())
    assert len(seen) == 3
