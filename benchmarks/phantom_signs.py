"""How much of IDH and 1p/19q can be read from phantoms? An upper bound for any network, from simple features of the true mask.

The phantom must be neither trivial nor hopeless: about .90 AUC for IDH and .80 for 1p/19q are wanted, as reported for real gliomas. Also
measured: seconds per case, tumour volumes, and the Dice of the best single FLAIR threshold (what a network has to beat).

    python benchmarks/phantom_signs.py --cases 300 --processes 2

writes benchmarks/results/phantom_signs.json.
"""

import argparse
import csv
import json
import os
import platform
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gmmas_data.phantom import make_cohorts
from gmmas_schema.phantom import SCANNERS, PhantomSpec

RESULT = Path(__file__).parent / "results" / "phantom_signs.json"
SPACING_MM = 2.0
THRESHOLDS = np.arange(1.0, 6.1, 0.25)
Array = NDArray[np.float64]


def main() -> None:
    """Make a cohort, measure it, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=300, help="patients in all, spread over the preset scanners")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sites = [{"name": name.replace(".", "-"), "cases": options.cases // len(SCANNERS), "scanner": name} for name in SCANNERS]
    spec = PhantomSpec.parse({"seed": options.seed, "spacing_mm": SPACING_MM, "sites": sites}, where="phantom_signs.py")
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        make_cohorts(spec, Path(folder), processes=options.processes)
        wall_s, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = {"wall": wall_s, "cpu": used.ru_utime + used.ru_stime}
        rows = [
            measure(Path(folder) / site.name / row["patient_id"], row)
            for site in spec.sites
            for row in csv.DictReader((Path(folder) / site.name / "labels.csv").open())
        ]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(summarise(rows, seconds, options), indent=2) + "\n")
    print(RESULT.read_text())


def read(path: Path) -> Array:
    """Return a volume in RAS+ order."""
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj, dtype=np.float64)


def measure(folder: Path, row: dict[str, str]) -> dict[str, object]:
    """Return labels, features and threshold Dice of one case."""
    image = {m: read(folder / f"{folder.name}_{m}.nii.gz") for m in ("t1", "t1ce", "t2", "flair")}
    labels = read(folder / f"{folder.name}_seg.nii.gz")
    brain, tumour, core = image["t1"] > 0, labels > 0, (labels == 1) | (labels == 4)
    z = {}
    for m, volume in image.items():
        healthy = volume[brain & ~tumour]
        z[m] = (volume - np.median(healthy)) / (np.percentile(healthy, 84) - np.percentile(healthy, 16)) * 2
    ml = {name: float((labels == value).sum() * SPACING_MM**3 / 1000) for name, value in (("ncr", 1), ("ed", 2), ("et", 4))}
    return {
        "subtype": row["subtype"],
        "age": float(row["age_years"]),
        "ml": ml,
        "features": features(z, brain=brain, core=core if core.any() else tumour, ml=ml),
        "threshold_dice": threshold_dice(z["flair"], brain, tumour),
    }


def features(z: dict[str, Array], *, brain: NDArray[np.bool_], core: NDArray[np.bool_], ml: dict[str, float]) -> list[float]:
    """Return volumes, position, signal, mismatch, calcification and edge sharpness of a tumour."""
    total, solid = sum(ml.values()), ml["ncr"] + ml["et"]
    depth = ndimage.distance_transform_edt(brain) * SPACING_MM
    inner = ndimage.binary_erosion(core, iterations=2)
    inner = inner if inner.any() else core
    rim = core & ~inner if (core & ~inner).any() else core
    edge = ndimage.binary_dilation(core) ^ ndimage.binary_erosion(core)
    slope = ndimage.gaussian_gradient_magnitude(z["t2"], 1.0)
    x, y, height = (float(c) for c in ndimage.center_of_mass(core))
    values = [np.log(total), ml["et"] / (solid + 1), ml["ncr"] / (solid + 1), ml["ed"] / total]
    values += [abs(x - brain.shape[0] / 2), y, height, float(depth[core].mean()), float(np.percentile(depth[core], 10))]
    values += [float(f) for m in z for f in (np.median(z[m][inner]), z[m][core].std(), *np.percentile(z[m][core], (2, 98)))]
    values += [
        float(np.median(z["flair"][inner]) - np.median(z["flair"][rim])),
        float(np.median(z["t2"][inner]) - np.median(z["flair"][inner])),
    ]
    values += [float(slope[edge & brain].mean()), float((z["t2"][core] < 0).mean()), float((z["flair"][core] < 0).mean())]
    return values


def threshold_dice(flair: Array, brain: NDArray[np.bool_], tumour: NDArray[np.bool_]) -> list[float]:
    """Return Dice of the largest component above each of THRESHOLDS in smoothed FLAIR."""
    smooth = ndimage.gaussian_filter(flair * brain, 0.8)
    found = []
    for threshold in THRESHOLDS:
        parts, _ = ndimage.label((smooth > threshold) & brain)
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        largest = (parts == sizes.argmax()) & (sizes.max() > 0)
        found.append(float(2 * (largest & tumour).sum() / (largest.sum() + tumour.sum())))
    return found


def auc(x: Array, y: NDArray[np.bool_]) -> dict[str, float]:
    """Return the cross-validated AUC of a random forest and of logistic regression."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    models = {
        "random_forest": RandomForestClassifier(400, min_samples_leaf=3, random_state=0, n_jobs=1),
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)),
    }
    return {
        name: round(float(roc_auc_score(y, cross_val_predict(m, x, y, cv=folds, method="predict_proba")[:, 1])), 3)
        for name, m in models.items()
    }


