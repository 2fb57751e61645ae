"""Configuration of one hospital node (site.yaml)."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from gmmas_schema.base import ConfigPath, FrozenModel, HeldModalities
from gmmas_schema.encryption import EncryptionConfig
from gmmas_schema.policy import SitePolicy
from gmmas_schema.vocabulary import MODALITIES, Layout, Tissue


class SplitConfig(FrozenModel):
    """Shares of the patients; patients are ranked by a seeded hash of their identifier, so the same cohort is always split alike.

    Attributes:
        validation: chooses the best round.
        test: chooses nothing.
        calibration: fits the temperatures of the finished model. 0, the default, takes the validation patients for that too: a small
            site has none to spare from training, and the calibration's record says so.
        seed: of the ranking.
    """

    validation: float = Field(default=0.15, ge=0, lt=1)
    test: float = Field(default=0.2, ge=0, lt=1)
    calibration: float = Field(default=0.0, ge=0, lt=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _something_left_to_train(self) -> "SplitConfig":
        if self.validation + self.test + self.calibration >= 1:
            raise ValueError("validation, test and calibration shares leave no patient to train on")
        return self


LabelColumn = Literal["patient_id", "idh", "codeletion", "grade", "mgmt", "subtype", "side"]
"""Columns of our own table of labels."""


class TableConfig(FrozenModel):
    """How a table of labels that is not ours is to be read.

    Attributes:
        columns: our column -> the heading in the table; `patient_id` must be named. Columns that are not named are not read.
        values: our column -> text in the table (capitals and blanks around it do not matter) -> our word for it. A value that is
            neither here nor one of our words is refused; `unknown` is a word of ours.
    """

    columns: dict[LabelColumn, str]
    values: dict[LabelColumn, dict[str, str]] = {}

    @model_validator(mode="after")
    def _patients_are_named(self) -> "TableConfig":
        if "patient_id" not in self.columns:
            raise ValueError("columns must name the heading of patient_id")
        if strange := sorted(set(self.values) - set(self.columns)):
            raise ValueError(f"values are given for {', '.join(strange)}, which columns does not name")
        return self


class DataConfig(FrozenModel):
    """The cohort on disk.

    Attributes:
        root: folder of the cohort.
        layout: naming convention of its files; `auto` infers it from names, never from values.
        labels: CSV with columns patient_id, idh, codeletion (gmmas_data.labels names others); relative to this file. None: no such labels.
        modalities: sequences this site offers; files of others are not opened.
        table: how to read a table of labels that is neither ours nor one of the public cohorts'.
        segmentation_values: value in the label maps -> tissue, where the layout's own meaning does not hold; BIDS has none of its own.
        exclude: patterns of files to leave out, relative to root (`derivatives/old/*`, `*_run-2_*`).
        skip_bad_cases: leave out cases that fail the quality gate (each is reported) instead of refusing the cohort.
    """

    root: ConfigPath
    layout: Layout | Literal["auto"] = "auto"
    labels: ConfigPath | None = None
    modalities: HeldModalities = MODALITIES
    table: TableConfig | None = None
    segmentation_values: dict[Annotated[int, Field(ge=0, le=255)], Tissue] | None = None
    exclude: tuple[str, ...] = ()
    skip_bad_cases: bool = False
    split: SplitConfig = SplitConfig()


class CoordinatorConfig(FrozenModel):
    """How the node reaches the coordinator: outbound TLS only."""

    address: str = Field(pattern=r"^[A-Za-z0-9.\-]+:\d{1,5}$")
    root_certificate: ConfigPath


class NodeConfig(FrozenModel):
    """The node's processes.

    Attributes:
        private_key: P-384 key of the node (PEM); it never leaves the site.
        state: folder of sockets, caches, logs and training state; made with rights 0700.
        runtime_port: loopback port between SuperNode and executor.
        executor: `resident` runs only the locally installed client; `flower` is Flower's own executor, one process a message, which cannot
            take part in secure rounds.
        peers: folder with the public keys of the other sites, <site>.pub, exchanged between the hospitals: a secure round takes no others.
            None trusts each site's key as the coordinator showed it first.
        threads: CPU threads of the trainer.
        device: `auto` is CUDA where present, else CPU.
    """

    private_key: ConfigPath
    state: ConfigPath
    runtime_port: int = Field(default=19091, ge=1024, le=65535)
    executor: Literal["resident", "flower"] = "resident"
    peers: ConfigPath | None = None
    threads: PositiveInt = 2
    device: Literal["auto", "cpu", "cuda"] = "auto"


class SiteConfig(FrozenModel):
    """One hospital node.

    Attributes:
        encryption: encrypts what the node keeps, cached samples and what it carries from round to round; None leaves it plain.
    """

    site: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")
    data: DataConfig
    coordinator: CoordinatorConfig
    node: NodeConfig
    policy: SitePolicy = SitePolicy()
    encryption: EncryptionConfig | None = None

    @model_validator(mode="after")
    def _masks_are_made_here(self) -> "SiteConfig":
        if self.policy.privacy.secure and self.node.executor == "flower":
            raise ValueError("policy.privacy.secure does not go with node.executor flower: masks are made by the resident executor only")
        return self
