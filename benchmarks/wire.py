"""Bytes of a round for each setting of the wire, counted where the coordinator counts them: tensors with headers, index, documents.

    python benchmarks/wire.py

One hospital with all sequences and all labels receives the seeded start of a network and answers with a change drawn at random; bytes do
not depend on its values. Nothing is trained; a few seconds on one core. After the rounds a model is evaluated several times; that it
travels once is counted too.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from gmmas_schema.federation import FederationConfig
from gmmas_schema.messages import Action, SiteReport, TaskRequest
from gmmas_schema.model import ModelDefinition, NetworkConfig
from gmmas_schema.vocabulary import MODALITIES, Split
from gmmas_schema.wire import WireConfig
from gmmas_workflows.site_state import SiteState
from server.initial_model import make_initial_model
from strategies.codec import size_bytes, write_request
from strategies.wire import FEEDBACK, OutgoingModel, SiteWire

SETTINGS = {
    "fp32": WireConfig(down="fp32", up="fp32"),
    "fp16 down": WireConfig(down="fp16", up="fp32"),
    "fp16 both": WireConfig(down="fp16", up="fp16"),
    "int8 up": WireConfig(down="fp16", up="int8"),
    "int8 up, top 30 %": WireConfig(down="fp16", up="int8", top_k=0.3),
    "int8 up, top 10 %": WireConfig(down="fp16", up="int8", top_k=0.1),
}


def measure(network: NetworkConfig, wire: WireConfig) -> dict[str, float]:
    """Return bytes of one training round down and up, of an evaluation after it, and the seconds both ends compute."""
    definition = ModelDefinition(network=network)
    tensors = make_initial_model(FederationConfig(model=definition))
    rng = np.random.default_rng(0)
    common: dict[str, Any] = {"run": "r", "round": 1, "rounds": 20, "seed": 0, "model": definition, "wire": wire}
    request = TaskRequest(action=Action.TRAIN, plan=FederationConfig().training, evaluate=Split.VALIDATION, **common)
    change = {name: rng.normal(scale=1e-3, size=value.shape).astype(np.float32) for name, value in tensors.items()}
    site = SiteWire(SiteState(kind=FEEDBACK))
    start = time.process_time()
    model = OutgoingModel(tensors, config=wire)
    down = write_request(request, model.pack(MODALITIES))
    packed = time.process_time()
    _, received = site.open(down)
    report = SiteReport(site="site", run="r", round=1, model_digest=definition.digest(), modalities=MODALITIES)
    up = site.answer(request, report, received=received, trained={name: value + change[name] for name, value in received.items()})
    answered = time.process_time()
    model.read(up)
    read = time.process_time()
    evaluation = TaskRequest(action=Action.EVALUATE, evaluate=Split.TEST, **common)
    by_hash = write_request(evaluation, digest=model.digest(MODALITIES))
    return {
        "parameters": sum(value.size for value in tensors.values()),
        "bytes_down": size_bytes(down),
        "bytes_up": size_bytes(up),
        "bytes_of_an_evaluation_of_a_model_that_is_held": size_bytes(by_hash if wire.reuse else down),
        "coordinator_cpu_s": round(packed - start + read - answered, 3),
        "site_cpu_s": round(answered - packed, 3),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure every setting, print a table and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--networks", nargs="+", default=["small", "paper"])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "wire.json")
    options = parser.parse_args(arguments)
    result: dict[str, dict[str, dict[str, float]]] = {}
    for size in options.networks:
        network = NetworkConfig.model_validate({"size": size})
        result[size] = {name: measure(network, wire) for name, wire in SETTINGS.items()}
        plain = result[size]["fp32"]
        print(f"{size}, {plain['parameters']:,} parameters")
        for name, row in result[size].items():
            row |= {f"{way}_share": round(row[f"bytes_{way}"] / plain[f"bytes_{way}"], 4) for way in ("down", "up")}
            shares = ", ".join(f"{way} {row[f'bytes_{way}']:>12,.0f} bytes ({row[f'{way}_share']:6.1%})" for way in ("down", "up"))
            print(f"  {name:<18} {shares}")
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
