"""Gaussian noise for privacy, from a cryptographic generator.

    u ~ uniform (0, 1) from AES-256 in counter mode,    n = sqrt(-2 ln u_1) cos(2 pi u_2)        (Box and Muller, 1958)

Noise that can be guessed protects nothing: numpy's generators can be continued by whoever has seen enough of them, and a run's seed is
public (Garfinkel and Leclerc, "Randomness Concerns When Deploying Differential Privacy", WPES 2020). The key comes from the operating
system for every release and is forgotten with it, so noise can never be drawn again, by a resumed run as little as by anyone else.

Limit: doubles leave gaps in what the noise can be (Mironov, CCS 2012). The sum is rounded to float32 after the noise, which hides most of
that and proves nothing. Noise that sites make themselves has none of them (strategies.discrete_gaussian).
"""

import secrets
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

KEY_BYTES: Final = 32


class NoiseSource:
    """A stream of independent Gaussian numbers.

    Args:
        key: of the cipher; tests give one, everybody else takes a new one of the operating system.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._stream = Cipher(AES256(key or secrets.token_bytes(KEY_BYTES)), CTR(bytes(16))).encryptor()

    def gaussian(self, size: int, *, deviation: float) -> NDArray[np.float64]:
        """Return `size` numbers of this standard deviation and mean 0."""
        pairs = (size + 1) // 2
        radius_P = np.sqrt(-2 * np.log(self.uniform(pairs))) * deviation
        angle_P = 2 * np.pi * self.uniform(pairs)
        return np.concatenate([radius_P * np.cos(angle_P), radius_P * np.sin(angle_P)])[:size]

    def uniform(self, size: int) -> NDArray[np.float64]:
        """Return numbers strictly between 0 and 1, 53 bits each."""
        return ((self.words(size) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53

    def words(self, size: int) -> NDArray[np.uint64]:
        """Return words of 64 uniform bits."""
        return np.frombuffer(self._stream.update(bytes(8 * size)), dtype="<u8")
