import json

import torch
import yaml

from benchmarks.trainer_throughput import main

TINY = {
    "model": {
        "network": {"channels": [2, 4], "blocks": [1, 1], "transformer_layers": 1, "transformer_heads": 2},
        "grid": {"spacing_mm": 8.0, "shape": [8, 8, 8]},
    },
    "training": {"local_steps": 3, "batch_size": 2},
}


def test_both_kinds_of_round_make_the_same_steps(tmp_path, monkeypatch) -> None:
    steps = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *args, **options: (steps.append(id(self)), step(self, *args, **options))[1])
    (tmp_path / "federation.yaml").write_text(yaml.safe_dump(TINY))
    main(["--config", str(tmp_path / "federation.yaml"), "--cases", "3", "--pairs", "2", "--out", str(tmp_path / "result.json")])
    result = json.loads((tmp_path / "result.json").read_text())
    rounds = 2 * (1 + 2)  # a first call of each, then two pairs
    assert len(steps) == rounds * 3
    assert result["samples_per_round"] == 6
    assert {name: len(values["wall"]) for name, values in result["seconds"].items()} == {"trainer": 2, "bare": 2}
    assert 0 < result["ratio_wall"]["lowest"] <= result["ratio_wall"]["median"] <= result["ratio_wall"]["highest"]
