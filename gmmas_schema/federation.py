"""Configuration of one federated run (federation.yaml), read at the coordinator."""

from types import MappingProxyType
from typing import Final, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from gmmas_schema.base import FrozenModel
from gmmas_schema.calibration import CalibrationPlan
from gmmas_schema.model import ModelDefinition
from gmmas_schema.privacy import PrivacyConfig
from gmmas_schema.robustness import MeanRule, MedianRule, RobustnessConfig
from gmmas_schema.secure import SecureConfig
from gmmas_schema.strategy import AverageStep, HoldersStrategy, ServerStep, Strategy
from gmmas_schema.vocabulary import MARKERS, REQUIRED_TASKS, Task
from gmmas_schema.wire import WireConfig

LOSS_FLOOR: Final = 0.05
"""Added to a task's loss under its log-variance, which bounds the log-variance below."""
LARGEST_ROUND_STEPS: Final = 100_000
"""A round of so many steps takes a day; no site is told to train without end."""
CHANCE_LOG_LOSS: Final = MappingProxyType({Task.SEGMENTATION: 0.0, **dict.fromkeys(MARKERS, -1.5)})
"""Log of each task's loss by chance."""


class DistillationConfig(FrozenModel):
    """A prediction from fewer sequences learns from one that saw all of the site's (gmmas_model.distillation).

    Attributes:
        teacher: `ema` is a copy of the network that follows the student, new each round; `online` is the student's own prediction from
            all sequences, without a second encoder pass.
        decay: of the moving average, per step.
        temperature: softens both predictions.
        confidence: voxels count where the teacher's larger probability is above this.
        prediction_weight: on the divergence of the predictions.
        feature_weight: on 1 - cosine of the bottleneck features.
    """

    teacher: Literal["ema", "online"] = "online"
    decay: float = Field(default=0.99, ge=0, lt=1)
    temperature: PositiveFloat = 2.0
    confidence: float = Field(default=0.8, ge=0.5, lt=1)
    prediction_weight: float = Field(default=1.0, ge=0)
    feature_weight: float = Field(default=0.5, ge=0)


class SemiSupervisedConfig(FrozenModel):
    """Two-stage training: unlabelled scans join, per target, once the labelled ones have taught it (strategies.readiness).

    A target is a region (`wt`, `tc`, `et`) or a molecular task.

    Attributes:
        ready_dice: validation Dice over the sites' patients in whom a region is there to be seen (Evaluation), from which it is ready.
        ready_auc: validation AUC from which a molecular task is ready.
        ready_rounds: rounds in a row it must hold.
        regions_together: no region joins before all that the sites can measure are ready, for they are learned by one decoder.
        ramp_rounds: rounds over which pseudo-labels gain their full weight.
        weight: of a pseudo-labelled voxel or case against a labelled one, at the end of the ramp; also in the averaging.
        passes: Monte-Carlo passes behind a pseudo-label.
        voxel_confidence: probability a voxel needs for its own side.
        voxel_spread: largest standard deviation over the passes of an accepted voxel.
        case_confidence: the same for a molecular pseudo-label.
        case_spread: the same for a molecular pseudo-label.
        enhancing_gate: no pseudo-labels of tumour core and enhancing tumour for a case without T1ce.
        cutmix: paste a box from a labelled case into an unlabelled one and back: around the tumour, anywhere, or not at all.
        cutmix_share: share of labelled-unlabelled pairs that are mixed.
    """

    ready_dice: float = Field(default=0.5, ge=0, le=1)
    ready_auc: float = Field(default=0.7, ge=0, le=1)
    ready_rounds: PositiveInt = 3
    regions_together: bool = True
    ramp_rounds: PositiveInt = 4
    weight: float = Field(default=0.5, ge=0, le=1)
    passes: int = Field(default=4, ge=2, le=32)
    voxel_confidence: float = Field(default=0.8, gt=0.5, lt=1)
    voxel_spread: PositiveFloat = 0.1
    case_confidence: float = Field(default=0.9, gt=0.5, lt=1)
    case_spread: PositiveFloat = 0.05
    enhancing_gate: bool = True
    cutmix: Literal["tumour", "random", "none"] = "tumour"
    cutmix_share: float = Field(default=0.5, ge=0, le=1)


