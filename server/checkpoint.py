"""The folder of a federated run: its configuration and its events beside the rounds of gmmas_workflows.run_folder.

federation.json                    resolved configuration
simulation.json                    of a simulation: whose cases (gmmas_schema.simulation)
encryption.json                    where the key of its checkpoints is, if they are encrypted
run.json                           identifier of the run; a resumed run keeps it
secure-round.json                  with `secure`: whom the round in progress is for (server.secure_company)
events.db                          event table and cost ledger (server.events)
rounds/, models/                   one folder a round, and the run's outcome (gmmas_workflows.run_folder)
result.json                        the run's end (server.records.RunResult)
"""

import secrets
from pathlib import Path
from typing import Final, Self

from pydantic import ValidationError

from gmmas_runtime.files import write_atomic
from gmmas_runtime.sealed_files import PLAIN, KeyRing, Seal
from gmmas_schema.encryption import EncryptionConfig
from gmmas_schema.errors import ConfigError
from gmmas_schema.federation import FederationConfig
from gmmas_workflows.run_folder import RunStore
from gmmas_workflows.run_identity import begin_run, read_run
from server.events import EVENTS_FILE
from server.records import RoundRecord, RunResult

CONFIGURATION: Final = "federation.json"
SIMULATION: Final = "simulation.json"
ENCRYPTION: Final = "encryption.json"


class RunFolder(RunStore[RoundRecord, RunResult]):
    """One federated run on disk.

    Attributes:
        path: the folder.
        config: its configuration.
        run: its identifier, the same before and after a resume.
    """

    def __init__(self, path: Path, *, config: FederationConfig, run: str) -> None:
        seal = read_seal(path)
        super().__init__(
            path,
            definition=config.model,
            run=run,
            round_type=RoundRecord,
            result_type=RunResult,
            groups_of=lambda record: record.groups_moved,
            seal=seal,
        )
        self.config = config

    @classmethod
    def create(cls, path: Path, config: FederationConfig, *, run: str | None = None) -> Self:
        """Make the folder of a new run, or open it where it exists with the same configuration.

        Args:
            path: the folder; parents are made.
            config: resolved configuration.
            run: identifier; by default the configuration's name and the first digits of the digest of its choices. The sites draw their
                random numbers from it, so the same choices give the same weights wherever and whenever they are run. With `secure` it ends
                in random digits: what hospitals have opened, and what noise has cost them, they keep by run and round, so that a new run
                under an old name would find its rounds opened.

        Raises:
            ConfigError: the folder holds a run of another configuration.
        """
        if (path / CONFIGURATION).exists():
            folder = cls.open(path)
            if folder.config != config:
                raise ConfigError(
                    "the folder holds a run of another configuration",
                    where=path,
                    got=f"digest {config.digest()[:12]}",
                    expected=f"digest {folder.config.digest()[:12]} ({CONFIGURATION})",
                    remedy="resume with the configuration it began with, or name a new folder",
                )
            return folder
        identifier = run or "-".join(
            (config.name, config.choices_digest()[:8], *((secrets.token_hex(4),) if config.secure is not None else ()))
        )
        begin_run(path, config, file=CONFIGURATION, run=identifier)
        return cls(path, config=config, run=identifier)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the folder of a run.

        Raises:
            ConfigError: there is no run, or its configuration cannot be read.
        """
        config, run = read_run(path, FederationConfig, file=CONFIGURATION)
        return cls(path, config=config, run=run)

    @property
    def events_path(self) -> Path:
        """The record of events."""
        return self.path / EVENTS_FILE


def read_seal(path: Path) -> Seal:
    """Return how the checkpoints of a run lie on the disk.

    Raises:
        ConfigError: encryption.json is damaged.
    """
    try:
        text = (path / ENCRYPTION).read_text(encoding="utf-8")
    except FileNotFoundError:
        return PLAIN
    try:
        return Seal(EncryptionConfig.model_validate_json(text).key_file)
    except ValidationError as error:
        raise ConfigError(
            "a run's file cannot be read",
            where=path / ENCRYPTION,
            got="something else",
            expected="the path of a key file, as `gmmas run` writes it",
            remedy="resume the run, which writes it anew",
        ) from error


def note_encryption(path: Path, encryption: EncryptionConfig | None) -> None:
    """Write down how the checkpoints of a run are to lie on the disk, as coordinator.yaml has it now.

    Raises:
        TrustError: the key file cannot be used.
    """
    if encryption is None:
        (path / ENCRYPTION).unlink(missing_ok=True)
        return
    KeyRing.read(encryption.key_file)
    write_atomic(path / ENCRYPTION, encryption.model_dump_json().encode() + b"\n")
