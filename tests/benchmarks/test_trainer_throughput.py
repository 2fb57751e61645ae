import json

import torch
import yaml

from benchmarks.trainer_throughput import SITE, bare_round, main, make_sample, trainer_round
from gmmas_model.network import GmmasNetwork
from gmmas_schema.federation import FederationConfig

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
    assert result["software"]
    assert 0 < result["ratio_wall"]["lowest"] <= result["ratio_wall"]["median"] <= result["ratio_wall"]["highest"]


def test_both_kinds_of_round_encode_the_same_rows(monkeypatch) -> None:
    """With every sequence present, half of the rows shown are a part of them: whoever encoded all would do more."""
    config = FederationConfig.model_validate(
        {"name": SITE} | TINY | {"training": {"local_steps": 8, "batch_size": 2, "modality_dropout": 0.5, "augmentation": False}}
    )
    samples = [make_sample(number, config.model.grid.shape, config.model.grid.spacing_mm) for number in range(3)]
    encoded = {"trainer": [], "bare": []}
    encode = GmmasNetwork.encode
    for name, run in {"trainer": trainer_round(config, samples, threads=1), "bare": bare_round(config, samples)}.items():
        monkeypatch.setattr(
            GmmasNetwork, "encode", lambda self, x, rows, to=encoded[name]: (to.append((x.clone(), rows)), encode(self, x, rows))[1]
        )
        run()
    assert len(encoded["bare"]) == 8
    for (image, rows), (same_image, same_rows) in zip(encoded["trainer"], encoded["bare"], strict=True):
        assert torch.equal(rows, same_rows)
        assert torch.equal(image, same_image)
    assert not all(rows.all() for _, rows in encoded["bare"]), "nothing was dropped, so nothing was shown"
