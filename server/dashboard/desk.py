"""What the dashboard knows: the runs of a coordinator, and the hospitals' connections. Each page asks here."""

import threading

from gmmas_schema.coordinator import DashboardConfig
from gmmas_schema.errors import ConfigError, FederationError, GmmasError, TrustError
from server.checkpoint import RunFolder
from server.dashboard.watched_run import ASK_EVERY_S, Asked, WatchedRun
from server.enrolment import Connection, NodeStatus, list_nodes
from server.folder import CoordinatorFolder
from server.run_register import known_runs


class NoSuchRunError(ConfigError):
    """Somebody asked for a run that this coordinator does not know."""


class Desk:
    """What the dashboard of one coordinator knows.

    Args:
        folder: the coordinator's.
        config: of the dashboard.
    """

    def __init__(self, folder: CoordinatorFolder, config: DashboardConfig) -> None:
        self.folder, self.config = folder, config
        self._runs: dict[str, WatchedRun] = {}
        self._lock = threading.Lock()
        self._nodes = Asked(self._ask_nodes, for_s=ASK_EVERY_S)

    def runs(self) -> list[WatchedRun]:
        """Return all runs that can be read, the newest first, each with its outline."""
        found = []
        for key in reversed(known_runs(self.folder)):
            try:
                found.append(self.outline(key))
            except GmmasError:
                continue
        return found

    def run(self, key: str) -> WatchedRun:
        """Return one run with its newest events.

        Raises:
            NoSuchRunError: there is none of this key.
            ConfigError: it cannot be read.
        """
        run = self.outline(key)
        run.look()
        return run

    def outline(self, key: str) -> WatchedRun:
        """Return one run with the newest events of its outline.

        Raises:
            NoSuchRunError: there is none of this key.
            ConfigError: it cannot be read.
        """
        path = known_runs(self.folder).get(key)
        if path is None:
            raise NoSuchRunError(
                "there is no such run",
                where=self.folder.path,
                got=key,
                expected="a run of this coordinator",
                remedy="choose one from the list of runs",
            )
        with self._lock:
            run = self._runs.get(key)
            if run is None or run.is_replaced:
                run = self._runs[key] = WatchedRun(key, path, RunFolder.open(path).config)
        run.refresh()
        return run

    def nodes(self) -> tuple[NodeStatus, ...] | None:
        """Return the enrolled hospitals; None while the coordinator does not answer."""
        return self._nodes.get()

    def connections(self) -> dict[str, NodeStatus]:
        """Return the connection of each hospital that is not revoked, by name."""
        return {node.name: node for node in self.nodes() or () if node.connection is not Connection.UNREGISTERED}

    def _ask_nodes(self) -> tuple[NodeStatus, ...] | None:
        try:
            return list_nodes(self.folder.path)
        except (FederationError, TrustError):
            return None
