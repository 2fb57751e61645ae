"""The coordinator's folder: where everything is, and opening it.

    coordinator.yaml                configuration (gmmas_schema.coordinator)
    authority/authority.pem, .key   certificate authority; the .pem is handed to every hospital, the .key never leaves
    server/server.pem, .key         TLS certificate of this machine
    superexec.secret                proves to the SuperLink that our own executor asks for work
    superlink.db                    Flower's state: enrolled nodes, runs, messages
    flower/                         home of Flower's processes (FLWR_HOME)
    processes.json, logs/           running processes
    operators.db                    who may use the dashboard, and what they did (server.operators)
    runs/, runs.jsonl               runs begun on the dashboard; folders of all runs (server.run_register)

The folder has rights 0700. It can be moved while nothing runs: no absolute path of its own is kept in it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from gmmas_schema.coordinator import CoordinatorDeployment
from gmmas_schema.errors import ConfigError


@dataclass(frozen=True)
class CoordinatorFolder:
    """A coordinator's folder; `path` is absolute."""

    path: Path
    config: CoordinatorDeployment

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a folder that `gmmas server init` made.

        Raises:
            ConfigError: it is none, or coordinator.yaml is wrong.
        """
        path = path.resolve()
        file = path / "coordinator.yaml"
        if not file.is_file():
            raise ConfigError(
                "this is not a coordinator's folder",
                where=path,
                got="no coordinator.yaml in it" if path.is_dir() else "no such folder",
                expected="a folder made by `gmmas server init`",
                remedy=f"make one with `gmmas server init {path}`, or name the right folder",
            )
        return cls(path, CoordinatorDeployment.from_yaml(file))

    @property
    def authority(self) -> Path:
        """Folder of the certificate authority."""
        return self.path / "authority"

    @property
    def authority_certificate(self) -> Path:
        """What a hospital needs to trust this coordinator."""
        return self.authority / "authority.pem"

    @property
    def server(self) -> Path:
        """Folder of the TLS certificate."""
        return self.path / "server"

    @property
    def secret(self) -> Path:
        """Secret shared by SuperLink and executor."""
        return self.path / "superexec.secret"

    @property
    def database(self) -> Path:
        """Flower's state."""
        return self.path / "superlink.db"

    @property
    def flower_home(self) -> Path:
        """FLWR_HOME of the resident processes."""
        return self.path / "flower"

    @property
    def operators(self) -> Path:
        """Operators, their sessions and what they did."""
        return self.path / "operators.db"

    @property
    def runs(self) -> Path:
        """Runs that were begun on the dashboard."""
        return self.path / "runs"

    @property
    def logs(self) -> Path:
        """Logs of the resident processes."""
        return self.path / "logs"

    @property
    def state_file(self) -> Path:
        """State of the supervisor."""
        return self.path / "processes.json"
