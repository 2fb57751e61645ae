"""A site's part of the anchors: class means of its complete, segmented cases, added up over patients (gmmas_model.adapter).

    S_k = max(1, min(P, n_k // MIN_ANCHOR_PATIENTS))          n_k patients of the site who have class k, P prototypes of each class

Each case's class mean goes to the most similar of the first S_k prototypes of its class (the assignment step of k-means, Lloyd 1982), or,
until all of these are known, to them in turn, so that each has enough patients. A patient counts once. A prototype that fewer than
MIN_ANCHOR_PATIENTS of the site's patients stand behind is not sent: its sum would come close to a single patient's features.
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from gmmas_data.patches import random_patch
from gmmas_data.samples import Sample
from gmmas_model.adapter import CLASSES, Anchors, class_means
from gmmas_model.batch import Batch
from gmmas_model.inference import evaluation_mode
from gmmas_model.network import GmmasNetwork
from gmmas_model.precision import autocast
from gmmas_schema.federation import TrainingPlan
from gmmas_schema.groups import MIN_ANCHOR_PATIENTS

logger = logging.getLogger(__name__)


def measure_anchors(
    network: GmmasNetwork,
    samples: Sequence[Sample],
    plan: TrainingPlan,
    *,
    rng: np.random.Generator,
    patch: tuple[int, int, int] | None = None,
    on_case: Callable[[int], None] = lambda _: None,
) -> dict[str, NDArray[np.float32]]:
    """Return sums and counts of the site's anchors, named as in the network; zeros where too few patients stand behind one.

    Where no anchor has become known and this site has too few patients to make one, the log says so.

    Args:
        network: the received model, with anchors.
        samples: training cases; those that lack a sequence or a segmentation are passed over, and of a patient's scans all but the first.
        plan: precision.
        rng: source of the patch that stands for a case where the network is trained on patches.
        patch: voxels of a patch; None for the whole box.
        on_case: called before each case with its place.
    """
    anchors = network.anchors
    means: list[tuple[Tensor, Tensor]] = []
    patients: set[str] = set()
    for place, sample in enumerate(samples):
        if sample.regions_RXYZ is None or sample.weight_RXYZ is not None or not sample.present_M.all() or sample.patient_id in patients:
            continue
        on_case(place)
        means.append(_class_means(network, sample if patch is None else random_patch(sample, patch, rng, tumour_share=1.0), plan))
        patients.add(sample.patient_id)
    sums_KPC, counts_KP = torch.zeros_like(anchors.sums_KPC), torch.zeros_like(anchors.counts_KP)
    for tissue in range(len(CLASSES)):
        own = [mean_KC[tissue] for mean_KC, there_K in means if there_K[tissue]]
        slots = max(1, min(counts_KP.shape[1], len(own) // MIN_ANCHOR_PATIENTS))
        for turn, mean_C in enumerate(own):
            prototype = _assign(anchors, tissue, mean_C, turn=turn, slots=slots)
            sums_KPC[tissue, prototype] += mean_C
            counts_KP[tissue, prototype] += 1
    enough_KP = counts_KP >= MIN_ANCHOR_PATIENTS
    if not bool(enough_KP.any() | anchors.known().any()):
        logger.warning(
            "no anchor is known yet, and none can be made here: a prototype needs %d patients of a site with its tissue, all sequences and"
            " a segmentation, and here are %d such patients of any tissue; until a site has enough, network.prototypes has no effect",
            MIN_ANCHOR_PATIENTS,
            len(means),
        )
    tensors = {"anchors.sums_KPC": sums_KPC * enough_KP[..., None], "anchors.counts_KP": counts_KP * enough_KP}
    return {name: tensor.float().cpu().numpy() for name, tensor in tensors.items()}


def _class_means(network: GmmasNetwork, sample: Sample, plan: TrainingPlan) -> tuple[Tensor, Tensor]:
    """Return mean_KC and there_K of one complete case."""
    device = next(network.parameters()).device
    batch = Batch.collate([sample]).to(device)
    with evaluation_mode(network), torch.no_grad(), autocast(device, plan.precision):
        fused = network.fuse(network.encode(batch.image_BMXYZ, batch.present_BM), batch.present_BM)
    brain_BXYZ = batch.image_BMXYZ.ne(0).any(1)
    mean_BKC, there_BK = class_means(fused[-1], batch.regions_BRXYZ, brain_BXYZ)
    return mean_BKC[0], there_BK[0]


def _assign(anchors: Anchors, tissue: int, mean_C: Tensor, *, turn: int, slots: int) -> int:
    """Return the prototype of a class, of the first `slots`, that a case's mean belongs to."""
    if not bool(anchors.known()[tissue, :slots].all()):
        return turn % slots
    return int(F.cosine_similarity(anchors.prototypes()[tissue, :slots], mean_C[None], dim=1).argmax())
