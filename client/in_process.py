"""A hospital node without processes: answers Flower messages through a LocalTrainer of this process.

For simulations over server.local_grid.LocalGrid. Requests, tensors and reports go through the real codec, so the coordinator's checks,
its aggregation and its byte counts are those of a deployed federation; only sockets and supervision are missing.
"""

import logging
from pathlib import Path

from flwr.app import Context, Message, RecordDict

from client.app import refuse
from client.reports import report_evaluation
from client.secure import SecureSite
from gmmas_schema.errors import GmmasError, ReasonCode
from gmmas_schema.messages import Action
from gmmas_schema.secure import SECURE_MESSAGE
from gmmas_workflows.site_state import SiteState
from gmmas_workflows.training import LocalTrainer
from strategies.codec import write_report
from strategies.wire import FEEDBACK, ModelShelf, SiteWire

logger = logging.getLogger(__name__)


class InProcessSite:
    """A site behind a function: give it to LocalGrid as a client.

    Args:
        trainer: holds the site's cases.
        folder: where the site keeps what it carries from round to round; None keeps it in memory, for as long as this object lives.
        shelf: the models the site holds; sites of one process may share one, which then needs room for SHELF models per set of sequences.
        secure: the site's part in secure rounds, which must live from phase to phase; without it the site takes none.
    """

    def __init__(
        self,
        trainer: LocalTrainer,
        *,
        folder: Path | None = None,
        shelf: ModelShelf | None = None,
        secure: SecureSite | None = None,
    ) -> None:
        self.trainer = trainer
        self._wire = SiteWire(SiteState(folder, kind=FEEDBACK), shelf=shelf)
        self._secure = secure or SecureSite(None)

    def __call__(self, message: Message, _: Context) -> Message:
        """Return the reply to a message: the trainer's answer, or an error that holds a reason code and nothing else."""
        try:
            phase = message.metadata.message_type == SECURE_MESSAGE
            return Message(self._secure.answer(message.content) if phase else self._answer(message.content), reply_to=message)
        except GmmasError as error:
            logger.warning("%s answered with %s: %s", self.trainer.site, error.code, error)
            return refuse(message, error.code)
        except Exception:
            logger.exception("%s answered with %s", self.trainer.site, ReasonCode.TRAINER)
            return refuse(message, ReasonCode.TRAINER)

    def _answer(self, content: RecordDict) -> RecordDict:
        request, tensors = self._wire.open(content)
        if request.action is Action.DESCRIBE:
            return write_report(self.trainer.describe())
        if request.action is Action.EVALUATE:
            return write_report(report_evaluation(self.trainer, tensors, request))
        self._secure.check(request, tensors)
        outcome = self.trainer.train(tensors, request)
        if request.secure is not None:
            return write_report(self._secure.begin(request, outcome.report, received=tensors, trained=outcome.tensors))
        return self._wire.answer(request, outcome.report, received=tensors, trained=outcome.tensors)
