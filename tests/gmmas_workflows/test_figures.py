from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from gmmas_schema.findings import Findings, UncertaintyFindings
from gmmas_schema.vocabulary import ENHANCING, MODALITIES, NECROSIS, OEDEMA, REGIONS, SUBTYPES, Modality, Region, Task
from gmmas_workflows.figures import SheetRow, background_of, brain_box, contact_sheet, largest_slice, learning_curves, overview

SHAPE = (20, 24, 16)


@pytest.fixture
def images() -> dict[Modality, np.ndarray]:
    """A brain of noise, brightest in the patient's right half, with air around it."""
    rng = np.random.default_rng(0)
    volumes = {m: rng.uniform(0.2, 0.4, SHAPE).astype(np.float32) for m in MODALITIES}
    for volume in volumes.values():
        volume[SHAPE[0] // 2 :] += 0.5
        volume[:3] = volume[-3:] = 0
    return volumes


@pytest.fixture
def labels() -> np.ndarray:
    volume = np.zeros(SHAPE, dtype=np.uint8)
    volume[8:14, 8:14, 9:12] = OEDEMA
    volume[9:13, 9:13, 10] = NECROSIS
    volume[10:12, 10:12, 10] = ENHANCING
    return volume


def colours(path: Path) -> np.ndarray:
    return matplotlib.image.imread(path)[..., :3]


def share(picture: np.ndarray, *, red: float, green: float, blue: float) -> float:
    """Return the share of pixels near a colour."""
    return float((np.abs(picture - np.array([red, green, blue])).max(axis=-1) < 0.2).mean())


def test_contact_sheet_has_a_row_per_case_and_shows_labels_and_gaps(images, labels, tmp_path) -> None:
    without = {m: image for m, image in images.items() if m is not Modality.T1CE}
    rows = [
        SheetRow("north", images, labels, labels, dict(zip(REGIONS, (0.9, 0.8, 0.7), strict=True))),
        SheetRow("south", without, labels, None),
    ]
    contact_sheet(rows[:1], tmp_path / "one.png")
    contact_sheet(rows, tmp_path / "deep" / "two.png")
    one, two = colours(tmp_path / "one.png"), colours(tmp_path / "deep" / "two.png")
    assert two.shape[1] == one.shape[1]
    assert two.shape[0] > 1.7 * one.shape[0]
    # The tumour is drawn in oedema's blue over a bright or dark background.
    assert share(two, red=0.5, green=0.7, blue=0.8) > 0.005


def test_contact_sheet_with_nothing_found_shows_the_middle(images, tmp_path) -> None:
    empty = np.zeros(SHAPE, dtype=np.uint8)
    contact_sheet([SheetRow("west", images, empty, empty)], tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_the_patients_right_is_on_the_left(images, tmp_path) -> None:
    blank = np.zeros(SHAPE, dtype=np.uint8)
    contact_sheet([SheetRow("north", {Modality.FLAIR: images[Modality.FLAIR]}, blank)], tmp_path / "sheet.png")
    picture = colours(tmp_path / "sheet.png").mean(axis=-1)
    height, width = picture.shape
    flair = picture[int(0.3 * height) : int(0.7 * height), int(0.04 * width) : int(0.25 * width)]
    half = flair.shape[1] // 2
    assert flair[:, :half].mean() > 1.5 * flair[:, half:].mean()


def findings_of(held: tuple[Modality, ...], **changes: object) -> Findings:
    return Findings(
        case="case-1",
        modalities_used=held,
        modalities_missing=tuple(m for m in MODALITIES if m not in held),
        volume_ml=dict(zip(REGIONS, (12.5, 4.0, 1.0), strict=True)),
        probability={Task.IDH: 0.2, Task.CODELETION: 0.1},
        subtype=dict(zip(SUBTYPES, (0.8, 0.1, 0.1), strict=True)),
        model_digest="0" * 64,
        weights_sha256="0" * 64,
        software="gmmas-fed",
        seconds=1.0,
        **changes,
    )


@pytest.mark.parametrize("held", [MODALITIES, (Modality.T1,)])
def test_overview_draws_any_subset(held, images, labels, tmp_path) -> None:
    shown = {m: images[m] for m in held}
    overview(tmp_path / "overview.png", images=shown, labels=labels, spacing_mm=(1.0, 1.0, 3.0), findings=findings_of(held))
    assert share(colours(tmp_path / "overview.png"), red=0.6, green=0.6, blue=0.3) > 0.0005


def test_overview_shows_uncertainty_where_there_is_some(images, labels, tmp_path) -> None:
    spread = UncertaintyFindings(region_std={Region.WT: 0.1}, probability_std={Task.IDH: 0.05, Task.CODELETION: 0.02})
    common = {"images": images, "labels": np.zeros_like(labels), "spacing_mm": (1.0, 1.0, 3.0)}
    orange = {"red": 0.9, "green": 0.5, "blue": 0.1}
    found = []
    for uncertainty in (np.zeros(SHAPE, np.float32), np.full(SHAPE, 0.7, np.float32)):
        findings = findings_of(MODALITIES, uncertainty=spread)
        overview(tmp_path / "overview.png", findings=findings, uncertainty=uncertainty, **common)
        found.append(share(colours(tmp_path / "overview.png"), **orange))
    assert found[1] > found[0] + 0.005


def test_learning_curves_draw_one_panel_each(tmp_path) -> None:
    learning_curves({"Dice": {"WT": [(0, 0.1), (1, 0.5)]}, "loss": {}}, tmp_path / "curves.png")
    height, width, _ = colours(tmp_path / "curves.png").shape
    assert width > 2 * height


def test_learning_curves_mark_the_best_round(tmp_path) -> None:
    panels = {"Dice": {"WT": [(0, 0.1), (4, 0.5)]}}
    learning_curves(panels, tmp_path / "plain.png")
    learning_curves(panels, tmp_path / "marked.png", best=2)
    plain, marked = colours(tmp_path / "plain.png"), colours(tmp_path / "marked.png")
    middle = slice(plain.shape[1] // 2 - 40, plain.shape[1] // 2 + 60)
    # The line of dashes is grey and as tall as half of the picture, at least.
    dashed = np.abs(plain - marked)[:, middle].max(axis=2) > 0.2
    assert dashed.any(axis=1).sum() > plain.shape[0] / 3


def test_largest_slice_and_brain_box(images, labels) -> None:
    assert [largest_slice(labels, axis=axis) for axis in range(3)] == [8, 8, 9]
    assert largest_slice(np.zeros(SHAPE), axis=1) == 12
    assert brain_box(images) == (slice(2, 18), slice(0, 25), slice(0, 17))
    assert brain_box({Modality.T1: np.zeros(SHAPE)}) == (slice(None), slice(None), slice(None))
    assert background_of(dict.fromkeys((Modality.T1, Modality.T2), 0)) is Modality.T2
