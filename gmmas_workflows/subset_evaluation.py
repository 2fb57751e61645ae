"""Accuracy of a network for every subset of the sequences it reads: what a hospital with just these sequences would get.

A case counts for a subset if it has every sequence of it, whatever else it has; it is shown these alone. So subsets are measured on the
same patients as far as those are complete, and on fewer where not.
"""

from collections.abc import Sequence
from typing import Final

from gmmas_data.samples import Sample
from gmmas_model.network import GmmasNetwork
from gmmas_schema.messages import Evaluation
from gmmas_schema.vocabulary import MODALITIES, Modality, Split, join_modalities
from gmmas_workflows.evaluation import Patch, Progress, score_samples, subsets, summarise

FEWEST_PATIENTS: Final = 2
"""Of one patient nothing is told."""


def evaluate_subsets(
    network: GmmasNetwork,
    samples: Sequence[Sample],
    *,
    split: Split,
    seed: int,
    patch: Patch | None = None,
    fewest: int = FEWEST_PATIENTS,
    on_progress: Progress | None = None,
) -> dict[str, Evaluation]:
    """Return the accuracy by the name of the subset (`t1+flair`), the largest first; subsets that too few have are left out.

    Args:
        network: on the device to compute on.
        samples: cases.
        split: which part of the cohort this is.
        seed: of the bootstrap.
        patch: as in score_samples.
        fewest: patients behind a subset, and behind each of its figures.
        on_progress: called with (done, total) subsets.
    """
    found, order = {}, subsets(network.modalities)
    for done, subset in enumerate(order):
        complete = [sample for sample in samples if set(subset) <= _held(sample)]
        if len({sample.patient_id for sample in complete}) >= fewest:
            scores = score_samples(network, complete, modalities=subset, patch=patch)
            found[join_modalities(subset)] = summarise(scores, split=split, seed=seed, fewest=fewest)
        if on_progress is not None:
            on_progress(done + 1, len(order))
    return found


def _held(sample: Sample) -> set[Modality]:
    return {m for m, present in zip(MODALITIES, sample.present_M, strict=True) if present}
