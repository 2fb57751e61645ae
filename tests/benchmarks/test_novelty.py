import json
import math
from types import SimpleNamespace

import pytest

from benchmarks import novelty


def test_the_result_names_the_software_and_the_highest_score(tmp_path, monkeypatch) -> None:
    scores = iter([0.2, None, 0.3, 0.5])
    monkeypatch.setattr(novelty, "load_weights", lambda _: SimpleNamespace(metadata={"run": "r"}, temperatures={}))
    monkeypatch.setattr(novelty, "read_cohort", lambda _: range(4))
    monkeypatch.setattr(novelty, "judge", lambda *_: {"score": (score := next(scores)), "unlike": (score or 0) > 0.45})
    novelty.main(["--model", "m", "--gliomas", "unseen", "--out", str(tmp_path / "result.json")])
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["software"]
    (cohort,) = result["gliomas"]
    assert (cohort["cases"], cohort["nothing_outlined"], cohort["unlike"]) == (4, 1, 1)
    assert (cohort["score_median"], cohort["score_highest"]) == pytest.approx((0.3, 0.5))


def test_a_cohort_without_any_outline_has_no_scores() -> None:
    assert math.isnan(float(novelty.summarise("x", [{"score": None, "unlike": False}])["score_highest"]))
