"""q-fair averaging: sites on which the model does badly count more.

    minimise sum_k p_k / (q + 1) F_k^(q + 1)     whose gradient is     sum_k p_k F_k^q grad F_k

    w_k,g <- w_k,g (F_k,t / c_t)^q       t: the task behind group g at site k;  F: its mean loss there;  c_t: its loss by chance

Li, Sanjabi, Beirami and Smith, "Fair Resource Allocation in Federated Learning", ICLR 2020 (q-FFL). q = 0 leaves every weight as it is,
to the last bit; large q would be the worst site's training alone. It composes with the holders' weights, group by group.

What differs from their q-FedAvg: there the step is sum_k D_k / sum_k h_k with h_k = q F_k^(q-1) ||d_k||^2 + L F_k^q, an estimate of the
local Lipschitz constant for which a global step size is scaled; here weights are normalised over the holders of a group as always, which
is that step without the term in ||d_k||^2, and the server step decides on its length. F_k is the mean loss of the round's training, which
is there for every site and task, rather than that of the received model on all of its cases. Task losses differ in scale, so each is
taken relative to chance where groups of several tasks meet. A site says itself what its loss is: the ratio, and its power as well, are cut
to [1/20, 20]. So whatever q is, a site that claims too much weighs at most 20 times what it would by chance, and 400 times a like one whose
loss is the least that counts. Of a few holders that is most of the mean: q is for sites that are trusted with their losses.
"""

import math

from gmmas_schema.federation import CHANCE_LOG_LOSS
from gmmas_schema.messages import SiteReport
from gmmas_schema.vocabulary import Task

LARGEST_RATIO = 20.0


def fairness_factor(report: SiteReport, task: Task, *, q: float) -> float:
    """Return what the weights that rest on a task are multiplied by at this site, in [1/20, 20]; 1 where it reports no loss of the task."""
    loss = report.losses.get(task)
    if loss is None:
        return 1.0
    return _cut(_cut(loss / math.exp(CHANCE_LOG_LOSS[task])) ** q)


def _cut(factor: float) -> float:
    return float(min(max(factor, 1 / LARGEST_RATIO), LARGEST_RATIO))
