import numpy as np
import torch

from benchmarks.learning.controls import ZeroFilledNetwork, ZeroFillingTrainer, scramble_anchors
from gmmas_model.adapter import AnchorAdapter, Anchors
from gmmas_model.batch import Batch
from gmmas_model.network import GmmasNetwork
from gmmas_schema.model import NetworkConfig
from gmmas_schema.vocabulary import MODALITIES, Modality, Split
from gmmas_workflows.batches import draw_batches
from gmmas_workflows.training import LocalTrainer
from server.checkpoint import RunFolder
from tests.benchmarks.learning.samples import make_sample
from tests.client.tiny_sites import TINY, make_config, run
from tests.client.tiny_sites import make_sample as make_case

SMALL = NetworkConfig(channels=(2, 4), blocks=(1, 1), transformer_layers=1, transformer_heads=2)
NO_T1CE = tuple(m for m in MODALITIES if m is not Modality.T1CE)


def anchors(seed: int) -> dict[str, np.ndarray]:
    sums_KPC = np.random.default_rng(seed).normal(size=(4, 2, 16)).astype(np.float32)
    sums_KPC[3, 1] = 0
    return {"anchors.sums_KPC": sums_KPC, "anchors.counts_KP": np.full((4, 2), 9, np.float32)}


def test_scrambled_anchors_are_as_many_and_as_long_and_do_not_depend_on_what_came() -> None:
    first, second = anchors(1), anchors(2)
    scrambled, other = scramble_anchors(first), scramble_anchors(second)
    assert scrambled["anchors.counts_KP"] is first["anchors.counts_KP"]
    lengths = [np.linalg.norm(tensors["anchors.sums_KPC"], axis=2) for tensors in (first, scrambled, second, other)]
    np.testing.assert_allclose(lengths[1], lengths[0], rtol=1e-5)
    directions = [
        tensors["anchors.sums_KPC"][:3] / length[:3, :, None] for tensors, length in ((scrambled, lengths[0]), (other, lengths[2]))
    ]
    np.testing.assert_allclose(directions[0], directions[1], rtol=1e-4, atol=1e-6)
    assert scrambled["anchors.sums_KPC"].dtype == np.float32
    assert np.isfinite(scrambled["anchors.sums_KPC"]).all()


def test_an_adapter_cannot_learn_the_scrambling_away() -> None:
    """Channels in another order would be no control: with the columns of one layer in that order, nothing has changed."""
    torch.manual_seed(1)
    adapter, held = AnchorAdapter(16, heads=2), Anchors(16, prototypes=2)
    torch.nn.init.ones_(adapter.gamma)
    z, present = torch.randn(1, 16, 2, 2, 2), torch.tensor([[True, False, False, False]])
    came = {name.removeprefix("anchors."): torch.from_numpy(value) for name, value in anchors(1).items()}
    held.load_state_dict(came)
    true = adapter(z, present, held)
    order = torch.randperm(16)
    held.load_state_dict(came | {"sums_KPC": came["sums_KPC"][..., order]})
    with torch.no_grad():
        adapter.key_value.weight.copy_(adapter.key_value.weight[:, order])
    torch.testing.assert_close(adapter(z, present, held), true)
    gram = [
        np.einsum("apc,bqc->apbq", sums, sums)
        for sums in (anchors(1)["anchors.sums_KPC"], scramble_anchors(anchors(1))["anchors.sums_KPC"])
    ]
    assert not np.allclose(*gram), "no turning or mirroring of the channels leads back"


def test_zero_filled_sees_empty_images_where_others_see_nothing() -> None:
    samples = [make_sample(1, NO_T1CE), make_sample(2, [Modality.FLAIR])]
    batch = Batch.collate(samples)
    filled, plain = ZeroFilledNetwork(SMALL).eval(), GmmasNetwork(SMALL).eval()
    plain.load_state_dict(filled.state_dict())
    zeros = torch.where(batch.present_BM[:, :, None, None, None], batch.image_BMXYZ, 0.0)
    with torch.no_grad():
        seen = filled(batch.image_BMXYZ + 5 * (~batch.present_BM)[:, :, None, None, None], batch.present_BM)
        expected = plain(zeros, torch.ones_like(batch.present_BM))
        absent = plain(batch.image_BMXYZ, batch.present_BM)
    torch.testing.assert_close(seen.region_logits_BRXYZ, expected.region_logits_BRXYZ)
    assert not torch.allclose(seen.region_logits_BRXYZ, absent.region_logits_BRXYZ)


def test_a_zero_filling_site_trains_every_encoder_on_the_draws_of_any_other_arm(tmp_path, monkeypatch) -> None:
    drawn: dict[type[LocalTrainer], list[Batch]] = {LocalTrainer: [], ZeroFillingTrainer: []}
    plan = make_config(1).training.model_copy(update={"modality_dropout": 0.5, "local_steps": 8})
    config = make_config(1).model_copy(update={"rounds": 1, "training": plan, "calibration": None})
    cases = {Split.TRAIN: [make_case(n, NO_T1CE) for n in range(3)], Split.VALIDATION: [make_case(9, NO_T1CE)]}
    sites = {}
    for kind, batches in drawn.items():

        def draw(*parts, into=batches, **options):
            for batch in draw_batches(*parts, **options):
                into.append(batch)
                yield batch

        monkeypatch.setattr("gmmas_workflows.training.draw_batches", draw)
        trainer = kind(TINY, cases, modalities=MODALITIES, site="s", device="cpu", threads=1)
        folder = RunFolder.create(tmp_path / kind.__name__, config, run="r")
        run([trainer], folder)
        start, end = (folder.load_round(number).tensors for number in (0, 1))
        sites[kind] = {m for m in MODALITIES if any(f"encoders.{m}." in name and (start[name] != end[name]).any() for name in start)}
    assert len(drawn[LocalTrainer]) == 8
    for ours, theirs in zip(*drawn.values(), strict=True):
        assert torch.equal(ours.image_BMXYZ, theirs.image_BMXYZ)
        assert torch.equal(ours.shown_BM, theirs.shown_BM)
    assert sites == {LocalTrainer: set(NO_T1CE), ZeroFillingTrainer: set(MODALITIES)}