class TrainingPlan(FrozenModel):
    """What a site does in one round of local training; travels to the sites as JSON.

    Attributes:
        local_steps: optimiser steps per round.
        batch_size: cases per step.
        learning_rate: peak step size of AdamW.
        final_learning_rate_share: cosine decay over all rounds ends at this share of the peak.
        warmup_steps: linear warm-up over the first steps of the run.
        modality_dropout: share of samples that see a random non-empty subset of their modalities.
        lagging_share: share of those subsets that are a single sequence, rare ones at the site more often than common ones.
        enhancing_needs_t1ce: leave the enhancing tumour of a `site` or `sample` without T1ce out of the loss; `never` uses every label.
        backbone: who trains encoders, fusion and bottleneck: sites with `any` label, or only those that learn `regions`, by segmentations
            or pseudo-labels; a site with molecular labels alone then trains its heads on the features as they come.
        more_fewer_weight: penalty where all sequences predict worse than a subset of them (Li et al., arXiv 2507.19264, 2025, "SimMLM").
        anchor_weight: on the contrast of a segmented case's features to the anchors; without effect where the network has no adapter.
        augmentation: random flips and intensity changes.
        precision: `auto` is bf16 where the device multiplies bf16 natively, else fp32.
        gradient_clip_norm: largest L2 norm of a step's gradient.
        proximal_weight: mu of FedProx, the pull towards the received model (strategies.fedprox); 0 for none.
        personalised: `norms` leaves each site's normalisation layers its own (FedBN; gmmas_workflows.personalised); `none` for one model.
        uncertainty_weighting: `learned` (Kendall et al., CVPR 2018, masked per task), `closed_form` (its optimum, set by the coordinator
            from the sites' losses), or `fixed` (all weights 1).
        task_weights: fixed factor on each task's loss; 1 for a task that is not named.
        distillation: self-distillation between subsets of sequences; None for none.
        semi_supervised: pseudo-labels once a target is ready; None for labelled cases only.
    """

    local_steps: int = Field(default=30, ge=1, le=LARGEST_ROUND_STEPS)
    batch_size: PositiveInt = 2
    learning_rate: PositiveFloat = 2e-3
    final_learning_rate_share: float = Field(default=0.1, ge=0, le=1)
    warmup_steps: int = Field(default=30, ge=0)
    weight_decay: float = Field(default=1e-5, ge=0)
    modality_dropout: float = Field(default=0.5, ge=0, le=1)
    lagging_share: float = Field(default=0.0, ge=0, le=1)
    enhancing_needs_t1ce: Literal["never", "site", "sample"] = "never"
    backbone: Literal["any", "regions"] = "any"
    more_fewer_weight: float = Field(default=0.0, ge=0)
    anchor_weight: float = Field(default=0.1, ge=0)
    augmentation: bool = True
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    gradient_clip_norm: PositiveFloat = 5.0
    proximal_weight: float = Field(default=0.0, ge=0)
    personalised: Literal["none", "norms"] = "none"
    uncertainty_weighting: Literal["learned", "closed_form", "fixed"] = "learned"
    task_weights: dict[Task, PositiveFloat] = Field(default_factory=lambda: dict.fromkeys(REQUIRED_TASKS, 1.0))
    distillation: DistillationConfig | None = None
    semi_supervised: SemiSupervisedConfig | None = None


class QuorumConfig(FrozenModel):
    """When a round may start and when it counts.

    Attributes:
        sites: sites that must be online before the run starts.
        replies: good replies a round needs; fewer fail the round.
        join_deadline_s: longest wait for `sites`.
        round_deadline_s: longest wait for replies; the round goes on with what came if `replies` are there.
        round_attempts: how often a failed round is tried before the run stops (it can be resumed).
    """

    sites: PositiveInt = 2
    replies: PositiveInt = 2
    join_deadline_s: PositiveFloat = 300.0
    round_deadline_s: PositiveFloat = 3600.0
    round_attempts: PositiveInt = 2

    @model_validator(mode="after")
    def _replies_within_sites(self) -> "QuorumConfig":
        if self.replies > self.sites:
            raise ValueError(f"replies ({self.replies}) must not exceed sites ({self.sites})")
        return self


class TrackingConfig(FrozenModel):
    """Where MLflow writes. An empty uri means a SQLite store inside the coordinator's folder."""

    uri: str = ""
    experiment: str = "gmmas"
    registered_model: str = "gmmas"


