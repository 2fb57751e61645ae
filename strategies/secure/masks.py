"""Masks: a seed of 32 bytes stretched to as many ring elements as a group has, added or subtracted in place.

    key = HKDF-SHA256(seed, info)        keystream = AES-256-CTR(key, counter from 0)        y <- y +- keystream  modulo 2^R

A key is made for one use (one pair or one site, one group, one attempt), so the counter may start at 0. CTR mode: NIST SP 800-38A; HKDF:
RFC 5869. The keystream is made block by block in one buffer, so a mask of any length takes constant memory.
"""

from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from strategies.secure.keys import derive_key

BLOCK_BYTES: Final = 1 << 18
_ZEROS: Final = bytes(BLOCK_BYTES)
_COUNTER: Final = bytes(16)
_CIPHER_BLOCK: Final = 16


def apply_mask(target: NDArray[np.unsignedinteger[Any]], seed: bytes, *, label: str, sign: int) -> None:
    """Add (sign 1) or subtract (sign -1) the mask of a seed, in place.

    Args:
        target: ring elements, one-dimensional, little-endian.
        seed: 32 secret bytes.
        label: what the mask is for; another label gives an unrelated mask.
        sign: 1 or -1.
    """
    encryptor = Cipher(algorithms.AES(derive_key(seed, "mask", label)), modes.CTR(_COUNTER)).encryptor()
    buffer = bytearray(BLOCK_BYTES + _CIPHER_BLOCK - 1)
    step = BLOCK_BYTES // target.itemsize
    operation = np.add if sign > 0 else np.subtract
    for start in range(0, target.size, step):
        part = target[start : start + step]
        encryptor.update_into(memoryview(_ZEROS)[: part.nbytes], buffer)
        operation(part, np.frombuffer(buffer, target.dtype, part.size), out=part)