def summarise(rows: list[dict[str, Any]], seconds: dict[str, float], options: argparse.Namespace) -> dict[str, object]:
    """Return the result as written."""
    x = np.array([row["features"] for row in rows])
    age = np.array([[row["age"]] for row in rows])
    subtype = np.array([row["subtype"] for row in rows])
    mutant, codeleted = subtype != "glioblastoma", subtype == "oligodendroglioma"
    volumes = {
        name: [sum(row["ml"][part] for part in parts) for row in rows]
        for name, parts in (("wt", ("ncr", "ed", "et")), ("tc", ("ncr", "et")), ("et", ("et",)))
    }
    dice = np.array([row["threshold_dice"] for row in rows])
    best = int(np.median(dice, axis=0).argmax())
    return {
        "command": f"python benchmarks/phantom_signs.py --cases {options.cases} --processes {options.processes} --seed {options.seed}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "cases": {name: int((subtype == name).sum()) for name in np.unique(subtype)},
        "seconds_per_case": {clock: round(value / len(rows), 2) for clock, value in seconds.items()},
        "volume_ml_percentiles_5_25_50_75_95": {
            name: [round(float(p), 1) for p in np.percentile(v, (5, 25, 50, 75, 95))] for name, v in volumes.items()
        },
        "share_with_enhancement": {
            name: round(float(np.mean([row["ml"]["et"] > 0.5 for row in rows if row["subtype"] == name])), 2) for name in np.unique(subtype)
        },
        "auc": {
            "idh": auc(x, mutant),
            "idh_with_age": auc(np.hstack([x, age]), mutant),
            "idh_age_alone": round(float(roc_auc_score(mutant, -age[:, 0])), 3),
            "codeletion": auc(x, codeleted),
            "codeletion_among_mutants": auc(x[mutant], codeleted[mutant]),
        },
        "best_flair_threshold_wt_dice": {
            "threshold": float(THRESHOLDS[best]),
            "median": round(float(np.median(dice[:, best])), 3),
            "quartiles": [round(float(q), 3) for q in np.percentile(dice[:, best], (25, 75))],
        },
    }


if __name__ == "__main__":
    main()
