"""What lies where in a node's state folder; every process of the node finds the others by this page.

<state>/trainer.sock      the trainer's Unix socket, rights 0600
<state>/cache/            preprocessed cases
<state>/training/         what is carried from round to round (gmmas_workflows.site_state)
<state>/flower/           FLWR_HOME of SuperNode and executor
<state>/loopback/         TLS between SuperNode and executor, and the secret they share
<state>/logs/             one file per process; patient identifiers and paths may stand there, so they never leave the site
<state>/trainer-fault.json   why the trainer cannot start, if so
<state>/audit-log/        the record of requests and answers (client.audit_log)
<state>/paused            who paused the site, when and why; gone when it takes part
<state>/overrides.json    leave to pass a check of the policy for a while
<state>/trainer.lock      held by the running trainer
<state>/node.json         what the supervisor knows (gmmas_runtime.process_state)
"""

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gmmas_runtime.file_locks import try_lock
from gmmas_runtime.files import make_private_folder, write_atomic
from gmmas_schema.errors import ConfigError, FederationError, GmmasError, ReasonCode, TrustError

SOCKET_PATH_BYTES = 107
"""Longest path of a Unix socket on Linux: 108 bytes with the closing NUL (man 7 unix)."""


@dataclass(frozen=True)
class NodeFolder:
    """The state folder of one node."""

    root: Path

    @property
    def socket(self) -> Path:
        """Path of the trainer's socket; under the temporary folder if the state folder's name is too long for a socket."""
        path = self.root.absolute() / "trainer.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
            return path
        name = hashlib.sha256(os.fsencode(self.root.resolve())).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"gmmas-{os.getuid()}-{name}" / "trainer.sock"

    @property
    def cache(self) -> Path:
        """Folder of preprocessed cases."""
        return self.root / "cache"

    @property
    def training(self) -> Path:
        """Folder of what is carried from round to round."""
        return self.root.absolute() / "training"

    @property
    def flower(self) -> Path:
        """FLWR_HOME of the node's Flower processes."""
        return self.root.absolute() / "flower"

    @property
    def loopback(self) -> Path:
        """Folder of the TLS files and the secret between SuperNode and executor."""
        return self.root.absolute() / "loopback"

    @property
    def secret(self) -> Path:
        """Secret that the executor shows to the SuperNode."""
        return self.loopback / "superexec.secret"

    @property
    def fault(self) -> Path:
        """The error for which the trainer cannot start."""
        return self.root / "trainer-fault.json"

    @property
    def paused(self) -> Path:
        """File that is there while the site is paused."""
        return self.root / "paused"

    @property
    def audit_log(self) -> Path:
        """Folder of the record of requests and answers."""
        return self.root.absolute() / "audit-log"

    @property
    def overrides(self) -> Path:
        """Leave to pass checks of the policy."""
        return self.root.absolute() / "overrides.json"

    @property
    def state_file(self) -> Path:
        """What the supervisor tells other processes."""
        return self.root.absolute() / "node.json"

    def log(self, process: str) -> Path:
        """Log file of one process."""
        return self.root.absolute() / "logs" / f"{process}.log"

    def make(self) -> None:
        """Make the folders, with rights 0700.

        Raises:
            ConfigError: the place is not writable.
            TrustError: the socket's folder belongs to somebody else.
        """
        try:
            for folder in (self.root, self.cache, self.flower, self.loopback, self.log("trainer").parent):
                make_private_folder(folder)
        except OSError as error:
            raise ConfigError(
                "the state folder cannot be made",
                where=error.filename or self.root,
                got=error.strerror or type(error).__name__,
                expected="a folder this user may write to",
                remedy="mend node.state in site.yaml, or the rights of the folder above it",
            ) from error
        if self.socket.parent != self.root.absolute():
            _make_own_folder(self.socket.parent)

    def write_fault(self, error: GmmasError) -> None:
        """Leave the error for which the trainer cannot start to the supervisor."""
        fields = {"what": error.what, "where": error.where, "got": error.got, "expected": error.expected, "remedy": error.remedy}
        write_atomic(self.fault, json.dumps({"code": error.code, **fields}).encode())

    def read_fault(self) -> GmmasError | None:
        """Return the error for which the trainer cannot start, if there is one."""
        try:
            fields = json.loads(self.fault.read_bytes())
        except FileNotFoundError:
            return None
        return GmmasError(fields.pop("what"), code=ReasonCode(fields.pop("code")), **fields)

    def clear_fault(self) -> None:
        """Forget the error of an earlier start."""
        self.fault.unlink(missing_ok=True)

    @contextmanager
    def held_by_trainer(self) -> Iterator[None]:
        """Hold the folder for one trainer, for a second would take over its socket; the lock ends with the process.

        Raises:
            FederationError: another process holds it.
        """
        descriptor = os.open(self.root / "trainer.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not try_lock(descriptor):
                raise FederationError(
                    "a trainer is already running in this state folder",
                    where=self.root,
                    got=f"process {os.read(descriptor, 32).decode() or 'unknown'}",
                    expected="one trainer per state folder",
                    remedy="`gmmas site status` shows it, `gmmas site stop` ends it",
                )
            os.truncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            yield
        finally:
            os.close(descriptor)


def _make_own_folder(path: Path) -> None:
    """Make a private folder in a place others may write to, and refuse one that somebody else has put there."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise TrustError(
            "the folder for the trainer's socket is not safe",
            where=path,
            got=f"owner {found.st_uid}, mode {stat.filemode(found.st_mode)}",
            expected=f"a folder of user {os.getuid()} with rights 0700",
            remedy="give node.state a path of at most 90 characters, or have the folder removed",
        )
