"""Sites that differ from an ordinary one in what one thing means to them: absent sequences, or anchors.

The usual way to feed a fixed network incomplete patients is to show the missing sequence as an empty image. Here that is done where the
network reads its input, so that patients, their order, augmentation and the dropping of sequences are those of every other arm, and only
what absence means to the network differs.

Shapes: B batch, M modality, K tissue class, P prototype, C channel, X Y Z voxels.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmmas_data.samples import Sample
from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import load_tensors
from gmmas_schema.model import ModelDefinition
from gmmas_schema.vocabulary import MODALITIES, Modality, Split
from gmmas_workflows.training import LocalTrainer
from strategies.anchors import SUMS


class ZeroFilledNetwork(GmmasNetwork):
    """To this network every sequence is there, and those that are not, or are not shown, are zero."""

    def encode(self, image_BMXYZ: Tensor, present_BM: Tensor) -> dict[Modality, list[Tensor]]:
        """Return the features of all sequences, those of empty images too."""
        filled_BMXYZ = torch.where(present_BM[:, :, None, None, None], image_BMXYZ, 0.0)
        return super().encode(filled_BMXYZ, torch.ones_like(present_BM))

    def fuse(self, features: dict[Modality, list[Tensor]], present_BM: Tensor) -> list[Tensor]:
        """Return the fused features of all sequences."""
        return super().fuse(features, torch.ones_like(present_BM))


class ZeroFillingTrainer(LocalTrainer):
    """A site that holds, trains and sends every encoder, whatever its patients have (Arm.zero_fill)."""

    def __init__(
        self, definition: ModelDefinition, samples: Mapping[Split, Sequence[Sample]], *, modalities: Collection[Modality], **options: Any
    ) -> None:
        super().__init__(definition, samples, modalities=tuple(modalities), **options)
        self.modalities = tuple(MODALITIES)

    def _load(self, tensors: Mapping[str, np.ndarray]) -> GmmasNetwork:
        network = ZeroFilledNetwork(self.definition.network, modalities=self.modalities)
        load_tensors(network, tensors)
        return network.to(self.device)


class ScrambledTrainer(LocalTrainer):
    """A site that receives anchors without meaning (Arm.scramble_anchors)."""

    def _load(self, tensors: Mapping[str, np.ndarray]) -> GmmasNetwork:
        return super()._load(scramble_anchors(tensors))


def scramble_anchors(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the tensors with each anchor's sums_KPC as long as it came and in a direction of chance, the same every time.

    Channels in another order would not do: the adapter's first layer learns to put them back.
    """
    sums_KPC = tensors[SUMS]
    direction_KPC = np.random.default_rng(0).standard_normal(sums_KPC.shape)
    direction_KPC /= np.linalg.norm(direction_KPC, axis=-1, keepdims=True)
    length_KP1 = np.linalg.norm(sums_KPC.astype(np.float64), axis=-1, keepdims=True)
    return {**tensors, SUMS: (length_KP1 * direction_KPC).astype(sums_KPC.dtype)}
