"""Federated averaging: every group over the sites that send it, by their number of training cases; the baseline.

    theta_g = sum_k n_k theta_k,g / sum_k n_k

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017, Algorithm 1. n_k counts all
training cases of the site, labelled for the task or not, which is what the holders strategy improves on.
"""

from gmmas_schema.groups import groups_sent
from gmmas_schema.messages import SiteReport
from strategies.holders import accepted_targets


def weigh_cases(report: SiteReport) -> dict[str, float]:
    """Return the site's number of training cases for every group it may send; anchors carry their own counts."""
    groups = groups_sent(report.modalities, report.labelled, pseudo=accepted_targets(report))
    return {group: 1.0 if group == "anchors" else float(report.cases) for group in groups} if report.cases > 0 else {}
