"""What a secure attempt is about: the terms that every site checks and signs before anything else happens."""

import secrets
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.federation import FederationConfig
from gmmas_schema.messages import TaskRequest
from gmmas_schema.secure import SecureTask
from gmmas_schema.strategy import PseudoTerms
from server.secure_company import Company
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
    company: Company,
    attempt: int,
) -> tuple[SecureTask, Terms]:
    """Return what goes with a training request, and the terms in it.

    Args:
        config: of the run, with `secure`.
        request: is asked of every site.
        tensors: the current global model.
        pseudo: what pseudo-labelled cases count.
        company: that the round is for.
        attempt: 1-based.
    """
    secure = config.secure
    assert secure is not None, "the run aggregates securely"
    received = as_averaged(OutgoingModel(tensors, config=request.wire).as_received, config.strategy)
    sizes = group_sizes(received)
    task = SecureTask(terms="", strategy=config.strategy, pseudo=pseudo)
    terms = Terms(
        run=request.run,
        round=request.round,
        attempt=attempt,
        nonce=secrets.token_bytes(DIGEST_BYTES),
        subject=task.subject(request.subject()),
        invited=company.invited,
        threshold=company.threshold,
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
