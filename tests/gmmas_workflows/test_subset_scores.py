import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gmmas_data.cases import Case
from gmmas_data.layouts import read_case
from gmmas_data.preprocessing import preprocess_case
from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import Weights, load_weights, make_network, save_weights
from gmmas_schema.errors import DataError
from gmmas_schema.model import GridConfig, ModelDefinition
from gmmas_schema.trained_parts import TrainedParts
from gmmas_schema.vocabulary import MODALITIES, Modality, Region, Task
from gmmas_workflows.evaluation import score_cases
from gmmas_workflows.subset_scores import mean_gates, measure_subsets
from tests.gmmas_workflows.predictions import without_encoders

READ = (Modality.T1CE, Modality.FLAIR)
CASE = Path(__file__).parents[1] / "data" / "BraTS2021_00006"


@pytest.fixture(scope="module")
def weights(definition: ModelDefinition, start, tmp_path_factory) -> Weights:
    folder = tmp_path_factory.mktemp("weights")
    whole = definition.model_copy(update={"grid": GridConfig(spacing_mm=8.0, shape=(24, 24, 24))})
    save_weights(folder, start, whole)
    return load_weights(folder)


@pytest.fixture(scope="module")
def of_two(weights: Weights) -> Weights:
    """Return a model that reads T1ce and FLAIR only, so that there are three subsets to measure."""
    return replace(without_encoders(weights, Modality.T1, Modality.T2), sha256="1" * 64)


@pytest.fixture(scope="module")
def case() -> Case:
    return replace(read_case(CASE), idh=True)


@pytest.fixture
def network(definition: ModelDefinition) -> GmmasNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return GmmasNetwork(definition.network)


def test_every_subset_is_scored_as_by_itself_and_nothing_by_convention(weights, case, tmp_path) -> None:
    unlabelled = replace(case, case_id="B", segmentation=None, idh=None)
    found = measure_subsets([case, unlabelled], weights, tmp_path)
    assert len(found.scores) == 16
    assert [len(subset) for subset in found.scores] == [4] + [3] * 4 + [2] * 6 + [1] * 4 + [0]
    network, sample = make_network(weights), preprocess_case(case, weights.definition.grid)
    for subset in (MODALITIES, (Modality.T1, Modality.FLAIR), (Modality.T2,)):
        (expected,) = score_cases(network, [case], lambda _: sample, modalities=subset)
        first, second = found.scores[subset]
        assert (first.modalities, first.dice, first.truth) == (subset, expected.dice, {Task.IDH: True})
        assert first.probability == expected.probability
        assert (second.case_id, second.dice, second.truth) == ("B", {}, {})
    nothing, _ = found.scores[()]
    assert nothing.dice == {Region.WT: 0, Region.TC: 0, Region.ET: 0}
    assert set(nothing.probability.values()) == {0.5}


def test_predicting_nothing_is_right_where_there_is_nothing(weights, case, tmp_path) -> None:
    import nibabel as nib

    image = nib.load(case.segmentation)
    labels = np.asarray(image.dataobj).copy()
    labels[labels == 4] = 1
    nib.save(nib.Nifti1Image(labels, image.affine, image.header), tmp_path / "seg.nii.gz")
    found = measure_subsets([replace(case, segmentation=tmp_path / "seg.nii.gz")], weights, tmp_path / "scores")
    assert found.scores[()][0].dice == {Region.WT: 0, Region.TC: 0, Region.ET: 1}


def test_cases_without_a_sequence_of_the_model_do_not_count(weights, case, tmp_path) -> None:
    partial = replace(case, case_id="B", images={m: path for m, path in case.images.items() if m is not Modality.T1})
    found = measure_subsets([partial, case], weights, tmp_path)
    assert found.left_out == ("B",)
    assert {score.case_id for scores in found.scores.values() for score in scores} == {case.case_id}
    fewer = measure_subsets([partial, case], replace(without_encoders(weights, Modality.T1), sha256="0" * 64), tmp_path)
    assert fewer.left_out == ()
    assert len(fewer.scores) == 8
    with pytest.raises(DataError, match="no case has every sequence"):
        measure_subsets([partial], weights, tmp_path)


def test_an_interrupted_measurement_goes_on(of_two, case, tmp_path, monkeypatch) -> None:
    calls: list[tuple[Modality, ...]] = []
    interrupted = True
    progress: list[tuple[int, int]] = []

    def counted(*arguments, modalities, **options):
        if interrupted and len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(modalities)
        return score_cases(*arguments, modalities=modalities, **options)

    monkeypatch.setattr("gmmas_workflows.subset_scores.score_cases", counted)
    with pytest.raises(KeyboardInterrupt):
        measure_subsets([case], of_two, tmp_path)
    interrupted = False
    measured = measure_subsets([case], of_two, tmp_path, on_progress=lambda *at: progress.append(at))
    assert len(calls) == len(set(calls)) == 3
    assert progress[0] == (1, 4)
    assert progress[-1] == (4, 4)
    # A moved case with another name and mended labels is the same measurement; other weights are not.
    moved = tmp_path / "moved"
    shutil.copytree(CASE, moved)
    other = replace(case, case_id="B", images={m: moved / path.name for m, path in case.images.items()}, idh=False)
    again = measure_subsets([other], of_two, tmp_path)
    assert len(calls) == 3
    assert again.scores[READ][0].dice == measured.scores[READ][0].dice
    assert again.scores[READ][0].truth == {Task.IDH: False}
    assert again.gates == measured.gates
    measure_subsets([case], replace(of_two, sha256="0" * 64), tmp_path)
    assert len(calls) == 6


