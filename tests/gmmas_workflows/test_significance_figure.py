from itertools import combinations

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from gmmas_schema.messages import Interval
from gmmas_schema.vocabulary import MARKERS, MODALITIES, REGIONS, Modality
from gmmas_workflows.significance import Attribution, GateWeights, Significance, subset_name
from gmmas_workflows.significance_figure import FIGURE_NAMES, MODALITY_COLOURS, _draw_gates, _group_label, significance_picture


def interval(value: float) -> Interval:
    return Interval(value=value, low=value - 0.05, high=value + 0.05, n=7)


def make_result(modalities=MODALITIES, *, names=("dice_wt", "auc_idh"), shapley=None, tumour: bool = True) -> Significance:
    subsets = [subset for size in range(len(modalities), -1, -1) for subset in combinations(modalities, size)]
    values = shapley or dict.fromkeys(modalities, 0.2)
    figure = Attribution(
        value={subset_name(subset): interval(0.1 + 0.2 * len(subset)) for subset in subsets},
        shapley={m: interval(values[m]) for m in modalities},
    )
    weights = {m: interval(1 / len(modalities)) for m in modalities}
    return Significance(
        software="gmmas-fed",
        model_digest="0" * 64,
        weights_sha256="0" * 64,
        modalities=modalities,
        cases=7,
        left_out=0,
        bad=0,
        seed=0,
        figures=dict.fromkeys(names, figure),
        gates=(GateWeights(spacing_mm=2, tumour=weights if tumour else {}, brain=weights),) * 4,
    )


def bars(path, colour: str, *, top: float = 0.45) -> float:
    """Return the share of pixels of a bar's colour in the upper part of the picture."""
    picture = matplotlib.image.imread(path)[..., :3]
    rgb = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return float((np.abs(picture[: int(top * len(picture))] - rgb).max(axis=-1) < 0.02).mean())


def test_bars_are_as_long_as_the_values(tmp_path) -> None:
    values = {Modality.T1: 0.1, Modality.T1CE: 0.2, Modality.T2: 0.4, Modality.FLAIR: -0.2}
    significance_picture(make_result(shapley=values), tmp_path / "deep" / "picture.png")
    area = {m: bars(tmp_path / "deep" / "picture.png", MODALITY_COLOURS[m]) for m in MODALITIES if m is not Modality.T1}
    assert area[Modality.T2] == pytest.approx(2 * area[Modality.T1CE], rel=0.1)
    assert area[Modality.FLAIR] == pytest.approx(area[Modality.T1CE], rel=0.1)


@pytest.mark.parametrize("modalities", [(Modality.FLAIR,), (Modality.T1, Modality.T2)])
@pytest.mark.parametrize("names", [("auc_idh",), tuple(FIGURE_NAMES)])
def test_any_number_of_sequences_and_figures_is_drawn(modalities, names, tmp_path) -> None:
    # Layout faults are warnings of matplotlib, and these are errors here.
    significance_picture(make_result(modalities, names=names), tmp_path / "picture.png")
    assert bars(tmp_path / "picture.png", MODALITY_COLOURS[modalities[0]]) > 0.01


@pytest.mark.parametrize("modalities", [(Modality.T1,), (Modality.T1, Modality.T2), MODALITIES])
def test_a_group_tells_the_step_from_nothing_to_everything(modalities) -> None:
    figure = make_result(modalities).figures["auc_idh"]
    assert f"AUC 0.10 → {0.1 + 0.2 * len(modalities):.2f}" in _group_label("auc_idh", figure, "AUC")


def test_a_weight_that_was_not_measured_has_no_number() -> None:
    figure = Figure()
    panels = figure.subplots(2, 1)
    _draw_gates(panels, make_result(tumour=False).gates, MODALITIES)
    tumour, brain = ([text.get_text() for text in axes.texts] for axes in panels)
    assert tumour == ["–"] * 16
    assert brain == ["25%"] * 16


def test_a_value_outside_its_interval_and_no_segmentation_are_drawn(tmp_path) -> None:
    result = make_result(tumour=False)
    odd = Attribution(value=result.figures["auc_idh"].value, shapley=dict.fromkeys(MODALITIES, Interval(value=0.5, low=0.1, high=0.4, n=3)))
    significance_picture(result.model_copy(update={"figures": {"auc_idh": odd}}), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_every_figure_has_a_name() -> None:
    assert set(FIGURE_NAMES) == {f"dice_{region}" for region in REGIONS} | {f"auc_{task}" for task in MARKERS}
