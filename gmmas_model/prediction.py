"""What the network says about a batch, as logits of conditional probabilities, and the probabilities that follow from them.

Regions are nested by construction, p_WT = s(l0), p_TC = p_WT s(l1), p_ET = p_TC s(l2), and molecular classes obey WHO CNS5 (Louis et al.,
Neuro-Oncology 2021) by construction: with a = P(IDH mutant), b = P(1p/19q codeleted given mutant) and g = P(high-grade given mutant),

    glioblastoma = 1 - a,  astrocytoma = a (1 - b),  oligodendroglioma = a b,  P(codeleted) = a b,  P(high-grade) = 1 - a (1 - g),

for a glioblastoma is of grade 4 whatever it looks like. MGMT stands by itself.

Shape suffixes: B batch, R region (WT, TC, ET), S subtype (order of SUBTYPES), XYZ voxels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from gmmas_schema.vocabulary import Task


@dataclass(frozen=True)
class Prediction:
    """Outputs of GmmasNetwork; probabilities are fp32 whatever the precision of the logits.

    Attributes:
        region_logits_BRXYZ: conditional logits [WT, TC given WT, ET given TC].
        idh_logit_B: logit of P(IDH mutant).
        codeletion_logit_B: logit of P(1p/19q codeleted given IDH mutant).
        grade_logit_B: logit of P(high-grade given IDH mutant); None without that head.
        mgmt_logit_B: logit of P(MGMT promoter methylated); None without that head.
    """

    region_logits_BRXYZ: Tensor
    idh_logit_B: Tensor
    codeletion_logit_B: Tensor
    grade_logit_B: Tensor | None = None
    mgmt_logit_B: Tensor | None = None

    def region_probability(self) -> Tensor:
        """Return probability_BRXYZ, never rising from WT to TC to ET."""
        return self.region_logits_BRXYZ.float().sigmoid().cumprod(1)

    def idh_probability(self) -> Tensor:
        """Return P(IDH mutant) as probability_B."""
        return self.idh_logit_B.float().sigmoid()

    def codeletion_probability(self) -> Tensor:
        """Return P(1p/19q codeleted) as probability_B; never above P(IDH mutant)."""
        return self.idh_probability() * self.codeletion_logit_B.float().sigmoid()

    def grade_probability(self) -> Tensor | None:
        """Return P(high-grade) as probability_B, never below P(glioblastoma); None without that head."""
        return None if self.grade_logit_B is None else 1 - self.idh_probability() * (-self.grade_logit_B.float()).sigmoid()

    def mgmt_probability(self) -> Tensor | None:
        """Return P(MGMT promoter methylated) as probability_B; None without that head."""
        return None if self.mgmt_logit_B is None else self.mgmt_logit_B.float().sigmoid()

    def marker_probabilities(self) -> dict[Task, Tensor]:
        """Return probability_B of every marker there is a head for, in the order of MARKERS."""
        found = {
            Task.IDH: self.idh_probability(),
            Task.CODELETION: self.codeletion_probability(),
            Task.GRADE: self.grade_probability(),
            Task.MGMT: self.mgmt_probability(),
        }
        return {task: probability_B for task, probability_B in found.items() if probability_B is not None}

    def subtype_probability(self) -> Tensor:
        """Return probability_BS in the order of SUBTYPES; each row sums to 1."""
        idh_B, codeletion_B = self.idh_probability(), self.codeletion_probability()
        return torch.stack([1 - idh_B, idh_B - codeletion_B, codeletion_B], dim=1)


def chain_log_probability(logits: Tensor, *, dim: int) -> tuple[Tensor, Tensor]:
    """Return log p and log(1 - p) of a chain of conditional probabilities, p_k = s(l_0) ... s(l_k), along `dim`.

    log(1 - p_k) = logaddexp(log(1 - p_{k-1}), log p_{k-1} + log(1 - s(l_k))) needs no difference of nearly equal numbers, so value and
    gradient stay finite for any finite logit.
    """
    log_yes, log_no = F.logsigmoid(logits).unbind(dim), F.logsigmoid(-logits).unbind(dim)
    log_p, log_not_p = [log_yes[0]], [log_no[0]]
    for yes, no in zip(log_yes[1:], log_no[1:], strict=True):
        log_not_p.append(torch.logaddexp(log_not_p[-1], log_p[-1] + no))
        log_p.append(log_p[-1] + yes)
    return torch.stack(log_p, dim), torch.stack(log_not_p, dim)
