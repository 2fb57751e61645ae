"""A hospital's side of a secure round: it keeps its update, and answers the phases until the sum is open or the attempt is over.

Secrets are held in memory only, for one attempt: a process that ends takes them along, and its site has dropped out of the sum, which the
protocol provides for. (With `executor: flower` a process ends after every message; such a site refuses before it trains.) What lies on disk
is no secret (client.secure_records).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import RecordDict
from numpy.typing import NDArray

from client.secure_records import LEDGER_FILE, KnownPeers, SecureRecords
from client.secure_terms import check_model, read_terms
from gmmas_schema.errors import ConfigError, PolicyError, ProtocolError, ReasonCode
from gmmas_schema.messages import SiteReport, TaskRequest
from gmmas_schema.privacy import PrivacyConfig
from gmmas_schema.secure import PhaseReply, PhaseRequest
from strategies.accountant import affordable_releases
from strategies.secure.documents import Terms
from strategies.secure.ledger import LedgerDocument, OpenedSums
from strategies.secure.site import SiteHalf
from strategies.secure.vectors import flatten_update
from strategies.secure_letters import read_phase_request, write_phase
from strategies.weighting import as_averaged, choose_weighting

logger = logging.getLogger(__name__)

Float32 = NDArray[np.float32]
Tensors = Mapping[str, Float32]


@dataclass
class _Attempt:
    """One attempt; `update` is dropped once it has been masked. `promise` names its clip and noise; empty without.

    `run`, `round` and `context` are of the terms that everybody signs. What a phase's message says of them is held against these, and what
    is booked, answered and recorded is these: a message's own words would let the coordinator direct this site's account to another run.
    """

    site: str
    run: str
    round: int
    context: str
    half: SiteHalf
    identities: dict[str, ec.EllipticCurvePublicKey]
    update: dict[str, Float32]
    promise: str


class SecureSite:
    """Answers for one site; lives as long as its process.

    Args:
        identity: the node's enrolled key; None where this process cannot keep a secret, which refuses secure rounds.
        folder: where ledger and peers' keys lie; None keeps them in memory.
        peers: folder of the peers' public keys; None trusts what was seen first.
    """

    def __init__(self, identity: ec.EllipticCurvePrivateKey | None, *, folder: Path | None = None, peers: Path | None = None) -> None:
        self._identity, self._records = identity, SecureRecords(folder)
        self._peers = KnownPeers(self._records, peers)
        self._opened = OpenedSums(self._records.read(LEDGER_FILE, LedgerDocument))
        self._attempt: _Attempt | None = None

    def check(self, request: TaskRequest, received: Tensors) -> None:
        """Refuse a secure round before any training where this site could not, or must not, go through with it.

        Args:
            request: what is asked.
            received: the model as it arrived.

        Raises:
            ConfigError: it has no key, or no process that lives on; or no accountant, for a private round.
            ProtocolError: the terms are unsound, about another round, request or model, or name other sites than an attempt before.
            PolicyError: the budget of a private run is spent, by this site's own account.
        """
        if request.secure is None:
            return
        if self._identity is None:
            raise ConfigError(
                "this site cannot take part in secure aggregation",
                where=f"run {request.run}",
                got="a process without the node's key, or one that ends after every message",
                expected="executor: resident",
                remedy="set node.executor to resident in site.yaml and start the node again",
            )
        terms = read_terms(request)
        check_model(as_averaged(received, request.secure.strategy), terms)
        self._opened.check_company(terms.run, terms.round, company=terms.company())
        if terms.privacy is not None:
            self._check_budget(terms, terms.privacy)

    def begin(self, request: TaskRequest, report: SiteReport, *, received: Tensors, trained: Tensors) -> SiteReport:
        """Phase 0: keep the update and return the report with this attempt's keys.

        Args:
            request: with a SecureTask.
            report: what the site did; its counts decide on its weights.
            received: the model as it arrived.
            trained: new values of the groups the site sends.

        Raises:
            ConfigError: this site cannot take part.
            ProtocolError: the terms are unsound, or about something else than this request and this model.
        """
        self.check(request, received)
        assert request.secure is not None, "the request asks for a secure round"
        assert request.plan is not None, "a training request has a plan"
        assert self._identity is not None, "checked above"
        task, terms = request.secure, read_terms(request)
        weigh = choose_weighting(task.strategy, plan=request.plan, pseudo=task.pseudo)
        update = flatten_update(as_averaged(trained, task.strategy), as_averaged(received, task.strategy))
        weights = {group: weight for group, weight in weigh(report).items() if weight > 0 and group in update}
        identities: dict[str, ec.EllipticCurvePublicKey] = {}
        half = SiteHalf(
            report.site,
            terms=terms,
            sizes={group: value.size for group, value in update.items()},
            subject=task.subject(request.subject()),
            identity=self._identity,
            identities=identities,
            opened=self._opened,
        )
        keys = half.advertise(weights)
        self._note_clipping(update, terms)
        promise = terms.privacy.digest() if terms.privacy is not None else ""
        self._attempt = _Attempt(report.site, terms.run, terms.round, terms.context().hex(), half, identities, update, promise)
        return report.model_copy(update={"secure": keys.decode()})

    def answer(self, content: RecordDict) -> RecordDict:
        """Phases 1 to 4: return the reply to a phase's message.

        Raises:
            ProtocolError: there is no such attempt, or what was asked must not be answered; the attempt is over then.
        """
        question, payload = read_phase_request(content)
        attempt = self._attempt
        asked = question.run, question.round, question.attempt
        if attempt is None or asked != (attempt.run, attempt.round, attempt.context):
            raise ProtocolError(
                "a phase of a secure round that this site does not take part in",
                got=f"run {question.run:.60}, round {question.round}",
                expected="the attempt this process has trained for, after which it forgets its secrets",
                remedy="the coordinator tries the round again",
            )
        try:
            answered = self._answer(attempt, question, payload)
        except BaseException:
            attempt.half.forget()
            self._attempt = None
            raise
        return write_phase(PhaseReply(site=attempt.site, run=attempt.run, round=attempt.round, phase=question.phase), answered)

    def _answer(self, attempt: _Attempt, question: PhaseRequest, payload: bytes) -> bytes:
        if question.phase == 1:
            assert self._identity is not None, "an attempt was begun"
            attempt.identities |= self._peers.trust(question.identities, own=attempt.site, own_key=self._identity.public_key())
            return attempt.half.share_keys(payload)
        if question.phase == 2:
            masked = attempt.half.mask(payload, attempt.update)
            if attempt.promise:
                self._opened.release(attempt.run, attempt.round, promise=attempt.promise)
            # Before the update leaves: the others may open it without asking this site again.
            self._records.write(LEDGER_FILE, self._opened.document())
            attempt.update = {}
            return masked
        if question.phase == 3:
            return attempt.half.agree(payload)
        shares = attempt.half.unmask(payload)
        # Before a share leaves: a site that forgot what it opened could be asked for the same sum less one site.
        self._records.write(LEDGER_FILE, self._opened.document())
        self._attempt = None
        return shares

    def _check_budget(self, terms: Terms, privacy: PrivacyConfig) -> None:
        """Refuse a private round beyond the budget that the run began with: the coordinator's account is not this site's."""
        if self._opened.promise(terms.run) not in (None, privacy.digest()):
            raise PolicyError(
                "the privacy of this run is another than it began with",
                where=f"run {terms.run}, round {terms.round}",
                got=f"clip {privacy.clip_norm:g}, noise {privacy.noise_multiplier:g}, epsilon {privacy.epsilon:g}, or other shares",
                expected="what the rounds before this one had, for the account adds them up",
                remedy="start a new run for other settings",
                code=ReasonCode.POLICY_PRIVACY,
            )
        affordable = affordable_releases(noise_multiplier=privacy.noise_multiplier, delta=privacy.delta, epsilon=privacy.epsilon)
        if (releases := self._opened.releases(terms.run, with_round=terms.round)) > affordable:
            raise PolicyError(
                "the privacy budget of this run is spent",
                where=f"run {terms.run}, round {terms.round}",
                got=f"{releases} rounds with this site's update",
                expected=f"at most {affordable}, for epsilon {privacy.epsilon:g} at noise {privacy.noise_multiplier:g}",
                remedy="the run ends here; a new one needs a budget of its own",
                code=ReasonCode.POLICY_PRIVACY,
            )

    def _note_clipping(self, update: Mapping[str, Float32], terms: Terms) -> None:
        """Say at the site, and only there, how much of the update lies beyond the clip."""
        if terms.privacy is not None:
            return  # the clip is on the length of the whole update
        beyond = {group: float(np.mean(np.abs(value) > terms.clip[group])) for group, value in update.items() if value.size}
        worst = max(beyond, key=lambda group: beyond[group], default="")
        if worst and beyond[worst] > 0:
            logger.info("secure aggregation clips %.2g %% of the update of %s", 100 * beyond[worst], worst)
