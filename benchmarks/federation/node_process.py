"""Many nodes in one process: `python -m benchmarks.federation.node_process SETTINGS.json`.

Each is a thread with Flower's own connection to the Fleet API (TLS, its own key, signed requests, heartbeats), which pulls a message object
by object, answers and pushes the reply object by object, as a SuperNode does. No executor, no trainer and no app process is behind it.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree, push_objects
from flwr.supernode.fleet_http_connection import http_request_response

from benchmarks.federation.stand_in import train
from gmmas_runtime.keys import load_node_key

IDLE_S: Final = 1.0
ENABLED: Final = "gmmas-nodes"


def answer_flower(message: Message, name: str) -> RecordDict:
    """Return what plain Flower's client app returns."""
    if message.metadata.message_type == "evaluate":
        return RecordDict({"metrics": MetricRecord({"num-examples": 4, "dice": 0.5})})
    train(name, round_number=int(str(message.content.config_records["config"]["server-round"])))
    arrays = message.content.array_records["arrays"].to_numpy_ndarrays()
    moved = ArrayRecord([np.asarray(value + value.dtype.type(1e-3)) for value in arrays])  # a sum of single numbers is no array
    named = ArrayRecord(dict(zip(message.content.array_records["arrays"], moved.values(), strict=True)))
    return RecordDict({"arrays": named, "metrics": MetricRecord({"num-examples": 20, "loss": 0.5})})


class Answering:
    """Answers as client.app and the stand-in trainer do, with a wire of its own."""

    def __init__(self, name: str) -> None:
        from benchmarks.federation.site_trainer import StandInTrainer, describe
        from client.cohort import SiteCohort
        from gmmas_schema.messages import Action
        from gmmas_workflows.site_state import SiteState
        from strategies.codec import write_report
        from strategies.wire import FEEDBACK, SiteWire

        self._wire = SiteWire(SiteState(kind=FEEDBACK))

        def answer(content: RecordDict) -> RecordDict:
            request, received = self._wire.open(content)
            if request.action is Action.DESCRIBE:
                return write_report(describe(SiteCohort({}, 0), site=name, model=request.model))
            trainer = StandInTrainer(request.model, site=name)
            if request.action is Action.EVALUATE:
                return write_report(trainer.report(request))
            outcome = trainer.train(received, request)
            return self._wire.answer(request, outcome.report, received=received, trained=outcome.tensors)

        self.answer = answer


def serve(settings: dict[str, Any], name: str, key: str | None) -> None:
    """Answer until the process ends."""
    private = load_node_key(Path(key)) if key else None
    ours = Answering(name) if settings["kind"] == ENABLED else None
    keys = (private, private.public_key()) if private is not None else None
    with http_request_response(settings["address"], False, Path(settings["certificate"]).read_bytes(), keys) as connection:
        _, receive, send, _, _, pull_object, push_object, confirm = connection
        while True:
            received = receive()
            if received is None:
                time.sleep(IDLE_S)
                continue
            envelope, tree = received
            run_id = envelope.metadata.run_id
            message = pull_and_inflate_object_from_tree(
                tree,
                lambda identifier, run_id=run_id: pull_object(run_id, identifier),  # type: ignore[misc]
                lambda identifier, run_id=run_id: confirm(run_id, identifier),  # type: ignore[misc]
                return_type=Message,
                initial_backoff=0.05,
            )
            message.metadata.__dict__["_message_id"] = tree.object_id
            content = ours.answer(message.content) if ours else answer_flower(message, name)
            reply = Message(content, reply_to=message)
            reply.metadata.__dict__["_message_id"] = reply.object_id
            wanted, session = send(reply, get_object_tree(reply), 1.0)
            objects = get_all_nested_objects(reply)
            del message, content
            push_objects(
                objects,
                lambda identifier, data, run_id=run_id, session=session: push_object(run_id, session, identifier, data),  # type: ignore[misc]
                object_ids_to_push=wanted,
            )


def main(path: Path) -> None:
    """Start the nodes and wait for the end, which comes as a signal."""
    settings = json.loads(path.read_text())

    def run(name: str, key: str | None) -> None:
        try:
            serve(settings, name, key)
        except BaseException as error:
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)  # a node that is lost would be waited for

    for name, key in settings["nodes"].items():
        threading.Thread(target=run, args=(name, key), daemon=True).start()
        time.sleep(0.05)
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
