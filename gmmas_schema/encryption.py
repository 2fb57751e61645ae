"""Encryption at rest, the same key in coordinator.yaml and site.yaml (gmmas_runtime.sealed_files)."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

from gmmas_schema.base import FrozenModel


def _absolute(path: Path, info: ValidationInfo) -> Path:
    """Resolve a relative path against the configuration's own folder."""
    folder = (info.context or {}).get("folder")
    return path if path.is_absolute() or folder is None else folder / path


class EncryptionConfig(FrozenModel):
    """How files are encrypted at rest.

    Attributes:
        key_file: the key file, of rights 0600; best on another disk than the files. The first `gmmas server rotate-key` or
            `gmmas site rotate-key` makes it.
    """

    key_file: Annotated[Path, AfterValidator(_absolute)]
