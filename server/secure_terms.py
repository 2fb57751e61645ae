"""What a secure attempt is about: the terms that every site checks and signs before anything else happens."""

import secrets
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.errors import FederationError, ReasonCode
from gmmas_schema.federation import FederationConfig
from gmmas_schema.messages import TaskRequest
from gmmas_schema.secure import LARGEST_FEDERATION, SecureConfig, SecureTask, choose_threshold
from gmmas_schema.strategy import PseudoTerms
from strategies.secure.documents import DIGEST_BYTES, Terms
from strategies.secure.vectors import group_hashes, group_sizes
from strategies.weighting import as_averaged
from strategies.wire import OutgoingModel

Float32 = NDArray[np.float32]


def make_task(
    config: FederationConfig,
    request: TaskRequest,
    tensors: Mapping[str, Float32],
    *,
    pseudo: PseudoTerms,
    sites: int,
    attempt: int,
) -> tuple[SecureTask, Terms]:
    """Return what goes with a training request, and the terms in it.

    Args:
        config: of the run, with `secure`.
        request: is asked of every site.
        tensors: the current global model.
        pseudo: what pseudo-labelled cases count.
        sites: that are asked.
        attempt: 1-based.

    Raises:
        FederationError: too few or too many sites for a secure sum.
    """
    secure = config.secure
    assert secure is not None, "the run aggregates securely"
    if not secure.minimum_holders <= sites <= LARGEST_FEDERATION:
        raise FederationError(
            "secure aggregation is not for so many sites",
            where=f"round {request.round}",
            got=sites,
            expected=f"{secure.minimum_holders} to {LARGEST_FEDERATION}",
            remedy="raise quorum.replies to secure.minimum_holders or more, or leave sites out",
            code=ReasonCode.QUORUM,
        )
    received = as_averaged(OutgoingModel(tensors, config=request.wire).as_received, config.strategy)
    sizes = group_sizes(received)
    task = SecureTask(terms="", strategy=config.strategy, pseudo=pseudo)
    terms = Terms(
        run=request.run,
        round=request.round,
        attempt=attempt,
        nonce=secrets.token_bytes(DIGEST_BYTES),
        subject=task.subject(request.subject()),
        sites=sites,
        threshold=_threshold(sites, secure),
        minimum_holders=secure.minimum_holders,
        bits=secure.bits,
        ring_bits=secure.ring_bits,
        clip={group: secure.clip_of(group) for group in sizes},
        weight_limit=secure.weight_limit,
        sizes=sizes,
        model=group_hashes(received),
        privacy=config.privacy,
    )
    return task.model_copy(update={"terms": terms.model_dump_json()}), terms


def _threshold(sites: int, config: SecureConfig) -> int:
    try:
        return choose_threshold(sites, threshold=config.threshold)
    except ValueError as error:
        raise FederationError(
            "the threshold of secure aggregation does not fit the sites of the round",
            got=str(error),
            expected="more than half of the sites, and at most all",
            remedy="set secure.threshold to null, for two thirds of whoever takes part",
            code=ReasonCode.QUORUM,
        ) from error
