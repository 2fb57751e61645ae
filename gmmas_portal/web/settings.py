"""What the platform is told (portal.yaml, written at the first start), and where its files lie.

    portal.yaml            configuration
    portal.db              accounts, sessions, cases, records, reports, jobs, audit (gmmas_portal.web.tables)
    model/<digest>/        the model's files, copied from where they came from; nothing else is ever read
    incoming/<draft>/      an upload until it is confirmed or thrown away
    imports/               cases made of DICOM studies, and the key of their pseudonyms (gmmas_data.dicom_import)
    cases/<key>/images/    sequences of a case made of NIfTI files, stripped of free text
    cases/<key>/v1/        masks, maps and pictures of one version of the outline
    processes.json, logs/  running processes

The folder has rights 0700 and can be moved while nothing runs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import yaml
from pydantic import Field

from gmmas_portal.language.settings import LanguageSettings
from gmmas_runtime.files import make_private_folder, write_atomic
from gmmas_schema.base import FrozenModel
from gmmas_schema.coordinator import Host
from gmmas_schema.dicom import SkullStripper
from gmmas_schema.errors import ConfigError
from gmmas_schema.inference import Flip, InferencePlan
from gmmas_schema.manifest import Sha256

DEFAULT_PORT: Final = 9094
CONFIG_FILE: Final = "portal.yaml"
DICOM_ARCHIVE: Final = "dicom.zip"
"""Name of the archive of a version's DICOM files, in its folder."""
DRAFT_HOURS: Final = 24.0
"""An upload that nobody confirms is deleted after so long."""


class OwnThreshold(FrozenModel):
    """Score above which a case counts as unlike known gliomas, measured on this hospital's own (`gmmas portal threshold --keep`).

    Attributes:
        score: the threshold (gmmas_portal.analysis.novelty).
        patients: it was measured on.
        weights_sha256: of the model it was measured with; with another one it says nothing and is not used.
    """

    score: float = Field(ge=0, le=1)
    patients: int = Field(ge=1)
    weights_sha256: Sha256


class PortalConfig(FrozenModel):
    """The platform of one hospital, always on 127.0.0.1.

    Attributes:
        institution: shown at the top of every page.
        model: a folder of weights, or a URI of MLflow (gmmas_workflows.model_source).
        tracking_uri: MLflow store of that URI.
        authority: certificate of the coordinator's authority; with it nothing but a model signed under it is taken.
        port: TCP port; plain HTTP, since it never leaves the machine by itself.
        hosts: further names by which browsers may ask for it, where a reverse proxy or a tunnel leads to it.
        session_hours: a sign-in ends after so long, used or not.
        idle_minutes: and after so long without a request.
        plan: windows, mirror images and Monte-Carlo passes of every analysis; the passes give the uncertainty map.
        upload_mib: largest upload.
        unpacked_mib: largest content of an uploaded archive.
        skull_stripper: program that takes the skull off DICOM studies (gmmas_schema.dicom); without one it stays on.
        novelty: the hospital's own threshold of what is unlike a known glioma; without one the built-in one.
        language: the optional language model; off, texts are those of the templates.
    """

    institution: str = Field(default="Research platform", min_length=1, max_length=80)
    model: str = Field(min_length=1)
    tracking_uri: str = ""
    authority: str = ""
    port: int = Field(default=DEFAULT_PORT, ge=1024, le=65535)
    hosts: tuple[Host, ...] = ()
    session_hours: float = Field(default=10.0, gt=0, le=72)
    idle_minutes: float = Field(default=30.0, gt=0, le=480)
    plan: InferencePlan = InferencePlan(flip=Flip.NONE, passes=4)
    upload_mib: int = Field(default=2048, ge=1, le=16384)
    unpacked_mib: int = Field(default=6144, ge=1, le=65536)
    skull_stripper: SkullStripper | None = None
    novelty: OwnThreshold | None = None
    language: LanguageSettings = LanguageSettings()

    @property
    def address(self) -> str:
        """Where a browser on this machine finds it."""
        return f"http://127.0.0.1:{self.port}"

    def threshold_for(self, weights_sha256: str) -> float | None:
        """Return the hospital's own threshold of novelty under a model; None where it has measured none with it."""
        return self.novelty.score if self.novelty is not None and self.novelty.weights_sha256 == weights_sha256 else None


@dataclass(frozen=True)
class PortalFolder:
    """The platform's folder; `path` is absolute."""

    path: Path
    config: PortalConfig

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a folder that an earlier start made.

        Raises:
            ConfigError: it is none, or portal.yaml is wrong.
        """
        path = path.resolve()
        if not (path / CONFIG_FILE).is_file():
            raise ConfigError(
                "this is not a platform's folder",
                where=path,
                got=f"no {CONFIG_FILE} in it" if path.is_dir() else "no such folder",
                expected="a folder made by `gmmas portal --model MODEL`",
                remedy="name the model to make one: a run's folder models/best, or models:/NAME@best with --tracking-uri",
            )
        return cls(path, PortalConfig.from_yaml(path / CONFIG_FILE))

    @classmethod
    def make(cls, path: Path, config: PortalConfig) -> Self:
        """Make a folder, or give an existing one another configuration."""
        made = cls(make_private_folder(path.resolve()), config)
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, width=120)
        write_atomic(made.path / CONFIG_FILE, text.encode())
        for folder in (made.incoming, made.imports, made.cases, made.models):
            make_private_folder(folder)
        return made

    @property
    def database(self) -> Path:
        """The one SQLite file."""
        return self.path / "portal.db"

    @property
    def incoming(self) -> Path:
        """Uploads that nobody has confirmed."""
        return self.path / "incoming"

    @property
    def imports(self) -> Path:
        """Cases made of DICOM studies."""
        return self.path / "imports"

    @property
    def cases(self) -> Path:
        """One folder a case."""
        return self.path / "cases"

    @property
    def models(self) -> Path:
        """Copies of models, by a digest over their files; `current` names the one in use."""
        return self.path / "model"

    @property
    def model_marker(self) -> Path:
        """Names the model in use."""
        return self.models / "current"

    @property
    def model(self) -> Path:
        """The folder of the model in use."""
        return self.models / self.model_marker.read_text(encoding="ascii").strip()

    @property
    def authority_copy(self) -> Path:
        """Certificate of the authority that the model in use was checked against; the file that was named may go."""
        return self.path / "authority.pem"

    @property
    def authority(self) -> Path | None:
        """The same, or None where none was named."""
        return self.authority_copy if self.config.authority and self.authority_copy.is_file() else None

    @property
    def state_file(self) -> Path:
        """What the running processes are."""
        return self.path / "processes.json"

    @property
    def logs(self) -> Path:
        """Output of the processes."""
        return self.path / "logs"

    def version(self, case: str, version: int) -> Path:
        """Folder of one version of a case's outline."""
        return self.cases / case / f"v{version}"
