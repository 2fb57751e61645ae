"""What a site checks of a secure round before it trains: that its terms are sound, and about this request, this model and this promise.

All sites sign the same terms, so what is checked here holds for every one of them, or the round comes to nothing.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.messages import TaskRequest
from strategies.foreign_documents import shorten
from strategies.secure.documents import Terms
from strategies.secure.keys import untrusted
from strategies.secure.vectors import group_hashes

Tensors = Mapping[str, NDArray[np.float32]]


def read_terms(request: TaskRequest) -> Terms:
    """Return the terms that come with a request.

    Raises:
        ProtocolError: they are unsound, of another round or request, or with another noise than the run's safeguards say.
    """
    assert request.secure is not None, "the request asks for a secure round"
    try:
        terms = Terms.model_validate_json(request.secure.terms)
    except ValidationError as error:
        faults = "; ".join(".".join(map(str, fault["loc"])) + ": " + fault["msg"] for fault in error.errors()[:5])
        raise ProtocolError("the terms of a secure round are unsound", got=shorten(faults, 300), expected="sound terms") from error
    if (terms.run, terms.round, terms.subject) != (request.run, request.round, request.secure.subject(request.subject())):
        raise ProtocolError(
            "the terms of a secure round are of another round, or another request",
            got=f"run {terms.run}, round {terms.round}",
            expected=f"run {request.run}, round {request.round}, and this very request",
        )
    if terms.privacy != request.safeguards.privacy:
        raise ProtocolError(
            "the noise of a secure round is not what the coordinator promises of the run",
            got=terms.privacy,
            expected=request.safeguards.privacy,
            remedy="run the same release of gmmas-fed on both sides",
            code=ReasonCode.TRUST,
        )
    return terms


def check_model(received: Tensors, terms: Terms) -> None:
    """Refuse a model that is not the one that all sites sign for: where others' updates vanish by design, the sum is this site's.

    Args:
        received: the model as it arrived, as the strategy averages it.
        terms: name the content of each group.

    Raises:
        ProtocolError: a group is another (code TRUST).
    """
    found = group_hashes(received)
    foreign = [group for group, content in found.items() if terms.model.get(group) != content]
    if foreign:
        raise untrusted("the model", f"another {', '.join(foreign)}"[:200], "the model that the terms name, the same at every site")
