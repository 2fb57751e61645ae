"""Fingerprints of brains: the same scan is found again after other storage, spacing, scaling or skull-stripping; two patients differ.

What makes a brain with a tumour individual is its asymmetry, and healthy anatomy is nearly symmetric, so no population mean is needed:

    A = (Z - mirror(Z)) / 2,   Z the ranks of the intensities in the cells of the common grid,
    f = 96 low coefficients of the cosine transform of A that are odd from left to right, but the lowest three, which a coil's bias imitates

Within a site, two patients with a mean cosine of f over their common sequences of SAME or more are shown to a person; -SAME or less is
one brain, mirrored. Between sites only keyed hashes meet: the 96 signs of f are cut into 12 bands of a byte each, and a band leaves as
HMAC-SHA256(salt, sequence | band | byte), truncated, each sequence in a shuffled list of its own, so that nothing says which scans are of
one case. Two scans count as one patient's if they share SURE bands.

What the hashes leak. Whoever has the salt (the coordinator, every site of the federation) can try all 256 values of a band, so for them
the signs are open: 96 bits a sequence that say coarsely on which side the brain is brighter, hence roughly where the tumour lies; and
they can test whether a scan they hold is in the cohort. Nobody else learns anything, and no image can be made from the signs.

Measured on 140 phantoms of five scanners (benchmarks/results/audit.json): other mask, noise, scaling: all found; spacing 1.8 x: 99 %
between sites; tilted by 5 degrees: 90 % between sites, 76 % within one. Of 9730 pairs of patients 2 are taken for one between sites,
none within; the largest mean cosine is 0.78. A strong bias field hides a twin. SURE was chosen on 42 of these phantoms.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from gmmas_data.canonical import BrainBox, place_box
from gmmas_schema.audit import SALT_BYTES
from gmmas_schema.errors import TrustError
from gmmas_schema.vocabulary import Modality

CELLS = (24, 24, 24)
SAME = 0.9
BANDS, BAND_BITS = 12, 8
SURE = 4
_HASH_DIGITS = 16


def _coefficients() -> tuple[tuple[int, int, int], ...]:
    """Return the 96 lowest coefficients that are odd in x, but for constant, linear in y and linear in z, in a fixed mixed order."""
    every = [(x, y, z) for x in range(1, 8, 2) for y in range(5) for z in range(5) if not (x == 1 and y + z <= 1)]
    lowest = sorted(every, key=lambda place: place[0] ** 2 + place[1] ** 2 + place[2] ** 2)[: BANDS * BAND_BITS]
    # Neighbours err together, so a band mixes far ones.
    return tuple(lowest[(place * 37) % len(lowest)] for place in range(len(lowest)))


_PLACES = tuple(np.array(_coefficients()).T)


def fingerprint_of(values: NDArray[np.float32], mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the 96 coefficients of one scan, of unit length.

    Args:
        values: the scan.
        mask: its brain; not empty.
        affine: 4x4, voxel to millimetres in RAS+.
    """
    box: BrainBox = place_box(mask, affine, cells=CELLS)
    inside = box.inside_UVW
    ranks_UVW = np.zeros(CELLS)
    cells = box.average(values)[inside]
    ranks_UVW[inside] = np.argsort(np.argsort(cells, kind="stable"), kind="stable") / max(len(cells), 1) - 0.5
    both = inside & inside[::-1]
    odd_UVW = np.where(both, ranks_UVW - ranks_UVW[::-1], 0)
    found = fft.dctn(odd_UVW, norm="ortho")[_PLACES]
    length = float(np.linalg.norm(found))
    coefficients: NDArray[np.float32] = np.asarray(found / length if length > 0 else found, dtype=np.float32)
    return coefficients


def similarity(one: Mapping[Modality, Sequence[float]], other: Mapping[Modality, Sequence[float]]) -> float:
    """Return the mean cosine over common sequences; 0 without any."""
    common = [float(np.dot(one[modality], other[modality])) for modality in one if modality in other]
    return sum(common) / len(common) if common else 0.0


def keyed_bands(coefficients: Sequence[float], *, modality: Modality, salt: bytes) -> tuple[str, ...]:
    """Return the keyed hashes of a scan's bands.

    Raises:
        TrustError: the salt is too short to be one.
    """
    if len(salt) < SALT_BYTES:
        raise TrustError(
            "the salt of the fingerprints is too short",
            got=f"{len(salt)} bytes",
            expected=f"at least {SALT_BYTES} random bytes",
            remedy="take the salt file of the federation from the coordinator",
        )
    packed = np.packbits(np.asarray(coefficients) > 0)
    return tuple(
        hmac.new(salt, f"{modality}|{band}|{byte}".encode(), hashlib.sha256).hexdigest()[:_HASH_DIGITS] for band, byte in enumerate(packed)
    )


def is_same_patient(one: Sequence[str], other: Sequence[str]) -> bool:
    """Tell whether the keyed bands of two scans of one sequence are taken for those of one patient."""
    return sum(a == b for a, b in zip(one, other, strict=True)) >= SURE
