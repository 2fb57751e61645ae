"""What a model card says of the limits of its model, and of what nobody measured: sentences that follow from the rest of the card."""

from collections.abc import Iterable
from itertools import combinations
from typing import Final

from gmmas_schema.model_card import ModelCard
from gmmas_schema.trained_parts import HEADS, TrainedParts
from gmmas_schema.vocabulary import HEAD_NAMES, MARKER_NAMES, MODALITIES, REGIONS, Modality, Region, Split, Task

NAMES: Final = {Modality.T1: "T1", Modality.T1CE: "T1ce", Modality.T2: "T2", Modality.FLAIR: "FLAIR"}

ALWAYS_UNMEASURED: Final = (
    "age, sex and ethnicity of the patients, and accuracy by them",
    "scanners, field strengths and protocols, and accuracy by them",
    "who drew the segmentations, how, and how far two such people agree",
    "the surface distance HD95",
    "accuracy at a hospital that took no part in training",
    "use by readers, and any effect on patients",
)


def known_limits(card: ModelCard, *, trained: TrainedParts | None = None) -> tuple[str, ...]:
    """Return the limits that the card's own content shows, in sentences.

    Args:
        card: without its limits.
        trained: what anybody ever trained of the weights; None for those of an earlier release, of which the card's counts tell.
    """
    return tuple(_limits(card, trained))


def unmeasured(card: ModelCard) -> tuple[str, ...]:
    """Return what a reader might expect of the card and what nobody measured."""
    found = []
    if card.test is None:
        found.append("accuracy on test patients: only the run's best model is tested")
    else:
        measured = [*card.test.mean]
        found += [f"Dice of {region.upper()} on test patients" for region in REGIONS if f"dice_{region}" not in measured]
        markers = [task for task in card.definition.network.tasks if task in MARKER_NAMES]
        found += [f"AUC of {MARKER_NAMES[task]} on test patients" for task in markers if f"auc_{task}" not in measured]
        shown = {subset.modalities for subset in card.test.subsets}
        if rest := [subset for subset in _subsets() if subset not in shown]:
            found.append(
                f"accuracy from {len(rest)} of the {len(_subsets())} subsets of the sequences: " + "; ".join(map(name_subset, rest))
            )
    if not card.calibration:
        found.append("calibration: the probabilities are the network's own")
    return (*found, *ALWAYS_UNMEASURED)


def name_subset(modalities: Iterable[Modality]) -> str:
    """Return sequences as `T1 + T2`."""
    return " + ".join(NAMES[m] for m in modalities)


def _limits(card: ModelCard, trained: TrainedParts | None) -> Iterable[str]:
    yield (
        f"What it was trained on decides what it knows: {card.data.sites} hospital{'s' if card.data.sites != 1 else ''}, whose patients and"
        " scanners the coordinator has not seen. A model trained on phantoms knows phantoms."
    )
    yield from _limits_of_measurement(card)
    yield from _limits_of_data(card, trained)
    if card.kind == "last":
        yield "This is the last model of its run, not the one that was best on validation patients."
    if card.training.rounds < card.training.planned_rounds:
        yield f"The run ended after {card.training.rounds} of {card.training.planned_rounds} planned rounds."
    if card.training.privacy is None:
        yield "No differential privacy: what one hospital contributed may be told from the model by somebody who has the rest."
    if not card.training.secure:
        yield "The coordinator saw every hospital's update."


def _limits_of_measurement(card: ModelCard) -> Iterable[str]:
    yield f"Dice is measured on the network's grid of {card.definition.grid.spacing_mm:g} mm, not on the scans' own voxels."
    if card.test is not None and any(
        figure.patients is None for own in card.test.sites.values() for figure in (*own.dice.values(), *own.auc.values())
    ):
        yield "Figures that come without a number of patients rest on few, mostly on fewer than 11: read their intervals, not their means."
    yield "An AUC is the mean of those within hospitals; cases of different hospitals were never ranked against each other."
    if card.calibration and Split.CALIBRATION not in card.calibration_patients:
        yield "Temperatures were fitted to the patients of the validation split, which also chose the round of the best model."
    if unfitted := [_head(head) for head, own in card.calibration.items() if not own.fitted]:
        yield f"No temperature could be fitted for {', '.join(unfitted)}: too few patients."


def _limits_of_data(card: ModelCard, trained: TrainedParts | None) -> Iterable[str]:
    held = set(card.data.coverage)
    if missing := [NAMES[m] for m in MODALITIES if m not in held]:
        yield f"No hospital held {' or '.join(missing)}: its encoder is as it was drawn at the start."
    if untaught := [NAMES[m] for m in MODALITIES if m in held and trained is not None and m not in trained.modalities]:
        yield f"No update of the encoder of {' or '.join(untaught)} counted: it is as it was drawn at the start."
    if any(Modality.T1CE not in own.modalities for own in card.data.by_site.values()):
        yield "Without T1ce the enhancing tumour is a guess, and some hospitals have none."
    if trained is not None:
        heads = (head for head in HEADS if isinstance(head, Region) or head in card.definition.network.tasks)
        yield from (f"No update of the head of {_head(head)} counted: it is untrained." for head in heads if head not in trained.heads)
        return
    for task in card.definition.network.tasks:
        # A count that is withheld is not nought of all hospitals' labels, as far as anybody can tell.
        if task not in card.data.labelled:
            yield f"Nobody told of labels of {MARKER_NAMES.get(task, task)}: its head is untrained."


def _head(head: Region | Task) -> str:
    return HEAD_NAMES.get(head, str(head))


def _subsets() -> list[tuple[Modality, ...]]:
    return [subset for size in range(len(MODALITIES), 0, -1) for subset in combinations(MODALITIES, size)]