class FederationConfig(FrozenModel):
    """One federated run. With `measure_subsets` the best model is tested with every subset of each site's sequences, not only with what the
    site has: 15 tests in the place of one where it has all.

    Without a `calibration` plan its models are published uncalibrated; without `privacy` they carry no noise; without `secure` the
    coordinator sees every update.
    """

    name: str = Field(default="gmmas", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    seed: int = Field(default=0, ge=0)
    rounds: PositiveInt = 20
    model: ModelDefinition = ModelDefinition()
    training: TrainingPlan = TrainingPlan()
    strategy: Strategy = HoldersStrategy()
    server_step: ServerStep = AverageStep()
    wire: WireConfig = WireConfig()
    robustness: RobustnessConfig = RobustnessConfig()
    privacy: PrivacyConfig | None = None
    secure: SecureConfig | None = None
    calibration: CalibrationPlan | None = CalibrationPlan()
    measure_subsets: bool = False
    quorum: QuorumConfig = QuorumConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _strategy_has_its_effect(self) -> "FederationConfig":
        """Refuse settings that another one takes the effect from, so that nobody reads a result as theirs."""
        training, strategy = self.training, self.strategy
        if isinstance(strategy, HoldersStrategy):
            if strategy.fairness > 0 and isinstance(self.robustness.combine, MedianRule):
                raise ValueError("strategy.fairness does not go with robustness.combine median: in a median every site has one vote")
            if strategy.fairness > 0 and self.privacy is not None:
                raise ValueError("strategy.fairness does not go with privacy: the sites' losses would decide on weights without noise")
        if training.proximal_weight > 0 and training.local_steps == 1:
            raise ValueError("training.proximal_weight does not go with training.local_steps 1: in the first step there is nothing to pull")
        return self

    @model_validator(mode="after")
    def _votes_fit_pseudo_labels(self) -> "FederationConfig":
        if isinstance(self.robustness.combine, MedianRule) and self.training.semi_supervised is not None:
            raise ValueError(
                "robustness.combine median does not go with training.semi_supervised: in a median every site has one vote, so pseudo-labels"
                " would weigh as much as labels; use trimmed, or mean"
            )
        return self

    @model_validator(mode="after")
    def _nothing_needs_single_updates(self) -> "FederationConfig":
        """Refuse, where updates are summed unseen, what looks at single ones or travels in another form."""
        if self.secure is None:
            return self
        holders, robustness = self.secure.minimum_holders, self.robustness
        unseen = "no single update is seen"
        refused = {
            f"quorum.replies {self.quorum.replies}": (
                self.quorum.replies < holders,
                f"secure.minimum_holders {holders} stand behind a sum",
            ),
            "wire.top_k": (self.wire.top_k is not None, "the places of the largest changes would be told, and masks need every entry"),
            f"wire.up {self.wire.up}": (self.wire.up != "fp32", "updates travel as integers; secure.bits sets their precision"),
            "robustness.norm_limit": (robustness.norm_limit is not None, f"{unseen}; set it to null, secure.clip bounds every entry"),
            "robustness.cosine_limit": (robustness.cosine_limit is not None, unseen),
            "robustness.clip": (robustness.clip is not None, f"{unseen}; secure.clip bounds every entry"),
            f"robustness.combine {robustness.combine.kind}": (not isinstance(robustness.combine, MeanRule), f"{unseen}, sums are"),
        }
        for key, (found, reason) in refused.items():
            if found:
                raise ValueError(f"{key} does not go with secure: {reason}")
        try:
            self.secure.check_sites(self.quorum.sites, private=self.privacy is not None)
        except ValueError as error:
            raise ValueError(f"quorum.sites {self.quorum.sites} does not go with secure: {error}") from error
        return self

    @model_validator(mode="after")
    def _privacy_covers_the_update(self) -> "FederationConfig":
        """Refuse what would let a hospital into the model past the noise, or let one hospital change what another may contribute."""
        if self.privacy is None:
            return self
        robustness = self.robustness
        others = "what one site sends would decide what another counts, and clipping would no longer bound a site's influence"
        refused = {
            "model.network.prototypes": (self.model.network.prototypes > 0, "anchors are sums over patients and get no noise"),
            "training.uncertainty_weighting closed_form": (
                self.training.uncertainty_weighting == "closed_form",
                "it puts the sites' losses into the model without noise",
            ),
            "robustness.cosine_limit": (robustness.cosine_limit is not None, others),
            "robustness.clip": (robustness.clip is not None, "privacy.clip_norm shortens every update already, to a length that is public"),
            f"robustness.combine {robustness.combine.kind}": (not isinstance(robustness.combine, MeanRule), "noise is made for a sum"),
        }
        if self.secure is not None:
            plain, holders = SecureConfig(), self.secure.minimum_holders
            whole = "the clip is on the whole update, and noise sets the precision"
            for key in ("bits", "clip", "clip_groups", "weight_limit"):
                refused[f"secure.{key}"] = (getattr(self.secure, key) != getattr(plain, key), whole)
            few = f"of them at least one must make noise that none of privacy.colluders {self.privacy.colluders} knows"
            refused[f"secure.minimum_holders {holders}"] = (self.privacy.colluders >= holders, few)
        for key, (found, reason) in refused.items():
            if found:
                raise ValueError(f"{key} does not go with privacy: {reason}")
        return self
