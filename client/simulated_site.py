"""A site that exists only while it answers: its cases are read from a cache on disk for each message and dropped after the answer.

So a thousand simulated sites take the memory of one, and, as a small picklable record, a site may answer in any worker process. What a
site carries from round to round lies in its own folder, as at a hospital. Sites of one process share the models they have received.

Secure rounds are the exception: a site's secrets and its update live in the process from the training to the opened sum, as they do in a
hospital's executor, so all messages of such a run must be answered by one process.
"""

import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.app import Context, Message

from client.app import refuse
from client.cohort import SiteCohort, describe_cohort
from client.in_process import InProcessSite
from client.secure import SecureSite
from gmmas_data.cache import SampleCache
from gmmas_runtime.keys import load_node_key, make_node_key
from gmmas_schema.errors import GmmasError, ReasonCode
from gmmas_schema.messages import Action
from gmmas_schema.model import ModelDefinition
from gmmas_schema.secure import SECURE_MESSAGE
from gmmas_workflows.cohorts import StoredCohort
from gmmas_workflows.training import LocalTrainer
from strategies.codec import write_report
from strategies.wire import SHELF, ModelShelf

logger = logging.getLogger(__name__)

KEY_FILE: Final = "node-key"


@dataclass(frozen=True)
class SimulatedSite:
    """A site behind a function: give it to server.simulation.

    Attributes:
        site: its name.
        cohort: its cases, in the cache.
        definition: the model definition it is set up for.
        cache: folder of the cache.
        folder: where it keeps what it carries from round to round.
        device: `auto` is CUDA where present, else CPU.
        threads: CPU threads of its training.
        shelf: models that a process holds: SHELF for every set of sequences among the sites it answers for.
        secure: it takes part in secure rounds, under a key of its own in `folder`.
    """

    site: str
    cohort: StoredCohort
    definition: ModelDefinition
    cache: Path
    folder: Path
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    shelf: int = SHELF
    secure: bool = False

    def __call__(self, message: Message, context: Context) -> Message:
        """Return the reply to a message: the site's answer, or an error that holds a reason code and nothing else."""
        if message.metadata.message_type == Action.DESCRIBE.value:
            # As a node does: in counts of cases, before any of them is loaded.
            known = SiteCohort(self.cohort.cases, len(self.cohort.left_out))
            return Message(write_report(describe_cohort(known, site=self.site, model=self.definition)), reply_to=message)
        try:
            secure = _secure_site(self.folder) if self.secure else None
            if secure is not None and message.metadata.message_type == SECURE_MESSAGE:
                return Message(secure.answer(message.content), reply_to=message)
            site = InProcessSite(self._load(), folder=self.folder, shelf=_shared_shelf(self.shelf), secure=secure)
        except GmmasError as error:
            logger.warning("%s answered with %s: %s", self.site, error.code, error)
            return refuse(message, error.code)
        except Exception:
            logger.exception("%s answered with %s", self.site, ReasonCode.TRAINER)
            return refuse(message, ReasonCode.TRAINER)
        return site(message, context)

    def public_key(self) -> bytes:
        """Return the key that the site is enrolled with (PEM); it is made when it is first asked for."""
        public = _identity(self.folder).public_key()
        return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def _load(self) -> LocalTrainer:
        return LocalTrainer(
            self.definition,
            self.cohort.load(SampleCache(self.cache, self.definition.grid)),
            modalities=self.cohort.modalities,
            site=self.site,
            device=self.device,
            threads=self.threads,
            folder=self.folder,
        )


@cache
def _shared_shelf(size: int) -> ModelShelf:
    """Return this process's shelf."""
    return ModelShelf(size)


@cache
def _secure_site(folder: Path) -> SecureSite:
    """Return the part of one site in secure rounds; its secrets last as long as this process."""
    return SecureSite(_identity(folder), folder=folder)


def _identity(folder: Path) -> EllipticCurvePrivateKey:
    """Return a simulated site's key, which outlives the process as a hospital's does: its peers have seen it."""
    path = folder / KEY_FILE
    if not path.exists():
        make_node_key(path)
    return load_node_key(path)