def test_entries_name_nobody_and_damaged_ones_are_made_again(of_two, case, tmp_path) -> None:
    before = measure_subsets([case], of_two, tmp_path)
    (entry,) = tmp_path.iterdir()
    content = entry.read_text()
    assert case.case_id not in entry.name + content
    assert case.patient_id not in content
    entry.write_text(content[:-20])
    assert measure_subsets([case], of_two, tmp_path) == before
    assert entry.read_text() == content


def test_bad_cases_stop_or_are_left_out(of_two, case, tmp_path) -> None:
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"\x1f\x8b broken")
    bad = replace(case, case_id="B", images={**case.images, Modality.FLAIR: broken})
    with pytest.raises(DataError, match=r"broken\.nii\.gz"):
        measure_subsets([bad, case], of_two, tmp_path / "scores")
    found = measure_subsets([bad, case], of_two, tmp_path / "scores", skip_bad=True)
    assert found.bad == ("B",)
    assert [score.case_id for score in found.scores[()]] == [case.case_id]


def test_gates_follow_the_biases_and_sum_to_one(network, make_sample) -> None:
    for modality, weight in zip(MODALITIES, (0.1, 0.2, 0.3, 0.4), strict=True):
        with torch.no_grad():
            network.gates[modality].bias.copy_(torch.tensor([0.0, np.log(weight)]))
    for fusion in network.fusion:
        torch.nn.init.zeros_(fusion.gate.weight)
    fine, coarse = mean_gates(network, make_sample(1))
    assert fine.tumour == pytest.approx(dict.fromkeys(MODALITIES, 0.25))
    assert coarse.tumour == pytest.approx(dict(zip(MODALITIES, (0.1, 0.2, 0.3, 0.4), strict=True)))
    assert coarse.brain == pytest.approx(coarse.tumour)
    assert mean_gates(network, make_sample(1, segmentation=False))[0].tumour == {}


def test_gates_are_means_over_the_tumour_and_over_the_brain(network, make_sample) -> None:
    sample = make_sample(1)
    image_MXYZ = sample.image_MXYZ.copy()
    image_MXYZ[:, 12:] = 0
    sample = replace(sample, image_MXYZ=image_MXYZ)
    image, present = torch.from_numpy(image_MXYZ)[None], torch.tensor([[True] * 4])
    with torch.inference_mode():
        weights = network.weigh(network.encode(image, present), present)[0][0].double().numpy()
    (fine, _) = mean_gates(network, sample)
    tumour = sample.regions_RXYZ[0].astype(bool)
    assert list(fine.tumour.values()) == pytest.approx(weights[:, tumour].mean(1))
    assert list(fine.brain.values()) == pytest.approx(weights[:, :12].mean((1, 2, 3)))
    for gates in mean_gates(network, sample):
        assert sum(gates.tumour.values()) == pytest.approx(1)
        assert sum(gates.brain.values()) == pytest.approx(1)


def test_gates_by_windows_count_every_voxel_once(network, make_sample, monkeypatch) -> None:
    # Instance norms see a window, not the box; gates that see one voxel each are the same in both.
    monkeypatch.setattr(network, "encode", lambda image, present: image)
    monkeypatch.setattr(network, "weigh", lambda image, present: [image.softmax(1), torch.nn.functional.avg_pool3d(image, 2).softmax(1)])
    sample = make_sample(1)
    whole, tiled = mean_gates(network, sample), mean_gates(network, sample, patch=(8, 8, 16))
    for one, other in zip(whole, tiled, strict=True):
        assert other.tumour == pytest.approx(one.tumour)
        assert other.brain == pytest.approx(one.brain)
    assert whole[0].tumour != pytest.approx(whole[0].brain, abs=0.01)


def test_what_nobody_trained_takes_no_part(weights, case, tmp_path) -> None:
    of_two = replace(weights, trained=TrainedParts(modalities=READ, heads=(Region.WT, Region.TC, Task.IDH)))
    # Scores of the same weights before their record said so lie in the same folder.
    measure_subsets([case], weights, tmp_path)
    found = measure_subsets([case], of_two, tmp_path)
    assert list(found.scores) == [READ, READ[:1], READ[1:], ()]
    for (score,) in found.scores.values():
        assert set(score.dice) == {Region.WT, Region.TC}
        assert Task.IDH in score.probability
        assert Task.CODELETION not in score.probability
    assert all(set(level.brain) == set(READ) for level in found.gates[0])
