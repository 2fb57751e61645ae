"""The model in use: copied once from a run's folder or from MLflow, so that every record names exact weights that are still there.

A copy is checked against its manifest each time it is opened (gmmas_runtime.manifest). Another model gets a folder of its own; records made
with an earlier one keep its hash.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from gmmas_model.weights import RECORD_FILE, WeightsRecord, load_weights
from gmmas_portal.web.audit import digest_of
from gmmas_portal.web.settings import PortalFolder
from gmmas_runtime.files import clear_unfinished, sha256_file, whole_folder, write_atomic
from gmmas_runtime.manifest import Origin, check_manifest
from gmmas_schema.calibration import CALIBRATION_FILE
from gmmas_schema.manifest import CARD_FILE, MANIFEST_FILE, MODEL_FILES
from gmmas_schema.model_card import ModelCard
from gmmas_workflows.model_source import model_folder


@dataclass(frozen=True)
class ModelPapers:
    """What is known of the model in use, without its tensors.

    Attributes:
        sha256: of the weights.
        run: and round that made it, as the weights say; empty where they do not.
        origin: its manifest, checked.
        calibrated: whether it came with a calibration.
        card: None where it has none.
    """

    sha256: str
    run: str
    origin: Origin
    calibrated: bool
    card: ModelCard | None

    @property
    def name(self) -> str:
        """Name of the registered model, or what stands for it."""
        return self.card.name if self.card is not None else "Model without a card"


def adopt_model(folder: PortalFolder) -> str:
    """Copy the configured model into the platform's folder, make it the one in use, and return the SHA-256 of its weights.

    Raises:
        ConfigError, ModelError, TrustError: as of gmmas_workflows.model_source.open_model.
    """
    config = folder.config
    authority = Path(config.authority) if config.authority else None
    with model_folder(config.model, tracking_uri=config.tracking_uri) as found:
        check_manifest(found, authority=authority)
        sha256 = load_weights(found).sha256
        files = [name for name in (*MODEL_FILES, MANIFEST_FILE) if (found / name).is_file()]
        # The same weights with another calibration or card are another copy.
        name = digest_of("\n".join(sha256_file(found / file) for file in files))[:32]
        clear_unfinished(folder.models)
        if not (folder.models / name).exists():
            with whole_folder(folder.models / name) as made:
                for file in files:
                    shutil.copyfile(found / file, made / file)
    if authority is not None:
        write_atomic(folder.authority_copy, authority.read_bytes())
    write_atomic(folder.model_marker, name.encode())
    return sha256


def read_papers(folder: PortalFolder) -> ModelPapers:
    """Return what is known of the model in use.

    Raises:
        TrustError: its files are not those of its manifest, or it is not of the authority that was named.
    """
    path = folder.model
    origin = check_manifest(path, authority=folder.authority)
    record = WeightsRecord.model_validate_json((path / RECORD_FILE).read_bytes())
    run = record.metadata.get("run", "")
    number = record.metadata.get("round", "")
    card = ModelCard.model_validate_json((path / CARD_FILE).read_bytes()) if (path / CARD_FILE).is_file() else None
    return ModelPapers(
        record.sha256, f"{run}, round {number}" if run and number else run, origin, (path / CALIBRATION_FILE).is_file(), card
    )
