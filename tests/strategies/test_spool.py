import numpy as np
import pytest

from gmmas_schema.errors import FederationError
from strategies import spool as module
from strategies.spool import Spool


def reply(seed, names=("fusion.a", "fusion.b", "uncertainty.idh")):
    rng = np.random.default_rng(seed)
    shapes = {"fusion.a": (3, 4), "fusion.b": (5,), "uncertainty.idh": ()}
    return {name: rng.standard_normal(shapes[name]).astype(np.float32) for name in names}


def test_what_was_written_is_read_back(tmp_path):
    spool = Spool(tmp_path / "spool")
    replies = {"b": reply(1), "a": reply(2, ("fusion.b",))}
    for site, tensors in replies.items():
        spool.write(site, tensors)
    assert spool.sites == ("a", "b")
    assert spool.holders("fusion.a") == ("b",)
    assert spool.holders("fusion.b") == ("a", "b")
    for site, tensors in replies.items():
        for name, value in tensors.items():
            assert spool.read(site, name).tobytes() == value.tobytes()


@pytest.mark.parametrize("at_once", [2, 7, 24, 10**6])
def test_blocks_cover_a_tensor_once_in_the_order_asked_for(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(module, "VALUES_AT_ONCE", at_once)
    spool = Spool(tmp_path / "spool")
    replies = {site: reply(seed) for seed, site in enumerate("abc")}
    for site, tensors in replies.items():
        spool.write(site, tensors)
    whole = np.full((3, 12), np.nan, np.float32)
    for part, block_SN in spool.blocks("fusion.a", ["c", "a", "b"]):
        assert block_SN.size <= max(at_once, 3)
        assert np.isnan(whole[:, part]).all()
        whole[:, part] = block_SN
    np.testing.assert_array_equal(whole, np.stack([replies[site]["fusion.a"].reshape(-1) for site in "cab"]))


def test_it_is_private_begins_empty_and_leaves_nothing(tmp_path):
    folder = tmp_path / "spool"
    Spool(folder).write("a", reply(1))
    spool = Spool(folder)
    assert spool.sites == ()
    assert list(folder.iterdir()) == []
    assert folder.stat().st_mode & 0o077 == 0
    spool.write("a", reply(1))
    spool.remove()
    assert not folder.exists()


def test_a_disk_that_takes_nothing_is_the_runs_fault_not_the_sites(tmp_path):
    spool = Spool(tmp_path / "spool")
    (tmp_path / "spool" / "0.f32").mkdir()
    with pytest.raises(FederationError, match="norm_limit"):
        spool.write("a", reply(1))
