"""What the commands that rotate a key have in common."""

from pathlib import Path

from rich.console import Console
from rich.text import Text

from gmmas_cli.progress import progress_bar
from gmmas_runtime.disk import told_of_disk
from gmmas_runtime.sealed_files import Rotation, SealedFile, rotate_key
from gmmas_schema.encryption import EncryptionConfig
from gmmas_schema.errors import ConfigError


def require_encryption(encryption: EncryptionConfig | None, *, where: Path) -> EncryptionConfig:
    """Return where the key file is.

    Raises:
        ConfigError: `where` names none.
    """
    if encryption is None:
        raise ConfigError(
            "no key file is named",
            where=where,
            got="no encryption",
            expected="encryption: {key_file: PATH}",
            remedy="add it, with a path on another disk than the files, and call this again: it makes the key",
        )
    return encryption


def rotate(encryption: EncryptionConfig, files: list[SealedFile]) -> Rotation:
    """Rotate the key of files, with a progress bar.

    Raises:
        TrustError: a file or the key file cannot be opened; the old key stays.
        FederationError: code DISK.
    """
    with told_of_disk(encryption.key_file), progress_bar(Console(stderr=True), "encrypting") as update:
        return rotate_key(encryption.key_file, files, on_progress=update)


def tell(encryption: EncryptionConfig, done: Rotation) -> None:
    """Say what was done, and what to do with the key file."""
    console = Console()
    console.print(Text.assemble(("Encrypted", "green"), f" {done.sealed} files under key {done.key}."), soft_wrap=True)
    console.print(Text(f"Keep a copy of {encryption.key_file} elsewhere: without it the files cannot be read."), soft_wrap=True)
