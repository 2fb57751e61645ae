import pytest
import torch

from gmmas_model.calibration import calibrate_prediction
from gmmas_model.inference import predict_mirrored, predict_probabilities, predict_volume
from gmmas_model.network import GmmasNetwork
from gmmas_schema.inference import Flip
from gmmas_schema.vocabulary import Region, Task

LOGITS = ("region_logits_BRXYZ", "idh_logit_B", "codeletion_logit_B")


@pytest.fixture
def batch(make_batch):
    return make_batch(present=[[True] * 4, [True, False, False, True]], side=16)


def test_one_window_is_the_single_pass_bit_for_bit(network, batch) -> None:
    single = predict_probabilities(network, batch.image_BMXYZ, batch.present_BM)
    with torch.no_grad():
        plain = network(batch.image_BMXYZ, batch.present_BM)
    for patch in (None, (16, 16, 16)):
        volume = predict_volume(network, batch.image_BMXYZ, batch.present_BM, patch=patch)
        for name in LOGITS:
            assert torch.equal(getattr(volume, name), getattr(single, name))
            assert torch.equal(getattr(volume, name), getattr(plain, name))


def test_windows_side_by_side_are_those_of_separate_volumes(network, make_batch) -> None:
    parts = [make_batch(present=[[True] * 4], seed=seed) for seed in (0, 1)]
    whole = torch.cat([part.image_BMXYZ for part in parts], dim=2)
    volume = predict_volume(network, whole, parts[0].present_BM, patch=(8, 8, 8), overlap=0)
    single = [predict_probabilities(network, part.image_BMXYZ, part.present_BM) for part in parts]
    torch.testing.assert_close(volume.region_logits_BRXYZ, torch.cat([p.region_logits_BRXYZ for p in single], dim=2))


