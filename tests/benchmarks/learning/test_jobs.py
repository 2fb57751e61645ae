import numpy as np

from benchmarks.learning.jobs import scramble_anchors


def test_scrambled_anchors_keep_their_size_and_lose_their_meaning() -> None:
    rng = np.random.default_rng(1)
    tensors = {"anchors.sums_KPC": rng.normal(size=(4, 2, 16)).astype(np.float32), "anchors.counts_KP": np.ones((4, 2), np.float32)}
    scrambled = scramble_anchors(tensors)
    assert scrambled["anchors.counts_KP"] is tensors["anchors.counts_KP"]
    np.testing.assert_array_equal(np.sort(scrambled["anchors.sums_KPC"], axis=2), np.sort(tensors["anchors.sums_KPC"], axis=2))
    assert not np.allclose(scrambled["anchors.sums_KPC"], tensors["anchors.sums_KPC"])
    np.testing.assert_array_equal(scramble_anchors(tensors)["anchors.sums_KPC"], scrambled["anchors.sums_KPC"])
