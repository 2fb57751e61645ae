"""The personalised mode: a site's normalisation layers are its own, the rest of the network is everybody's.

    round r at a site:   received model, norms replaced by those its round before ended with -> train -> norms kept, all of it sent
    (the round before: the last whose answer counted; norms of an update that was refused would make the next one as bad)

Scanners and protocols differ most in what normalisation takes out, so its scales and shifts are what sites need to differ in: Li, Jiang,
Zhang, Kamp and Dou, "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization", ICLR 2021 (there of batch
normalisation; here of instance and layer normalisation, which have no running statistics). Unlike there, sites send their norms too: the
global model holds their mean, for a hospital that was not in the run and has none of its own.

So there are two models: the global one, which the coordinator publishes, calibrates and tests; and each site's own, which trains, makes
pseudo-labels, and is validated beside the global one (`SiteReport.personalised`). The best of a site's own is written to a folder that
`gmmas predict` and `gmmas evaluate` read; it never leaves the site.
"""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Final

import torch

from gmmas_model.network import GmmasNetwork
from gmmas_model.norms import norm_names
from gmmas_model.weights import load_weights, save_weights
from gmmas_runtime.files import make_private_folder
from gmmas_runtime.sealed_files import PLAIN, Seal
from gmmas_schema.errors import ModelError
from gmmas_schema.messages import Evaluation
from gmmas_schema.model import ModelDefinition
from gmmas_workflows.scores import score_model
from gmmas_workflows.site_state import SiteState

logger = logging.getLogger(__name__)

KIND: Final = "norms"
FOLDER: Final = "personalised"
_SITE, _RUN, _ROUND, _SCORE = "site", "run", "round", "score"


class PersonalNorms:
    """One site's own norms over the rounds of a run, and the best model they made.

    Args:
        site: its name.
        definition: of the model.
        folder: where the norms and, in `personalised/`, the best model lie; None keeps the norms in memory and writes no model.
        seal: how the norms lie on the disk; the model, which is the site's to use, lies plain.
    """

    def __init__(self, site: str, definition: ModelDefinition, *, folder: Path | None = None, seal: Seal = PLAIN) -> None:
        self._site, self._definition, self._state = site, definition, SiteState(folder, kind=KIND, seal=seal)
        self.model_folder = None if folder is None else folder / FOLDER

    def put_in(self, network: GmmasNetwork, *, run: str, round: int, counted: int | None = None) -> bool:  # noqa: A002 - the field's word
        """Replace the norms of the received model by the site's own of the last round that `counted`; False where it has none."""
        own, known = self._state.before(run=run, round=round, counted=counted), norm_names(network)
        parameters = dict(network.named_parameters())
        fitting = {name: value for name, value in own.items() if name in known and value.shape == parameters[name].shape}
        with torch.no_grad():
            for name, value in fitting.items():
                parameters[name].copy_(torch.from_numpy(value))
        return bool(fitting)

    def keep(self, network: GmmasNetwork, *, trained: Collection[str], run: str, round: int, counted: int | None = None) -> None:  # noqa: A002
        """Keep what a round made of the norms; those it did not train stay what they were in the last round that `counted`."""
        names = norm_names(network) & frozenset(trained)
        values = {name: p.detach().float().cpu().numpy() for name, p in network.named_parameters() if name in names}
        before = self._state.before(run=run, round=round, counted=counted)
        self._state.write(before | values, run=run, round=round, counted=counted)

    def consider(self, network: GmmasNetwork, evaluation: Evaluation, *, run: str, model_round: int) -> None:
        """Write the site's own model if it is the best of the run by the site's validation cases; without such cases, the newest.

        A disk that cannot be written is logged and costs the file, not the round.
        """
        if self.model_folder is None:
            return
        score = score_model({self._site: evaluation}, model_round=model_round, split=evaluation.split).score
        best = self._best_score(run)
        if best is not None and (score is None or score <= best):
            return
        tensors = {name: value.detach().float().cpu().numpy() for name, value in network.state_dict().items()}
        origin = {_SITE: self._site, _RUN: run, _ROUND: str(model_round)} | ({} if score is None else {_SCORE: repr(score)})
        try:
            make_private_folder(self.model_folder)
            save_weights(self.model_folder, tensors, self._definition, metadata=origin)
        except OSError as error:
            logger.warning("the personalised model of round %d is not kept: %s", model_round, type(error).__name__)

    def _best_score(self, run: str) -> float | None:
        """Return the score of the model that was written in this run, if there is one that has a score."""
        assert self.model_folder is not None
        try:
            origin = load_weights(self.model_folder).metadata
        except ModelError:
            return None
        return float(origin[_SCORE]) if origin.get(_RUN) == run and _SCORE in origin else None
