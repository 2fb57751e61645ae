from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from gmmas_model.temperature_fit import choose_threshold
from gmmas_schema.calibration import BINS, Abstention, Calibration, CalibrationPlan, HeadCalibration, Reliability, ReliabilityPair
from gmmas_schema.vocabulary import MARKERS, REGIONS, Region, Task
from gmmas_workflows.reliability_figure import reliability_diagram


def reliability(patients: int, *, gap: float, seed: int = 0) -> Reliability:
    rng = np.random.default_rng(seed)
    count = rng.multinomial(patients, np.linspace(1, 4, BINS) / np.linspace(1, 4, BINS).sum()).astype(float)
    middle = 0.5 + (np.arange(BINS) + 0.5) / (2 * BINS)
    correct = count * np.clip(middle - gap, 0, 1)
    return Reliability(patients=tuple(count), confidence=tuple(count * middle), correct=tuple(correct))


def calibration(*heads, test: bool = True) -> Calibration:
    found = {}
    for seed, head in enumerate(heads):
        pair = ReliabilityPair(before=reliability(40, gap=0.2, seed=seed), after=reliability(40, gap=0.03, seed=seed + 9))
        abstention = None if isinstance(head, Region) else choose_threshold(pair.after, CalibrationPlan())
        found[head] = HeadCalibration(
            temperature=1.7, fitted=True, patients=40, reliability=pair, test=pair if test else None, abstention=abstention
        )
    return Calibration(weights_sha256="0" * 64, heads=found)


BLUE, ORANGE = (0.0, 0.45, 0.7), (0.84, 0.37, 0.0)


def share(path: Path, colour: tuple[float, float, float]) -> float:
    """Return the share of pixels near a colour."""
    picture = matplotlib.image.imread(path)[..., :3]
    return float((np.abs(picture - np.array(colour)).max(axis=-1) < 0.15).mean())


@pytest.mark.parametrize("heads", [(), (Task.IDH,), (*REGIONS, *MARKERS)])
@pytest.mark.parametrize("test", [True, False])
def test_a_column_per_head_and_a_row_per_kind_of_patients(tmp_path: Path, heads, test) -> None:
    path = tmp_path / "new" / "reliability.png"
    reliability_diagram(calibration(*heads, test=test), path)
    height, width, _ = matplotlib.image.imread(path).shape
    assert (height > 700) == (test and bool(heads))
    assert (width > 2000) == (len(heads) == 7)
    assert (share(path, BLUE) > 0.0001) == bool(heads)


def test_a_markers_threshold_is_drawn(tmp_path: Path) -> None:
    whole = calibration(Task.IDH, test=False)
    assert whole.heads[Task.IDH].abstention.rule == "below"
    open_ended = whole.heads[Task.IDH].model_copy(update={"abstention": Abstention(rule="always", note="never right enough")})
    reliability_diagram(whole, tmp_path / "with.png")
    reliability_diagram(whole.model_copy(update={"heads": {Task.IDH: open_ended}}), tmp_path / "without.png")
    assert share(tmp_path / "with.png", ORANGE) > 1.5 * share(tmp_path / "without.png", ORANGE)
