"""A client app that imports torch, as every PyTorch app does, and sleeps instead of training."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from benchmarks.federation.stand_in import train as stand_in

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with the arrays that came, a little moved."""
    state = message.content.array_records["arrays"].to_torch_state_dict()
    stand_in(str(context.node_id), round_number=int(str(message.content.config_records["config"]["server-round"])))
    moved = ArrayRecord({name: value + torch.tensor(1e-3) for name, value in state.items()})
    return Message(RecordDict({"arrays": moved, "metrics": MetricRecord({"num-examples": 20, "loss": 0.5})}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, _: Context) -> Message:
    """Answer with a made-up accuracy."""
    message.content.array_records["arrays"].to_torch_state_dict()
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 4, "dice": 0.5})}), reply_to=message)
