"""What the desk's forms and programs may change, and what becomes of wrong ones."""

import json
from pathlib import Path

import pytest
import yaml

from gmmas_schema.federation import FederationConfig
from server import launching
from server.checkpoint import RunFolder
from server.dashboard import actions
from server.operators import Role
from server.run_register import run_key
from tests.server.dashboard.conftest import DeskUnderTest
from tests.server.dashboard.page import Page, page


def test_buttons_are_for_those_who_may(desk: DeskUnderTest) -> None:
    shown = {role: [form["action"] for form in page(desk, f"/runs/{desk.key}", role).all("form")] for role in Role}
    assert shown == {Role.RESEARCHER: ["/logout"], Role.COORDINATOR: ["/logout", f"/runs/{desk.key}/resume"]}


def test_start_stop_and_resume_are_those_of_the_command_line(desk: DeskUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, Path]] = []

    def start(run_dir: Path, server: Path, config: FederationConfig) -> str:
        done.append((f"start {config.name} {config.rounds}", run_dir))
        return "1"

    monkeypatch.setattr(actions, "start_run", start)
    monkeypatch.setattr(actions, "resume_run", lambda run_dir, server: done.append(("resume", run_dir)))
    monkeypatch.setattr(actions, "stop_submitted_run", lambda run_dir: done.append(("stop", run_dir)))
    assert (actions.start_run.__name__, launching.start_run.__module__) == ("start", "server.launching")
    client = desk.client(Role.COORDINATOR)
    secret = desk.csrf(client)
    answer = client.post("/start", data={"csrf": secret, "folder": "", "text": "name: second\nrounds: 5"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/runs/{run_key(desk.folder.runs / 'second')}")
    for what in ("stop", "resume"):
        assert client.post(f"/runs/{desk.key}/{what}", data={"csrf": secret}).headers["location"] == f"/runs/{desk.key}"
    program = desk.client(Role.COORDINATOR, bearer=True)
    assert program.post("/api/runs", content=json.dumps({"folder": "third", "configuration": ""})).status_code == 201
    assert program.post(f"/api/runs/{desk.key}/resume").status_code == 200
    runs = desk.folder.runs
    steps = [("start second 5", runs / "second"), ("stop", desk.run_dir), ("resume", desk.run_dir), ("start gmmas 20", runs / "third")]
    assert done == [*steps, ("resume", desk.run_dir)]


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"text": "rounds: none"}, "rounds"),
        ({"text": "roundz: 3"}, "unknown key 'roundz'"),
        ({"text": "rounds: [3"}, "not valid YAML"),
        ({"text": "name: 2026-02-30"}, "not valid YAML"),
        ({"text": "rounds: !!timestamp soon"}, "not valid YAML"),
        ({"text": "[" * 3000}, "not valid YAML"),
        ({"text": "rounds: 3", "folder": "../up"}, "not a name for the run's folder"),
        ({"text": "rounds: 3", "folder": "x" * 64}, "not a name for the run's folder"),
        ({"text": "rounds: 3", "folder": "first"}, "does not answer"),
        ({"text": "!!python/object/apply:os.system ['true']"}, "not valid YAML"),
    ],
)
def test_a_wrong_configuration_is_explained_and_kept_in_the_form(desk: DeskUnderTest, form: dict[str, str], told: str) -> None:
    client = desk.client(Role.COORDINATOR)
    answer = client.post("/start", data={"csrf": desk.csrf(client), **form})
    assert answer.status_code == 409
    shown = Page(answer.text)
    assert told in shown.text
    assert form["text"] in shown.text
    assert not (desk.folder.runs / "first").exists()
    assert desk.store.calls()[0].outcome in ("409",)
    assert desk.store.calls()[1].outcome.startswith("failed: E_")
    program = desk.client(Role.COORDINATOR, bearer=True)
    body = json.dumps({"configuration": form["text"], "folder": form.get("folder", "")})
    assert told in str(program.post("/api/runs", content=body).json())


def test_a_run_like_another_has_its_very_configuration(desk: DeskUnderTest) -> None:
    config = RunFolder.open(desk.run_dir).config
    assert FederationConfig.parse(yaml.safe_load(actions.as_yaml(config)), where="test") == config
    text = desk.client(Role.COORDINATOR).get(f"/start?like={desk.key}").text.partition("<textarea")[2]
    assert "channels: [8, 16, 32, 64]" in text
    assert desk.client(Role.COORDINATOR).get("/start?like=absent").status_code == 404


@pytest.mark.parametrize("body", [b"", b"[]", b'{"folder": 3}', b"\xff", b"{", b"[" * 100_000, b'{"folder": "\\ud800"}'])
def test_a_body_that_is_no_request_is_explained(desk: DeskUnderTest, body: bytes) -> None:
    answer = desk.client(Role.COORDINATOR, bearer=True).post("/api/runs", content=body)
    assert (answer.status_code, answer.json()["code"]) == (409, "E_CONFIG")
