"""A site that exists only while it answers: its cases are read from a cache on disk for each message and dropped after the answer.

So a thousand simulated sites take the memory of one, and, as a small picklable record, a site may answer in any worker process. What a
site carries from round to round lies in its own folder, as at a hospital. Sites of one process share the models they have received.
"""

import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from flwr.app import Context, Message

from client.app import refuse
from client.cohort import SiteCohort, describe_cohort
from client.in_process import InProcessSite
from gmmas_data.cache import SampleCache
from gmmas_schema.errors import GmmasError, ReasonCode
from gmmas_schema.messages import Action
from gmmas_schema.model import ModelDefinition
from gmmas_workflows.cohorts import StoredCohort
from gmmas_workflows.training import LocalTrainer
from strategies.codec import write_report
from strategies.wire import SHELF, ModelShelf

logger = logging.getLogger(__name__)


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
    """

    site: str
    cohort: StoredCohort
    definition: ModelDefinition
    cache: Path
    folder: Path
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    shelf: int = SHELF

    def __call__(self, message: Message, context: Context) -> Message:
        """Return the reply to a message: the site's answer, or an error that holds a reason code and nothing else."""
        if message.metadata.message_type == Action.DESCRIBE.value:
            # As a node does: in counts of cases, before any of them is loaded.
            known = SiteCohort(self.cohort.cases, len(self.cohort.left_out))
            return Message(write_report(describe_cohort(known, site=self.site, model=self.definition)), reply_to=message)
        try:
            site = InProcessSite(self._load(), folder=self.folder, shelf=_shared_shelf(self.shelf))
        except GmmasError as error:
            logger.warning("%s answered with %s: %s", self.site, error.code, error)
            return refuse(message, error.code)
        except Exception:
            logger.exception("%s answered with %s", self.site, ReasonCode.TRAINER)
            return refuse(message, ReasonCode.TRAINER)
        return site(message, context)

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
