"""How much pseudo-labelled cases may weigh: all of them together at most a third of any group's average.

    w_k,g = S(n_k,g) + c_g (S(n_k,g + e_k,g) - S(n_k,g))                           strategies.holders
    c_g   = min(1, sum_k S(n_k,g) / (2 sum_k (S(n_k,g + v u_k,g) - S(n_k,g))))

over the sites that are asked and hold the group. S is the strategy's scale, with S(0) = 0; n labelled and u unlabelled cases are behind the
group, of which one with a pseudo-label counts v and all together e <= v u. The limit is on weights and not on cases, for a square root
makes much of a few cases at many sites; and it is the group's, for a sequence may be held by few labelled sites and many others.

All of it follows from what sites described before the round: replies can be folded in one at a time, and a site whose update is summed
unseen can weigh it by itself. Where replies of labelled sites are missing in the end, the others' share is larger. A group that no labelled
site holds has nothing it could be held against, and c_g = 1.
"""

from collections.abc import Collection, Mapping

from gmmas_schema.federation import TrainingPlan
from gmmas_schema.groups import GROUPS, groups_sent
from gmmas_schema.messages import SiteDescription, Target
from gmmas_schema.strategy import HoldersStrategy, PseudoTerms, Strategy
from strategies.holders import cases_behind, effective_cases, scaled


def pseudo_terms(
    ready: Mapping[Target, float], plan: TrainingPlan, strategy: Strategy, descriptions: Collection[SiteDescription]
) -> PseudoTerms:
    """Return what pseudo-labelled cases count in a round, with the limit on their total.

    Args:
        ready: ramp of every target that is ready.
        plan: of the round.
        strategy: of the run; FedAvg counts every case and is not limited.
        descriptions: of the sites that are asked.
    """
    if plan.semi_supervised is None or not isinstance(strategy, HoldersStrategy):
        return PseudoTerms()
    weights = {target: plan.semi_supervised.weight * ramp for target, ramp in ready.items()}
    labelled, extra = dict.fromkeys(GROUPS, 0.0), dict.fromkeys(GROUPS, 0.0)
    for site in descriptions:
        # As many as can be: all unlabelled cases got pseudo-labels, and all agreed.
        most = effective_cases(site.labelled, {target: weight * (site.cases - site.telling(target)) for target, weight in weights.items()})
        for group in groups_sent(site.modalities, site.labelled, pseudo=tuple(weights), backbone=plan.backbone):
            _, own, all_told = cases_behind(group, site, most, plan)
            labelled[group] += scaled(own, strategy)
            extra[group] += scaled(all_told, strategy) - scaled(own, strategy)
    limits = {group: min(1.0, labelled[group] / (2 * extra[group])) for group in GROUPS if labelled[group] > 0 and extra[group] > 0}
    return PseudoTerms(weights=weights, limits=limits)
