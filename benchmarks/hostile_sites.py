"""Hospitals that answer wrongly, by accident or on purpose, for benchmarks/attacks.py.

sign-flip       theta - (theta_k - theta)              sign-flip-5x    theta - 5 (theta_k - theta)
scale-100x      theta + 100 (theta_k - theta)          labels          trained on tumour where there is none, and on the other markers
nan             one value a tensor is not a number     shape           tensors of another shape
stale           the reply of the round before          replay          the first reply, again and again

theta is what the site received, theta_k what it trained honestly. Attacks on the content are those of Blanchard et al., NeurIPS 2017, and
Bagdasaryan et al., AISTATS 2020; a site with wrong labels is what Tolpegin et al., ESORICS 2020, call label flipping.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from flwr.app import Context, Message, RecordDict

from client.in_process import InProcessSite
from gmmas_data.samples import Sample
from gmmas_schema.messages import Action, TaskRequest
from gmmas_schema.model import ModelDefinition
from gmmas_schema.vocabulary import MODALITIES, Split
from gmmas_workflows.training import LocalTrainer, TrainOutcome

FACTORS: Final = {"sign-flip": -1.0, "sign-flip-5x": -5.0, "scale-100x": 100.0}
FORMS: Final = ("nan", "shape", "stale", "replay")
"""Attacks that only checks of form stop; they are tried without checks and with."""
ATTACKS: Final = ("none", *FACTORS, "labels", *FORMS)


class HostileTrainer(LocalTrainer):
    """Trains honestly and hands back something else.

    Args:
        attack: one of FACTORS, `nan` or `shape`.
    """

    def __init__(self, definition: ModelDefinition, samples: Mapping[Split, Sequence[Sample]], *, site: str, attack: str) -> None:
        super().__init__(definition, samples, modalities=MODALITIES, site=site, device="cpu", threads=1)
        self._attack = attack

    def train(self, tensors: Mapping[str, np.ndarray], request: TaskRequest, **options: Any) -> TrainOutcome:
        """Return an honest report and bad tensors."""
        outcome = super().train(tensors, request, **options)
        return replace(outcome, tensors={name: self._spoil(name, value, tensors) for name, value in outcome.tensors.items()})

    def _spoil(self, name: str, value: np.ndarray, received: Mapping[str, np.ndarray]) -> np.ndarray:
        if self._attack in FACTORS:
            moved: np.ndarray = received[name] + np.float32(FACTORS[self._attack]) * (value - received[name])
            return moved
        if self._attack == "nan" and value.ndim > 1:
            spoilt = value.copy()
            spoilt.reshape(-1)[0] = np.nan
            return spoilt
        return value[..., :-1].copy() if self._attack == "shape" and value.ndim > 1 else value


class ReplayingSite(InProcessSite):
    """Trains, and answers with what it sent before: its first answer, or the one before this.

    Args:
        trainer: honest.
        attack: `replay` or `stale`.
    """

    def __init__(self, trainer: LocalTrainer, *, attack: str) -> None:
        super().__init__(trainer)
        self._attack = attack
        self._sent: RecordDict | None = None

    def __call__(self, message: Message, context: Context) -> Message:
        """Return an old answer to a request to train."""
        reply = super().__call__(message, context)
        if message.metadata.message_type != Action.TRAIN or reply.has_error():
            return reply
        old, new = self._sent or reply.content, reply.content
        self._sent = old if self._attack == "replay" else new
        return Message(old, reply_to=message)


def flip_labels(sample: Sample) -> Sample:
    """Return a sample whose tumour is all of the brain that is none, and whose markers are the other ones."""
    regions_RXYZ = sample.regions_RXYZ
    if regions_RXYZ is not None:
        brain_XYZ = (sample.image_MXYZ != 0).any(axis=0)
        rest_XYZ = (brain_XYZ & (regions_RXYZ[0] == 0)).astype(regions_RXYZ.dtype)
        regions_RXYZ = np.broadcast_to(rest_XYZ, regions_RXYZ.shape).copy()
    return replace(sample, regions_RXYZ=regions_RXYZ, idh=1 - sample.idh, codeletion=1 - sample.codeletion)


def make_site(definition: ModelDefinition, samples: Mapping[Split, Sequence[Sample]], *, site: str, attack: str = "none") -> InProcessSite:
    """Return an in-process site that carries out an attack; `none` is an honest one.

    Args:
        definition: the model.
        samples: of the site, per split.
        site: its name.
        attack: one of ATTACKS.
    """
    assert attack in ATTACKS, attack
    if attack == "labels":
        samples = {**samples, Split.TRAIN: [flip_labels(sample) for sample in samples[Split.TRAIN]]}
    if attack in FACTORS or attack in {"nan", "shape"}:
        return InProcessSite(HostileTrainer(definition, samples, site=site, attack=attack))
    trainer = LocalTrainer(definition, samples, modalities=MODALITIES, site=site, device="cpu", threads=1)
    return ReplayingSite(trainer, attack=attack) if attack in {"stale", "replay"} else InProcessSite(trainer)
