"""The manifest of a published model (manifest.json): which files are the model, where they come from, and who says so.

The file has the form of gmmas_runtime.signed_record. Its record is a ModelManifest; the signature is empty for a model that nobody signed,
for instance one that was trained without a federation.
"""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from gmmas_schema.base import FrozenModel
from gmmas_schema.calibration import CALIBRATION_FILE

MANIFEST_FILE: Final = "manifest.json"
CARD_FILE: Final = "model-card.json"
CARD_TEXT: Final = "model-card.md"

MODEL_FILES: Final = ("model.safetensors", "model.json", CALIBRATION_FILE, CARD_FILE, CARD_TEXT)
"""What is read of a model's folder. Each of these that is there must be in the manifest."""

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ModelManifest(FrozenModel):
    """What a model consists of.

    Attributes:
        files: SHA-256 of each file by name.
        model_digest: of the model definition (network and grid).
        run: identifier of the run that made it.
        round: the round that made it; None where the origin is not a run.
        software: version of gmmas-fed that published it.
        made_at: seconds since 1970-01-01 UTC.
        certificate: of the signer, PEM, issued by the coordinator's authority; empty for an unsigned model.
    """

    version: Literal[1] = 1
    files: dict[FileName, Sha256] = Field(min_length=1, max_length=20)
    model_digest: Sha256
    run: str = Field(default="", max_length=200)
    round: int | None = Field(default=None, ge=0)
    software: str = Field(max_length=100)
    made_at: float = Field(ge=0)
    certificate: str = Field(default="", max_length=2**14)

    @model_validator(mode="after")
    def _names_the_weights(self) -> Self:
        if missing := [name for name in MODEL_FILES[:2] if name not in self.files]:
            raise ValueError(f"a model has the file {missing[0]}")
        return self
