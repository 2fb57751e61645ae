"""The plain Flower app, over nodes that are functions: what it writes of the replies that it averaged."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Message

from benchmarks.federation import flower
from benchmarks.federation.node_process import answer_flower
from benchmarks.federation.notes import require_replies
from benchmarks.federation.stand_in import FOLDER_VARIABLE, SECONDS_VARIABLE
from gmmas_schema.errors import FederationError
from server.local_grid import LocalGrid


def run(folder: Path, *, evaluate: float, broken: bool = False) -> None:
    spec = importlib.util.spec_from_file_location("plain_app_server", flower.APP / "plain_app" / "server.py")
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)

    def answer(name: str):
        def node(message: Message, _: object) -> Message:
            if broken and name == "s1":
                raise RuntimeError("a node that fails")
            return Message(answer_flower(message, name), reply_to=message)

        return node

    np.savez(folder / "arrays.npz", a=np.ones(3, np.float32))
    config = {"sites": 2, "rounds": 2, "evaluate": evaluate, "arrays": str(folder / "arrays.npz")}
    app.main(LocalGrid({10: answer("s0"), 11: answer("s1")}), SimpleNamespace(run_config=config))


@pytest.fixture(autouse=True)
def stand_in(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setenv(SECONDS_VARIABLE, "0")


def test_it_tells_how_many_replies_it_averaged(tmp_path) -> None:
    run(tmp_path, evaluate=1.0)
    require_replies(tmp_path / "replies.jsonl", sites=2, rounds=2, kinds=("train", "evaluate"))


def test_without_evaluation_nothing_is_asked_of_it(tmp_path) -> None:
    run(tmp_path, evaluate=0.0)
    require_replies(tmp_path / "replies.jsonl", sites=2, rounds=2, kinds=("train",))


def test_it_goes_on_without_a_node_that_fails_and_that_is_seen(tmp_path) -> None:
    run(tmp_path, evaluate=0.0, broken=True)
    with pytest.raises(FederationError, match="1 replies, 1 failed"):
        require_replies(tmp_path / "replies.jsonl", sites=2, rounds=2, kinds=("train",))
