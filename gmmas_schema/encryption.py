"""Encryption at rest, the same key in coordinator.yaml and site.yaml (gmmas_runtime.sealed_files)."""

from gmmas_schema.base import ConfigPath, FrozenModel


class EncryptionConfig(FrozenModel):
    """How files are encrypted at rest.

    Attributes:
        key_file: the key file, of rights 0600; best on another disk than the files. The first `gmmas server rotate-key` or
            `gmmas site rotate-key` makes it.
    """

    key_file: ConfigPath
