"""How often the data audit is right: sequences under right and wrong names, and brains found again or confused.

    python -m benchmarks.audit NORTH SOUTH ... [--real FOLDER ...] --out benchmarks/results/audit.json

Each folder is a cohort; --real names further ones, so that figures on phantoms and on patients stay apart. Every scan is judged under its
own name and under every other (T1 and T1ce as a swapped pair). A brain is looked for among all others after each change of CHANGES.
"""

import argparse
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gmmas_data.canonical import place_box
from gmmas_data.fingerprints import SAME, fingerprint_of, is_same_patient, keyed_bands, similarity
from gmmas_data.layouts import read_cohort
from gmmas_data.quality import LoadedCase, load_case
from gmmas_data.sequence_identity import Contrast, Verdict, enhancement_between, judge_sequences, measure_contrast
from gmmas_schema.vocabulary import Modality

SALT = bytes(32)
PAIR = {Modality.T1, Modality.T1CE}
Scan = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]
Prints = dict[Modality, tuple[float, ...]]


def measure_cohort(folder: Path) -> tuple[dict[str, int], list[tuple[str, Prints, dict[str, Prints]]]]:
    """Return how often each verdict falls on right and wrong names, and the fingerprints of each case and its changed copies."""
    told: Counter[str] = Counter()
    prints = []
    for case in read_cohort(folder):
        loaded = load_case(case)
        told.update(_verdicts(loaded))
        scans = {m: (values, ndimage.binary_fill_holes(loaded.brains[m]), loaded.affine) for m, values in loaded.images.items()}
        changed = {name: {m: _print(change(scan)) for m, scan in scans.items()} for name, change in CHANGES.items()}
        prints.append((case.patient_id, {m: _print(scan) for m, scan in scans.items()}, changed))
    return dict(sorted(told.items())), prints


def _verdicts(loaded: LoadedCase) -> Iterator[str]:
    brain = np.logical_or.reduce(list(loaded.brains.values()))
    box = place_box(brain, loaded.affine)
    tumour = None if loaded.segmentation is None else loaded.segmentation > 0
    found = {m: measured for m, values in loaded.images.items() if (measured := measure_contrast(values, box, without=tumour)) is not None}
    contrasts = {m: contrast for m, (contrast, _) in found.items()}
    enhancement = None
    if set(found) >= PAIR:
        t1ce, t1 = loaded.images[Modality.T1CE], loaded.images[Modality.T1]
        enhancement = enhancement_between(t1ce, t1, brain, white_t1ce=found[Modality.T1CE][1], white_t1=found[Modality.T1][1])
    for m, verdict in judge_sequences(contrasts, enhancement=enhancement).items():
        yield f"right name, {m}: {verdict}"
    yield from _under_wrong_names(contrasts, enhancement)


def _under_wrong_names(contrasts: dict[Modality, Contrast], enhancement: float | None) -> Iterator[str]:
    for shown, named in itertools.product(contrasts, Modality):
        if shown is not named and {shown, named} != PAIR:
            yield f"wrong name: {judge_sequences({named: contrasts[shown]})[named]}"
    if enhancement is not None:
        swapped = {Modality.T1: contrasts[Modality.T1CE], Modality.T1CE: contrasts[Modality.T1]}
        for verdict in judge_sequences(swapped, enhancement=-enhancement).values():
            yield f"T1 and T1ce swapped: {verdict}"


def _print(scan: Scan) -> tuple[float, ...]:
    return tuple(map(float, fingerprint_of(*scan)))


def _masked(values: NDArray[np.floating[Any]], mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> Scan:
    return np.where(mask, values, 0).astype(np.float32), mask, affine


def _eroded(scan: Scan) -> Scan:
    values, mask, affine = scan
    return _masked(values, ndimage.binary_erosion(mask), affine)


def _coarser(scan: Scan, factor: float = 0.55) -> Scan:
    values, mask, affine = scan
    coarse = ndimage.zoom(mask.astype(np.float32), factor, order=1) > 0.5
    return _masked(ndimage.zoom(values, factor, order=1), coarse, affine @ np.diag([1 / factor] * 3 + [1]))


def _noisier(scan: Scan) -> Scan:
    values, mask, affine = scan
    noise = np.random.default_rng(0).normal(0, 0.05 * values[mask].std(), values.shape)
    return _masked(values * 1.7 + noise, mask, affine)


def _tilted(scan: Scan, degrees: float = 5) -> Scan:
    values, mask, affine = scan
    turn = np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]])
    centre = np.array(values.shape) / 2
    moved = [ndimage.affine_transform(v.astype(np.float32), matrix, offset=centre - matrix @ centre, order=1) for v in (values, mask)]
    return _masked(moved[0], moved[1] > 0.5, affine)


CHANGES: dict[str, Callable[[Scan], Scan]] = {
    "mask a voxel smaller": _eroded,
    "spacing 1.8 times": _coarser,
    "5 % noise, scaled": _noisier,
    "tilted by 5 degrees": _tilted,
}


def measure_fingerprints(prints: Sequence[tuple[str, Prints, dict[str, Prints]]]) -> dict[str, object]:
    """Return how often a changed brain is found, within a site and by keyed bands, and how often two patients are confused."""
    found = {
        name: {
            "within a site": float(np.mean([similarity(one, changed[name]) >= SAME for _, one, changed in prints])),
            "between sites": float(np.mean([_meet(one, changed[name]) for _, one, changed in prints])),
        }
        for name in CHANGES
    }
    pairs = [(a, b) for (p, a, _), (q, b, _) in itertools.combinations(prints, 2) if p != q]
    cosines = [similarity(a, b) for a, b in pairs]
    confused = {"within a site": sum(c >= SAME for c in cosines), "between sites": sum(_meet(a, b) for a, b in pairs)}
    return {"found again": found, "pairs of patients": len(pairs), "confused": confused, "largest cosine": max(cosines, default=None)}


def _meet(one: Prints, other: Prints) -> bool:
    return any(is_same_patient(_keyed(one[m], m), _keyed(other[m], m)) for m in one if m in other)


def _keyed(coefficients: tuple[float, ...], modality: Modality) -> tuple[str, ...]:
    return keyed_bands(coefficients, modality=modality, salt=SALT)


def main() -> None:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohorts", type=Path, nargs="+")
    parser.add_argument("--real", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    phantoms = {folder.name: measure_cohort(folder) for folder in arguments.cohorts}
    real = {f"real {number}": measure_cohort(folder) for number, folder in enumerate(arguments.real, start=1)}
    result = {
        "verdicts": {name: told for name, (told, _) in (phantoms | real).items()},
        "wrong": {name: _wrong(told) for name, (told, _) in (phantoms | real).items()},
        "fingerprints of phantoms": measure_fingerprints([one for _, prints in phantoms.values() for one in prints]),
        "fingerprints of real cases": measure_fingerprints([one for _, prints in real.values() for one in prints]),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


def _wrong(told: dict[str, int]) -> dict[str, int]:
    """Return the verdicts that mislead: a right name refused, a wrong one accepted."""
    refused = sum(count for name, count in told.items() if name.startswith("right") and name.endswith(Verdict.DISAGREES))
    accepted = sum(count for name, count in told.items() if not name.startswith("right") and name.endswith(f": {Verdict.AGREES}"))
    return {"right name refused": refused, "wrong name accepted": accepted, "judgements": sum(told.values())}


if __name__ == "__main__":
    main()
