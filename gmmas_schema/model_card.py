"""The model card of a registered version (model-card.json): what it is for, what it was made of, how well it does, what it cost.

After Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019), with what CLAIM (Tejani et al., Radiology: Artificial Intelligence
2024, "CLAIM 2024 Update") asks to be told of data, training and evaluation. Nothing is invented: whatever the run did not measure is absent
here and is shown as "not measured". Hospitals stand under pseudonyms. A count that is None was measured and is withheld, because it, or
one that could be computed from it, is below 11 (gmmas_data.suppression).
"""

from typing import Annotated, Final, Literal

from pydantic import Field

from gmmas_schema.base import FrozenModel
from gmmas_schema.calibration import Head
from gmmas_schema.errors import ReasonCode
from gmmas_schema.manifest import Sha256
from gmmas_schema.model import ModelDefinition
from gmmas_schema.vocabulary import Modality, Region, Split, Task

INTENDED_USE: Final = (
    "Research on the segmentation of adult-type diffuse glioma on MRI before surgery, on molecular markers from imaging, and on learning"
    " across hospitals.",
)
OUT_OF_SCOPE: Final = (
    "Diagnosis, choice of therapy, or any other decision about a patient: this is not a medical device. Imaging suggests, tissue decides.",
    "Anything but adult-type diffuse glioma before surgery: other tumours, children, resection cavities, demyelination, stroke. The model"
    " always answers, also where there is no glioma.",
    "Entities outside glioblastoma, astrocytoma and oligodendroglioma (for instance H3-altered gliomas): they do not exist for it.",
)

Count = Annotated[int, Field(ge=0)] | None
"""None is withheld."""


class Figure(FrozenModel):
    """A measured value with its 95 % interval over patients, as far as it has one."""

    value: float
    low: float | None = None
    high: float | None = None
    patients: Count = None


class Accuracy(FrozenModel):
    """Dice per region and AUC per marker; what is not there was not measured."""

    dice: dict[Region, Figure] = {}
    auc: dict[Task, Figure] = {}


class SubsetAccuracy(FrozenModel):
    """Accuracy for patients of whom exactly these sequences were shown.

    Attributes:
        modalities: that the hospitals behind it hold.
        sites: how many hospitals.
        accuracy: mean over their patients; intervals of several hospitals are combined as those of independent means.
    """

    modalities: tuple[Modality, ...]
    sites: int = Field(ge=1)
    accuracy: Accuracy


class SplitAccuracy(FrozenModel):
    """Accuracy on one part of the hospitals' patients.

    Attributes:
        mean: over hospitals, weighted by patients (gmmas_workflows.scores).
        sites: each hospital's own, by pseudonym; empty where there are too many to list.
        worst: over all hospitals, by metric.
        subsets: by the sequences that hospitals hold.
    """

    split: Split
    mean: dict[str, float] = {}
    sites: dict[str, Accuracy] = {}
    worst: dict[str, float] = {}
    subsets: tuple[SubsetAccuracy, ...] = ()


class SiteCard(FrozenModel):
    """One hospital's part.

    Attributes:
        cases: training cases.
        labelled: of these, per task.
        rounds: rounds in which its answer counted, `asked` those in which it was asked.
        refused: how often an answer did not count, by reason.
        software: versions that it ran.
    """

    modalities: tuple[Modality, ...] = ()
    cases: Count = None
    labelled: dict[Task, Count] = {}
    rounds: int = Field(default=0, ge=0)
    asked: int = Field(default=0, ge=0)
    refused: dict[ReasonCode, int] = {}
    software: tuple[str, ...] = ()


class DataCard(FrozenModel):
    """What the model was trained on.

    Attributes:
        sites: number of hospitals whose answers counted at least once.
        cases: training cases over all hospitals.
        labelled: of these, per task.
        coverage: per sequence and task the labelled training cases of the hospitals that hold the sequence.
        by_site: each hospital, by pseudonym; empty where there are too many to list.
        labels: what the labels mean.
        exclusions: what was left out of the model, in words.
    """

    sites: int = Field(ge=0)
    cases: Count = None
    labelled: dict[Task, Count] = {}
    coverage: dict[Modality, dict[Task, Count]] = {}
    by_site: dict[str, SiteCard] = {}
    labels: dict[Task, str] = {}
    exclusions: tuple[str, ...] = ()


