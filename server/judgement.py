"""What a run holds replies against beyond their form: makes each aggregate, applies its verdict, remembers what later rounds need.

Everything it remembers follows from the records of finished rounds, so a resumed run judges as an unbroken one. The one exception is what
noise has cost, which outlives its round (server.privacy_ledger).
"""

import shutil
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.errors import FederationError, ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.groups import groups_sent
from gmmas_schema.messages import Notice, SiteDescription, Target
from gmmas_schema.privacy import PrivacySpent
from gmmas_workflows.optimisation import learning_rate
from server.checkpoint import RunFolder
from server.events import EventLog
from server.privacy_ledger import LEDGER_FILE, PrivacyLedger
from server.records import Outcome, RoundRecord, SiteRecord
from strategies.aggregation import Aggregate, RunningMean, Verdict
from strategies.cosine import MEMORY_ROUNDS
from strategies.norms import HISTORY_ROUNDS, NormLimit, Norms, group_reach
from strategies.privacy import PrivateSum
from strategies.robust import RobustAggregate
from strategies.spool import Spool

Float32 = NDArray[np.float32]

SPOOL: Final = "spool"


class Judge:
    """Judges the replies of one run.

    Args:
        folder: the run's folder; the spool of a round lies in it while the round lasts.
        events: is told of replies that are refused once all are there.

    Attributes:
        rounds: how many there will be.
        notices: why a site's last reply was refused, by site, until one counts.
        counted: the last finished round of which a site's reply counted, by site.
    """

    def __init__(self, folder: RunFolder, *, events: EventLog) -> None:
        self._config, self._path, self._events = folder.config, folder.path, events
        self._history: deque[Mapping[str, Norms]] = deque(maxlen=HISTORY_ROUNDS)
        self._directions: deque[Mapping[str, float]] = deque(maxlen=MEMORY_ROUNDS)
        self._ledger: PrivacyLedger | None = None
        self.rounds = self._config.rounds
        self.notices: dict[str, Notice] = {}
        self.counted: dict[str, int] = {}

    def plan(self, *, finished: int) -> None:
        """Set `rounds` to what the privacy budget allows; without privacy it stays what is configured. Clear away what a kill left.

        Raises:
            ConfigError: the budget allows no round.
        """
        # Single replies tell more of a hospital than anything else in the folder.
        shutil.rmtree(self._path / SPOOL, ignore_errors=True)
        if self._config.privacy is None:
            return
        self._ledger = PrivacyLedger(self._path / LEDGER_FILE, self._config.privacy, once=self._config.secure is not None)
        self._ledger.reconcile(finished)
        self.rounds = self._ledger.plan(self._config.rounds)

    def affords(self, number: int) -> bool:
        """Return whether the budget allows another round; says so where it does not.

        Raises:
            FederationError: it is spent before the first round was finished.
        """
        if self._ledger is None or self._ledger.affords(number):
            return True
        if number == 1:
            raise FederationError(
                "the privacy budget is spent and no round is finished",
                where=self._path / LEDGER_FILE,
                got=f"{self._ledger.spent().releases} releases, none of which became a checkpoint",
                expected="a finished round",
                remedy="start a new run with a larger privacy.epsilon or privacy.noise_multiplier",
            )
        message = f"another round would exceed the privacy budget; the run ends with the model of round {number - 1}"
        self._events.emit(EventKind.BUDGET_SPENT, round=number - 1, message=message, detail=self._ledger.spent().model_dump(mode="json"))
        return False

    def begin(
        self,
        tensors: Mapping[str, Float32],
        *,
        number: int,
        descriptions: Collection[SiteDescription],
        ready: Mapping[Target, float],
    ) -> Aggregate:
        """Return what takes the replies of a round.

        Args:
            tensors: the current model, as the strategy averages it.
            number: of the round.
            descriptions: of the sites that are asked.
            ready: targets of pseudo-labels.
        """
        config = self._config
        reach = group_reach(tensors, way=self._way(number))
        if config.privacy is not None:
            backbone = config.training.backbone
            sent = [groups_sent(each.modalities, each.labelled, pseudo=ready, backbone=backbone) for each in descriptions]
            return PrivateSum(
                tensors,
                config=config.privacy,
                released=frozenset().union(*sent),
                sites=config.quorum.sites,
                limit=NormLimit(config.robustness.norm_limit, reach=reach),
            )
        if not config.robustness.needs_whole_round:
            return RunningMean(tensors)
        limit = NormLimit(config.robustness.norm_limit, reach=reach, history=tuple(self._history))
        spool, directions = Spool(self._path / SPOOL), tuple(self._directions)
        return RobustAggregate(tensors, config=config.robustness, spool=spool, limit=limit, directions=directions)

    def decide(self, aggregate: Aggregate, sites: Iterable[SiteRecord], *, number: int) -> tuple[tuple[SiteRecord, ...], Verdict]:
        """Judge the replies of a round together and return their records with the outcome, and the verdict."""
        verdict = aggregate.settle()
        for site, error in verdict.refused.items():
            self._events.emit(EventKind.REPLY_DISMISSED, round=number, site=site, code=error.code, message=error.explain())
        decided = tuple(_apply(verdict, record) for record in sites)
        self._notify(decided, number)
        return decided, verdict

    def book(self, number: int) -> None:
        """Book the release of a round, before its noise is drawn, or before it is opened where the sites have drawn it."""
        if self._ledger is not None:
            self._ledger.book(number)

    def spent(self) -> PrivacySpent | None:
        """Return what the run has spent so far; None without privacy."""
        return None if self._ledger is None else self._ledger.spent()

    def remember(self, record: RoundRecord) -> None:
        """Take a finished round into account, oldest first."""
        self._history.append({site.site: site.norms for site in record.sites if site.norms})
        self._directions.append({site.site: site.cosine for site in record.sites if site.cosine is not None})
        # Not when it is decided: what an attempt has accepted that came to no round is void.
        self.counted |= {site.site: record.round for site in record.sites if site.outcome is Outcome.ACCEPTED}
        self._notify(record.sites, record.round)

    def _notify(self, sites: Iterable[SiteRecord], number: int) -> None:
        """Keep the reason of each site's last refusal until a reply of it counts."""
        for site in sites:
            if site.outcome is Outcome.REFUSED:
                code = site.code or ReasonCode.REPLY_REFUSED
                self.notices[site.site] = Notice(round=number, code=code, reason=site.reason)
            elif site.outcome is Outcome.ACCEPTED:
                self.notices.pop(site.site, None)

    def _way(self, number: int) -> float:
        """Return the sum of the step sizes of a round."""
        plan = self._config.training
        first, steps = (number - 1) * plan.local_steps, self.rounds * plan.local_steps
        return sum(learning_rate(plan, step=first + step, steps=steps) for step in range(plan.local_steps))


def _apply(verdict: Verdict, record: SiteRecord) -> SiteRecord:
    """Return a site's record with what the verdict says of it."""
    down, up = verdict.traffic.get(record.site, (0, 0))
    record = record.model_copy(update={"bytes_down": record.bytes_down + down, "bytes_up": record.bytes_up + up})
    error = verdict.refused.get(record.site)
    cosine = verdict.cosines.get(record.site)
    if error is not None:
        # What a refused site says of itself counts as little as what it sent.
        kept = ("site", "node", "bytes_down", "bytes_up", "round_trip_s", "seconds", "cpu_seconds", "peak_memory_mib")
        fields = {name: getattr(record, name) for name in kept}
        return SiteRecord(outcome=Outcome.REFUSED, code=error.code, reason=error.brief(), cosine=cosine, **fields)
    norms, clipped = dict(verdict.norms.get(record.site, {})), dict(verdict.clipped.get(record.site, {}))
    return record.model_copy(update={"norms": norms, "clipped": clipped, "cosine": cosine})
