"""What the check for unlike cases is worth: scores of known gliomas, and of a brain that has something else.

    python -m benchmarks.novelty --model runs/demo/run/models/best --gliomas runs/demo/cohorts/unseen
        --other T1.nii.gz,T1CE.nii.gz,T2.nii.gz,FLAIR.nii.gz

Gliomas are cohorts, each case with the sequences it has; in the committed result `unseen` took no part in training, the others did. The
other brain (multiple sclerosis) is shown with several subsets of its four sequences. The threshold of
gmmas_portal.analysis.novelty was chosen with this result in view: it describes the choice, and is no estimate for another model. The
result names run and round of the model. About a second a case on one core.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.software import commit
from gmmas_data.cases import Case
from gmmas_data.layouts import read_cohort
from gmmas_model.weights import Weights, load_weights
from gmmas_portal.analysis.foci import largest_focus
from gmmas_portal.analysis.novelty import DEFAULT_THRESHOLD, LARGEST_SHARE, judge_novelty
from gmmas_schema.vocabulary import MODALITIES, REGIONS, Layout, Modality, Region, join_modalities
from gmmas_workflows.evaluation import THRESHOLD
from gmmas_workflows.inference import predict_case

SUBSETS = (
    MODALITIES,
    (Modality.T1, Modality.T2, Modality.FLAIR),
    (Modality.T2, Modality.FLAIR),
    (Modality.FLAIR,),
    (Modality.T1CE,),
)


def judge(case: Case, weights: Weights) -> dict[str, object]:
    """Return score, share of the largest focus, and whether the case counts as unlike a glioma."""
    probability_RIJK = predict_case(case, weights).probability_RIJK
    whole = probability_RIJK[REGIONS.index(Region.WT)] > THRESHOLD
    found = judge_novelty(probability_RIJK, whole, temperature=weights.temperatures.get(Region.WT, 1.0))
    share = float(largest_focus(whole).sum() / whole.sum()) if whole.any() else None
    return {"sequences": join_modalities(case.images), "score": found.score, "largest_share": share, "unlike": bool(found.reason)}


def summarise(name: str, rows: Sequence[dict[str, object]]) -> dict[str, object]:
    """Return the figures of one cohort."""
    scores = np.array([row["score"] for row in rows if row["score"] is not None], dtype=float)
    low, middle, high, highest = np.quantile(scores, (0.05, 0.5, 0.95, 1.0)) if scores.size else (np.nan,) * 4
    return {
        "cohort": name,
        "cases": len(rows),
        "nothing_outlined": len(rows) - int(scores.size),
        "score_5th": round(float(low), 3),
        "score_median": round(float(middle), 3),
        "score_95th": round(float(high), 3),
        "score_highest": round(float(highest), 3),
        "unlike": sum(bool(row["unlike"]) for row in rows),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Judge every case, print a table and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--gliomas", type=Path, action="append", required=True, help="folder of a cohort; may be given several times")
    parser.add_argument("--other", default="", help="T1, T1ce, T2 and FLAIR of a brain without a glioma, separated by commas")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "novelty.json")
    options = parser.parse_args(arguments)
    weights = load_weights(options.model)
    cohorts = [summarise(folder.name, [judge(case, weights) for case in read_cohort(folder)]) for folder in options.gliomas]
    other = []
    if options.other:
        files = dict(zip(MODALITIES, map(Path, options.other.split(",")), strict=True))
        cases = [Case("other", "other", {m: files[m] for m in subset}, None, Layout.BRATS2021) for subset in SUBSETS]
        other = [judge(case, weights) for case in cases]
    result = {
        "threshold": DEFAULT_THRESHOLD,
        "largest_share": LARGEST_SHARE,
        "software": commit(),
        "model": dict(weights.metadata),
        "gliomas": cohorts,
        "other": other,
    }
    for row in (*cohorts, *other):
        print("  ".join(f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
