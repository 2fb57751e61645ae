"""A hospital node without processes: answers Flower messages through a LocalTrainer of this process.

For simulations over server.local_grid.LocalGrid. Requests, tensors and reports go through the real codec, so the coordinator's checks,
its aggregation and its byte counts are those of a deployed federation; only sockets and supervision are missing.
"""

import logging

from flwr.app import Context, Message, RecordDict

from client.app import refuse
from client.reports import report_evaluation
from gmmas_schema.errors import GmmasError, ReasonCode
from gmmas_schema.messages import Action
from gmmas_workflows.training import LocalTrainer
from strategies.codec import pack_tensors, read_request, write_report

logger = logging.getLogger(__name__)


class InProcessSite:
    """A site behind a function: give it to LocalGrid as a client.

    Args:
        trainer: holds the site's cases.
    """

    def __init__(self, trainer: LocalTrainer) -> None:
        self.trainer = trainer

    def __call__(self, message: Message, _: Context) -> Message:
        """Return the reply to a message: the trainer's answer, or an error that holds a reason code and nothing else."""
        try:
            return Message(self._answer(message.content), reply_to=message)
        except GmmasError as error:
            logger.warning("%s answered with %s: %s", self.trainer.site, error.code, error)
            return refuse(message, error.code)
        except Exception:
            logger.exception("%s answered with %s", self.trainer.site, ReasonCode.TRAINER)
            return refuse(message, ReasonCode.TRAINER)

    def _answer(self, content: RecordDict) -> RecordDict:
        request, tensors = read_request(content)
        if request.action is Action.DESCRIBE:
            return write_report(self.trainer.describe())
        if request.action is Action.EVALUATE:
            return write_report(report_evaluation(self.trainer, tensors, request))
        outcome = self.trainer.train(tensors, request)
        return write_report(outcome.report, pack_tensors(outcome.tensors))
