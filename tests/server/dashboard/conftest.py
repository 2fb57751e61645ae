"""A coordinator's folder with one run in it, its dashboard, and an operator of each role."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI

from gmmas_schema.coordinator import DashboardConfig
from gmmas_schema.federation import FederationConfig
from server.checkpoint import RunFolder
from server.dashboard.app import make_app
from server.deployment import init_coordinator
from server.events import EventLog
from server.folder import CoordinatorFolder
from server.operators import OperatorStore, Role
from server.run_register import note_run, run_key
from tests.gmmas_cli.events import whole_run
from tests.server.ports import free_port

ADDRESS = "http://127.0.0.1:9093"


class Browser:
    """Asks an application without a server, keeps its cookies and follows no redirect."""

    def __init__(self, app: FastAPI, portal: BlockingPortal, *, base_url: str = ADDRESS) -> None:
        self._portal = portal
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=base_url, follow_redirects=False)
        self.headers, self.cookies = self._client.headers, self._client.cookies

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._portal.call(partial(self._client.request, method, path, **options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)


@dataclass
class DeskUnderTest:
    """A dashboard without a server: requests reach the application directly."""

    folder: CoordinatorFolder
    app: FastAPI
    store: OperatorStore
    tokens: dict[Role, str]
    run_dir: Path
    portal: BlockingPortal

    @property
    def key(self) -> str:
        return run_key(self.run_dir)

    def client(self, role: Role | None = None, *, bearer: bool = False) -> Browser:
        """Return a browser with a session, or a program with a token; without a role, a stranger."""
        client = Browser(self.app, self.portal)
        if role is None:
            return client
        if bearer:
            client.headers["Authorization"] = f"Bearer {self.tokens[role]}"
            return client
        (operator,) = [each for each in self.store.operators() if each.role is role]
        client.cookies.set("gmmas_session_9093", self.store.open_session(operator))
        return client

    def csrf(self, client: Browser) -> str:
        """Return the secret of this browser's forms, from a page."""
        return client.get("/").text.partition('name="csrf" value="')[2].partition('"')[0]


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> CoordinatorFolder:
    return init_coordinator(tmp_path_factory.mktemp("dashboard") / "coordinator", port=free_port(), dashboard_port=9093)


@pytest.fixture(scope="package")
def operators(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[Role, str]]:
    """Make the operators once, since hashing is meant to take its time: the file, and their tokens."""
    path = tmp_path_factory.mktemp("operators") / "operators.db"
    tokens = {role: OperatorStore(path).add(f"{role}-one", role) for role in Role}
    return path.read_bytes(), tokens


@pytest.fixture
def desk(folder: CoordinatorFolder, operators: tuple[bytes, dict[Role, str]], tmp_path: Path) -> Iterator[DeskUnderTest]:
    (folder.path / "runs.jsonl").unlink(missing_ok=True)
    content, tokens = operators
    folder.operators.write_bytes(content)
    run_dir = tmp_path / "run"
    RunFolder.create(run_dir, FederationConfig(name="demo", rounds=3))
    log = EventLog(run_dir / "events.db")
    for event in whole_run():
        log.append(event)
    log.close()
    note_run(folder, run_dir)
    store = OperatorStore(folder.operators)
    with start_blocking_portal() as portal:
        yield DeskUnderTest(folder, make_app(folder, DashboardConfig()), store, tokens, run_dir, portal)
