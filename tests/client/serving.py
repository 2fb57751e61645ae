"""A trainer served in the test's own process, on its real socket."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch

from client.folder import NodeFolder
from client.trainer import serve
from client.trainer_channel import TrainerChannel
from gmmas_model.network import GmmasNetwork
from gmmas_schema.model import ModelDefinition
from gmmas_schema.site import SiteConfig
from gmmas_schema.vocabulary import MODALITIES, Modality
from tests.client.sites import TINY
from tests.gmmas_runtime.waiting import wait_until

TIMEOUT_S = 60.0


def make_tensors(modalities: Sequence[Modality] = MODALITIES, *, model: ModelDefinition = TINY) -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    return {name: value.numpy() for name, value in GmmasNetwork(model.network, modalities=modalities).state_dict().items()}


@contextmanager
def serving(config: SiteConfig) -> Iterator[TrainerChannel]:
    """Serve a site in this process, on its real socket, until the test is done with it."""
    folder = NodeFolder(config.node.state)
    folder.make()
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve, config, stop=stop)
        with TrainerChannel(folder.socket) as channel:
            try:
                wait_until(lambda: served.done() or (folder.socket.exists() and channel.is_ready()), what="the trainer")
                yield channel
            finally:
                stop.set()
                served.result(20)
