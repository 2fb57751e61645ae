"""The name of a set of tensors by its content: SHA-256 over names, shapes and values.

The values are hashed as they are computed with, little-endian float32 after decoding, and not as they travelled: what coordinator and
site have to agree on is the model that both calculate from, however it was packed, and the same hash finds it again among those a site
still holds. Names are taken in alphabetical order, each with its shape and length before its values, so that no two different sets of
tensors feed the same bytes. SHA-256: FIPS 180-4.
"""

import hashlib
import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def hash_tensors(tensors: Mapping[str, NDArray[np.float32]]) -> str:
    """Return 64 hexadecimal digits that name these float32 tensors; their order in the mapping does not matter."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(json.dumps([name, value.shape], separators=(",", ":")).encode() + b"\n")
        digest.update(np.ascontiguousarray(value, dtype="<f4").data)
    return digest.hexdigest()
