"""How well a tumour's place is found: registration and lobes of gmmas_portal.analysis against phantoms, whose place is known exactly.

    python -m benchmarks.location --cases 12 --seed 1

A phantom's brain is the average brain, bent (affine and smooth random warp) and pushed aside by its tumour, so for every voxel the point of
the average brain that it shows is known. Told are, per sequence that is registered: the distance between the found and the true place of
the tumour's centre of mass; whether side and main lobe are those of the true places; and the share of the tumour's voxels whose lobe is
right. The tumour is the true one throughout: the registration leaves the true mask out, and the place of the true mask's voxels is told.
An outline by the network adds its own error to every figure here, and may mislead the registration besides; that is not measured.

What this does not tell either: whether the planes between lobes are those of an anatomist (tests/gmmas_portal/analysis/test_lobes.py).
Phantoms are bent from the very template that they are registered to, which flatters. About fifteen seconds a case on one core.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.software import commit
from gmmas_data.phantom.anatomy import coarse_tissue, draw_head
from gmmas_data.phantom.atlas import load_atlas
from gmmas_data.phantom.case import PhantomCase, _streams, draw_patient, make_case
from gmmas_data.phantom.growth import grow, push_of
from gmmas_portal.analysis.atlas_registration import register_to_mni
from gmmas_portal.analysis.frame import MeasurementFrame
from gmmas_portal.analysis.lobes import lobe_numbers, share_lobes
from gmmas_portal.analysis.measurements import measure
from gmmas_schema.phantom import ScannerConfig
from gmmas_schema.vocabulary import SUBTYPES, Modality, Subtype

SEQUENCES = (Modality.T1, Modality.T1CE, Modality.T2, Modality.FLAIR)
SPACING_MM, ATLAS_MM = 2.0, 2


def true_places(seed: np.random.SeedSequence, subtype: Subtype, made: PhantomCase) -> NDArray[np.float64]:
    """Return the MNI coordinates (N, 3) of the tumour's voxels, by the steps with which the phantom was made; the patient's own sides."""
    atlas = load_atlas(ATLAS_MM)
    heads, tumours = _streams(seed)[1:3]
    subject, signs = draw_patient(seed, subtype)
    head = draw_head(heads)
    tissue, depth_mm, ventricle = coarse_tissue(atlas, head)
    growth = grow(tumours, tissue, depth_mm, signs)
    widening = max(0.0, 0.03 * (subject.age_years - 35) + 0.35 * float(heads.standard_normal()))
    pushed = head.pushed_by(push_of(growth, tissue, depth_mm, ventricle, expansion=signs.expansion, atrophy=widening))
    points = np.stack(pushed.sources_mm(made.grid), axis=-1)[made.labels_XYZ > 0].astype(np.float64)
    return points * [-1 if head.mirrored else 1, 1, 1]


def judge(seed: np.random.SeedSequence, subtype: Subtype) -> list[dict[str, object]]:
    """Return one row a sequence for one phantom."""
    made = make_case(seed, atlas=load_atlas(ATLAS_MM), subtype=subtype, scanner=ScannerConfig(), spacing_mm=SPACING_MM)
    truth = true_places(seed, subtype, made)
    affine = np.diag([made.grid.spacing_mm] * 3 + [1.0])
    affine[:3, 3] = [axis.ravel()[0] for axis in made.grid.axes_mm]
    brain = np.logical_or.reduce([image > 0 for image in made.images.values()])
    rows = []
    for modality in SEQUENCES:
        image = {modality: made.images[modality].astype(np.float32)}
        found = register_to_mni(image, brain, affine, tumour=made.labels_XYZ > 0)
        frame = MeasurementFrame.around(brain, affine, to_mni=found)
        places = frame.mni_mm(frame.points_mm(made.labels_XYZ > 0))
        row: dict[str, object] = {"subtype": str(subtype), "sequence": str(modality), "found": places is not None}
        if places is not None:
            told = {fact.id: fact.value for fact in measure(made.labels_XYZ, frame)}
            row |= {
                "centre_error_mm": round(float(np.linalg.norm(places.mean(axis=0) - truth.mean(axis=0))), 2),
                "left_error": round(abs(float(np.mean(truth[:, 0] < 0)) - float(str(told["share.left"])) / 100), 3),
                "lobe_right": share_lobes(truth)[0][0] == told["location.lobe_1"],
                "voxels_right": round(float(np.mean(lobe_numbers(places) == lobe_numbers(truth))), 3),
            }
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Judge every case, print a table and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "location.json")
    options = parser.parse_args(arguments)
    seeds = np.random.SeedSequence(options.seed).spawn(options.cases)
    rows = [row for number, seed in enumerate(seeds) for row in judge(seed, SUBTYPES[number % len(SUBTYPES)])]
    summary = []
    for modality in SEQUENCES:
        own = [row for row in rows if row["sequence"] == modality]
        placed = [row for row in own if row["found"]]
        errors = np.array([row["centre_error_mm"] for row in placed], dtype=float)
        summary.append(
            {
                "sequence": str(modality),
                "cases": len(own),
                "found": len(placed),
                "centre_error_median_mm": round(float(np.median(errors)), 2),
                "centre_error_95th_mm": round(float(np.quantile(errors, 0.95)), 2),
                "left_error_largest": max(float(str(row["left_error"])) for row in placed),
                "main_lobe_right": sum(bool(row["lobe_right"]) for row in placed),
                "voxels_right_mean": round(float(np.mean([float(str(row["voxels_right"])) for row in placed])), 3),
            }
        )
        print("  ".join(f"{key} {value}" for key, value in summary[-1].items()))
    result = {"seed": options.seed, "software": commit(), "tumour": "true mask", "summary": summary, "cases": rows}
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