class HeadCard(FrozenModel):
    """Calibration of one head; `test` figures are of patients that nothing was fitted to.

    Attributes:
        temperature: that its logit is divided by.
        patients: behind the fit.
        note: why there was no fit, or what is to be known of it.
        ece_before: calibration error on the patients of the fit at temperature 1; `after` at the fitted one.
        nll_before: mean negative log-likelihood in nats, likewise.
        abstains: when a marker is left open, in words.
        threshold: confidence below which it is.
    """

    temperature: float
    fitted: bool
    patients: Count = None
    note: str = ""
    ece_before: float | None = None
    ece_after: float | None = None
    nll_before: float | None = None
    nll_after: float | None = None
    test_ece_before: float | None = None
    test_ece_after: float | None = None
    abstains: str = ""
    threshold: float | None = None


class PrivacyCard(FrozenModel):
    """Differential privacy of a hospital's whole contribution (strategies.privacy)."""

    epsilon: float
    delta: float
    noise_multiplier: float
    clip_norm: float
    releases: int


class CostCard(FrozenModel):
    """What the run cost up to the publication of its models.

    Attributes:
        hours: from the run's start, pauses included.
        round_hours: of the finished rounds alone.
        bytes_down: to all hospitals, `bytes_up` from them: tensors and documents, without TLS and HTTP.
        site_cpu_hours: processor time of the hospitals' trainers, as far as they told.
        coordinator_cpu_hours: of the coordinator's process.
        site_peak_memory_mib: largest resident memory of a trainer.
    """

    hours: float | None = None
    round_hours: float | None = None
    bytes_down: int | None = None
    bytes_up: int | None = None
    site_cpu_hours: float | None = None
    coordinator_cpu_hours: float | None = None
    site_peak_memory_mib: float | None = None
    coordinator_peak_memory_mib: float | None = None


class TrainingCard(FrozenModel):
    """How it was trained.

    Attributes:
        configuration: SHA-256 of the run's resolved configuration (federation.json, canonical JSON).
        strategy: how the hospitals' answers were averaged, `server_step` what was made of the mean.
        wire: precision of what travelled.
        secure: whether the coordinator saw sums alone.
        privacy: None where there was none.
    """

    run: str
    rounds: int = Field(ge=0)
    planned_rounds: int = Field(ge=1)
    seed: int
    configuration: Sha256
    strategy: str
    server_step: str
    robustness: str
    wire: str
    secure: bool
    privacy: PrivacyCard | None = None
    personalised: bool = False
    semi_supervised: bool = False


class ModelCard(FrozenModel):
    """Contents of model-card.json.

    Attributes:
        name: registered model.
        kind: best by validation, or last of the run.
        round: that made the weights.
        weights: SHA-256 of model.safetensors.
        model_digest: SHA-256 of the definition.
        parameters: number of trained values.
        made_at: UTC, ISO 8601.
        software: versions at the coordinator.
        test: None where these weights were not tested.
        calibration: empty for a model that is not calibrated.
        limits: known ones.
        not_measured: what a reader might expect to find here and will not.
    """

    version: Literal[1] = 1
    name: str
    kind: Literal["best", "last"]
    round: int = Field(ge=0)
    weights: Sha256
    model_digest: Sha256
    definition: ModelDefinition
    parameters: int = Field(ge=0)
    made_at: str
    software: dict[str, str]
    intended_use: tuple[str, ...] = INTENDED_USE
    out_of_scope: tuple[str, ...] = OUT_OF_SCOPE
    training: TrainingCard
    data: DataCard
    validation: SplitAccuracy | None = None
    test: SplitAccuracy | None = None
    calibration: dict[Head, HeadCard] = {}
    calibration_patients: dict[Split, Count] = {}
    cost: CostCard = CostCard()
    limits: tuple[str, ...] = ()
    not_measured: tuple[str, ...] = ()