def test_heads_answer_to_the_tumour_of_all_windows(network, make_batch) -> None:
    """The same box twice: the same averages, twice the volume; a mean of the windows' answers would not move."""
    part = make_batch(present=[[True] * 4])
    seen: list[torch.Tensor] = []
    network.heads["idh"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    predict_probabilities(network, part.image_BMXYZ, part.present_BM)
    predict_volume(network, part.image_BMXYZ.repeat(1, 1, 2, 1, 1), part.present_BM, patch=(8, 8, 8), overlap=0)
    once, twice = (x.clone() for x in seen)
    larger = torch.zeros_like(once)
    larger[:, -3] = torch.tensor(2.0).log10()
    torch.testing.assert_close(twice, once + larger)


def test_overlapping_windows_of_a_constant_volume_agree_with_each_of_them(network) -> None:
    image, present = torch.full((1, 4, 8, 8, 8), 0.5), torch.ones(1, 4, dtype=torch.bool)
    single = predict_probabilities(network, image, present)
    volume = predict_volume(network, torch.full((1, 4, 16, 8, 8), 0.5), present, patch=(8, 8, 8))
    low, high = single.region_logits_BRXYZ.amin(), single.region_logits_BRXYZ.amax()
    assert volume.region_logits_BRXYZ.amin() >= low - 1e-5
    assert volume.region_logits_BRXYZ.amax() <= high + 1e-5


def test_mirror_images_are_averaged_after_calibration(network, batch) -> None:
    temperatures = {Region.WT: 3.0, Task.IDH: 0.5}
    both = predict_mirrored(network, batch.image_BMXYZ, batch.present_BM, flip=Flip.LEFT_RIGHT, temperatures=temperatures)
    first, second = (
        calibrate_prediction(predict_probabilities(network, image, batch.present_BM), temperatures)
        for image in (batch.image_BMXYZ, batch.image_BMXYZ.flip(2))
    )
    torch.testing.assert_close(both.regions_BRXYZ, (first.region_probability() + second.region_probability().flip(2)) / 2)
    torch.testing.assert_close(both.markers[Task.IDH], (first.idh_probability() + second.idh_probability()) / 2)
    torch.testing.assert_close(both.subtype_BS[:, 0], 1 - both.markers[Task.IDH])
    torch.testing.assert_close(both.subtype_BS[:, 2], both.markers[Task.CODELETION])


def test_all_mirror_images_are_eight_and_make_a_symmetric_answer(network, batch) -> None:
    seen: list[tuple[int, int]] = []
    options = {"flip": Flip.ALL, "patch": (16, 16, 16)}
    plain = predict_mirrored(network, batch.image_BMXYZ, batch.present_BM, on_progress=lambda *at: seen.append(at), **options)
    assert seen == [(done + 1, 8) for done in range(8)]
    for axis in (2, 3, 4):
        mirrored = predict_mirrored(network, batch.image_BMXYZ.flip(axis), batch.present_BM, **options)
        torch.testing.assert_close(mirrored.regions_BRXYZ.flip(axis), plain.regions_BRXYZ)
        torch.testing.assert_close(mirrored.markers[Task.IDH], plain.markers[Task.IDH])


def test_without_mirror_images_and_temperatures_nothing_changes(network, batch) -> None:
    plain = predict_mirrored(network, batch.image_BMXYZ, batch.present_BM)
    single = predict_probabilities(network, batch.image_BMXYZ, batch.present_BM)
    assert torch.equal(plain.regions_BRXYZ, single.region_probability())
    assert torch.equal(plain.subtype_BS, single.subtype_probability())


@pytest.mark.parametrize("patch", [(8, 8, 8), (8, 16, 8)])
def test_what_stands_in_an_absent_modality_is_not_read(patch, network, batch) -> None:
    noisy = batch.image_BMXYZ.clone()
    noisy[1, 1], noisy[1, 2] = torch.nan, 1e6
    first, second = (predict_volume(network, image, batch.present_BM, patch=patch) for image in (batch.image_BMXYZ, noisy))
    for name in LOGITS:
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_a_batch_is_predicted_like_its_cases(network, batch) -> None:
    together = predict_volume(network, batch.image_BMXYZ, batch.present_BM, patch=(8, 8, 8))
    for case in range(2):
        alone = predict_volume(network, batch.image_BMXYZ[case : case + 1], batch.present_BM[case : case + 1], patch=(8, 8, 8))
        torch.testing.assert_close(together.region_logits_BRXYZ[case], alone.region_logits_BRXYZ[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(together.idh_logit_B[case], alone.idh_logit_B[0], rtol=1e-4, atol=1e-4)


def test_outside_of_all_windows_there_is_no_tumour(network, batch) -> None:
    image = torch.zeros(1, 4, 32, 16, 16)
    image[:, :, :16] = batch.image_BMXYZ[:1]
    volume = predict_volume(network, image, batch.present_BM[:1], patch=(16, 16, 16), overlap=0)
    assert volume.region_probability()[:, :, 16:].max() < 1e-4
    torch.testing.assert_close(volume.idh_logit_B, predict_probabilities(network, image[:, :, :16], batch.present_BM[:1]).idh_logit_B)


def test_progress_counts_windows_and_the_networks_mode_stays(network, batch) -> None:
    network.train()
    seen: list[tuple[int, int]] = []
    predict_volume(network, batch.image_BMXYZ, batch.present_BM, patch=(8, 16, 16), on_progress=lambda *at: seen.append(at))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert all(module.training for module in network.modules())


def test_optional_heads_answer_too(networks: dict[tuple, GmmasNetwork], make_batch) -> None:
    network = max(networks.items(), key=lambda item: len(item[0]))[1]
    batch = make_batch(present=[[True] * 4], side=16)
    volume = predict_volume(network, batch.image_BMXYZ, batch.present_BM, patch=(8, 8, 8))
    assert all(p.shape == (1,) and p.isfinite().all() for p in volume.marker_probabilities().values())
    assert len(volume.marker_probabilities()) == 4
