import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.cosine import MEMORY_ROUNDS, mean_cosines, refuse_opposed, site_cosines
from strategies.norms import update_norms
from strategies.spool import Spool

REFERENCE = {name: np.full(40, 2, np.float32) for name in ("fusion.a", "fusion.b", "decoder.a", "heads.idh.a")}


def updates(sites, names=("fusion.a", "fusion.b", "decoder.a"), noise=1.0):
    rng = np.random.default_rng(3)
    common = {name: rng.standard_normal(40) for name in REFERENCE}
    return {site: {name: common[name] + noise * rng.standard_normal(40) for name in names} for site in sites}


def cosines_of(tmp_path, changes):
    spool = Spool(tmp_path / "spool")
    replies = {site: {name: (REFERENCE[name] + v).astype(np.float32) for name, v in own.items()} for site, own in changes.items()}
    for site, tensors in replies.items():
        spool.write(site, tensors)
    norms = {site: update_norms(tensors, REFERENCE) for site, tensors in replies.items()}
    return site_cosines(spool, reference=REFERENCE, norms=norms)


def test_it_is_the_cosine_with_the_mean_direction_of_the_others(tmp_path):
    changes = updates("abcd", ("decoder.a",))
    units = {site: own["decoder.a"] / np.linalg.norm(own["decoder.a"]) for site, own in changes.items()}
    for site, cosine in cosines_of(tmp_path, changes).items():
        others = sum(unit for other, unit in units.items() if other != site)
        assert cosine == pytest.approx(units[site] @ others / np.linalg.norm(others), abs=1e-5)


def test_who_turns_back_is_found_however_long_or_short_the_update(tmp_path):
    changes = updates("abcde")
    changes["e"] = {name: -30 * value for name, value in changes["e"].items()}
    found = refuse_opposed(cosines_of(tmp_path, changes), limit=-0.1)
    assert set(found) == {"e"}
    assert "direction" in found["e"].what


def test_groups_count_by_how_much_of_the_update_lies_in_them(tmp_path):
    changes = updates("abcd", noise=0.1)
    changes["d"]["decoder.a"] = -0.01 * changes["d"]["decoder.a"]
    cosines = cosines_of(tmp_path, changes)
    assert cosines["d"] > 0.9


def test_a_site_with_too_little_company_or_without_an_update_is_not_judged(tmp_path):
    changes = updates("abc") | updates("d", ("heads.idh.a",)) | {"e": {"fusion.a": np.zeros(40), "fusion.b": np.zeros(40)}}
    assert cosines_of(tmp_path, changes) == {}
    assert set(cosines_of(tmp_path, changes | updates(["f"]))) == {"a", "b", "c", "f"}


COSINES = st.dictionaries(st.sampled_from("abcdef"), st.floats(-1, 1, allow_subnormal=False), min_size=1)


@given(COSINES, st.lists(COSINES, max_size=2 * MEMORY_ROUNDS))
def test_a_site_is_judged_by_the_mean_of_its_last_rounds(cosines, earlier):
    means = mean_cosines(cosines, earlier=earlier)
    assert set(means) == set(cosines), "who is not judged in this round is not refused in it"
    for site, mean in means.items():
        own = [each[site] for each in [*earlier, cosines][-MEMORY_ROUNDS:] if site in each]
        assert mean == pytest.approx(sum(own) / len(own), abs=1e-12)


@given(COSINES, st.floats(-1, 1))
def test_only_a_minority_is_refused(means, limit):
    below = {site for site, mean in means.items() if mean < limit}
    assert set(refuse_opposed(means, limit=limit)) == (below if 2 * len(below) < len(means) else set())


def test_noise_of_single_rounds_refuses_nobody_and_a_turned_site_is_refused_in_every_round():
    """Cosines of 16 rounds of `python -m benchmarks.attacks`: of an honest hospital, and of one whose updates are turned round."""
    honest = [0.36, 0.04, 0.22, 0.05, -0.01, 0.17, 0.03, 0.04, 0.04, 0.05, 0.20, 0.01, 0.03, -0.04, -0.07, 0.03]
    turned = [-0.37, -0.07, -0.17, -0.14, 0.01, -0.2, -0.2, -0.08, 0.02, -0.06, -0.09, -0.16, -0.18, -0.03, -0.04, -0.1]
    earlier = []
    for mine, bad in zip(honest, turned, strict=True):
        cosines = {**dict.fromkeys("abcd", mine), "e": bad}
        assert set(refuse_opposed(mean_cosines(cosines, earlier=earlier), limit=-0.02)) == {"e"}
        earlier.append(cosines)
