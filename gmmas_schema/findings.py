"""The findings record of one case: what the network saw and what it says, with units (findings.json)."""

from pydantic import Field

from gmmas_schema.base import FrozenModel
from gmmas_schema.calibration import Head
from gmmas_schema.inference import InferencePlan
from gmmas_schema.vocabulary import Modality, Region, Subtype, Task


class UncertaintyFindings(FrozenModel):
    """How far the answers of Monte-Carlo passes spread (gmmas_model.uncertainty); it ranks cases, and is no confidence interval.

    Attributes:
        region_std: mean over a predicted region of the standard deviation of its probability; a region that was not found is left out.
        probability_std: standard deviation of each probability in Findings.probability.
    """

    region_std: dict[Region, float]
    probability_std: dict[Task, float]


class Findings(FrozenModel):
    """Result of one prediction. Research use only: molecular status needs tissue.

    Attributes:
        volume_ml: predicted volume per trained region in millilitres.
        probability: P(IDH mutant), P(1p/19q codeleted), and where the model has a head for them P(high-grade), P(MGMT promoter
            methylated); in [0, 1]; of trained heads only.
        subtype: probability per subtype; sums to 1 and agrees with `probability` (WHO CNS5). Empty where IDH or 1p/19q was never trained.
        untrained: regions and markers that the model was never trained on; its maps hold no such region.
        calibrated: the model came with a calibration and it was applied; else confidence is the network's own.
        abstained: markers that are left open, each with the reason: its confidence is below the one from which patients were right
            often enough. The probability is given all the same.
        inference: windows, mirror images and Monte-Carlo passes behind these figures.
        uncertainty: spread over the Monte-Carlo passes; None where none were made.
        modalities_used: sequences the prediction rests on.
        modalities_missing: sequences that were not there, or not used.
        modalities_unread: of these the ones that the case has and the model does not read, for it was never trained on them.
        model_digest: digest of the model definition; `weights_sha256` names the exact weights.
    """

    case: str
    modalities_used: tuple[Modality, ...]
    modalities_missing: tuple[Modality, ...]
    modalities_unread: tuple[Modality, ...] = ()
    volume_ml: dict[Region, float]
    probability: dict[Task, float]
    subtype: dict[Subtype, float]
    untrained: tuple[Head, ...] = ()
    calibrated: bool = False
    abstained: dict[Task, str] = Field(default_factory=dict)
    inference: InferencePlan = InferencePlan()
    uncertainty: UncertaintyFindings | None = None
    model_digest: str
    weights_sha256: str
    software: str
    seconds: float = Field(ge=0)
    notice: str = "Research use only. Imaging suggests, tissue decides."
