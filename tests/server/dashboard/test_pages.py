"""What stands on the pages, and what must not."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from gmmas_runtime.files import sha256_file
from gmmas_schema.errors import FederationError, ReasonCode
from gmmas_schema.events import Event, EventKind
from gmmas_schema.federation import FederationConfig
from gmmas_schema.messages import Evaluation, Interval
from gmmas_schema.vocabulary import Region, Split
from server import launching
from server.checkpoint import RunFolder
from server.dashboard.app import STATIC
from server.dashboard.figures import KINDS, feed_line
from server.enrolment import Connection, NodeStatus
from server.events import EventLog
from server.operators import Role
from server.records import Outcome, RoundRecord, SiteRecord
from server.run_register import run_key
from tests.gmmas_cli.events import event, finished
from tests.server.dashboard.conftest import DeskUnderTest
from tests.server.dashboard.page import Page, page

HOSTILE: Final = "<img src=x onerror=alert(1)>\"'&{{7777*7777}}"


def append(desk: DeskUnderTest, *events: Event) -> None:
    log = EventLog(desk.run_dir / "events.db")
    for each in events:
        log.append(each)
    log.close()


PAGES: Final = ("/", "/sites", "/runs/{key}", "/runs/{key}/costs", "/start", "/operators", "/login")


@pytest.mark.parametrize("path", PAGES)
def test_pages_can_be_used_without_eyes_or_mouse(desk: DeskUnderTest, path: str) -> None:
    shown = page(desk, path.replace("{key}", desk.key))
    assert shown.all("html")[0]["lang"] == "en"
    assert shown.all("title")
    assert len(shown.all("h1")) == len(shown.all("main")) == 1
    assert shown.all("a")[0]["href"] == "#main", "the first link skips to the content"
    ids = [attributes["id"] for _, attributes in shown.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in shown.tags:
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert attributes.get(name) is None or attributes[name] in ids, attributes
    labelled = {attributes.get("for") for attributes in shown.all("label")}
    for field in shown.all("input") + shown.all("textarea"):
        assert field.get("type") == "hidden" or field["id"] in labelled
    assert all("scope" in attributes for attributes in shown.all("th"))
    assert all(attributes.get("aria-label") for attributes in shown.all("progress"))


@pytest.mark.parametrize("path", PAGES)
def test_pages_hold_no_script_no_style_and_nothing_foreign(desk: DeskUnderTest, path: str) -> None:
    shown = page(desk, path.replace("{key}", desk.key))
    assert not shown.all("style")
    for tag, attributes in shown.tags:
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith(("on", "hx-on"))], attributes
        for name in ("src", "href", "action", "hx-get", "hx-post"):
            assert (attributes.get(name) or "/").startswith(("/", "#")), (tag, attributes)
        assert tag != "script" or (attributes.get("src") or "").startswith("/static/")


def test_the_run_is_told(desk: DeskUnderTest) -> None:
    with RunFolder.open(desk.run_dir).hold():
        text = page(desk, f"/runs/{desk.key}").text
    for told in (
        "round 2 of 3",
        "at work",
        "about 20 s left",
        "north",
        "east",
        "E_DEADLINE",
        "no answer came in time",
        "round_deadline_s",
        "round finished",
        "t1, t1ce",
    ):
        assert told in text, told
    desk.app.state.desk.run(desk.key).forget()
    listed = page(desk, "/").text
    assert "stopped" in listed
    assert "Dice WT 0.600 TC 0.300" in listed


def test_of_a_run_that_nothing_works_on_no_hospital_is_said_to_train(desk: DeskUnderTest) -> None:
    append(desk, event(EventKind.ROUND_STARTED, 50, number=3, attempt=1, sites=["north"]))
    with RunFolder.open(desk.run_dir).hold():
        assert 'class="stage training">training<' in desk.client(Role.RESEARCHER).get(f"/runs/{desk.key}").text
    desk.app.state.desk.run(desk.key).forget()
    html = desk.client(Role.RESEARCHER).get(f"/runs/{desk.key}").text
    assert "when it stopped: round 3: hospitals train" in html
    assert ">was training<" in html
    assert 'class="stage training"' not in html


def test_curves_skip_what_was_not_measured(desk: DeskUnderTest) -> None:
    told = desk.client(Role.RESEARCHER).get(f"/runs/{desk.key}/part/curves").json()
    assert told == {"round": [0, 1], "dice": {"WT": [0.1, 0.6], "TC": [0.05, 0.3]}, "auc": {"IDH": [0.5, 0.8]}}


def test_every_kind_of_event_has_a_line_even_bare(desk: DeskUnderTest) -> None:
    """And one that carries everything shows nothing of its detail but what is no count."""
    full = {"cases": 31337, "labelled": {"idh": 31337}, "sites": ["north"], "seconds": 3, "round_trip_s": 2.0, "joined": 1, "needed": 2}
    for kind in EventKind:
        assert KINDS[kind]
        line = feed_line(1, event(kind, 1, number=2, site="north", **full))
        assert "31337" not in str(line)
        append(desk, event(kind, 100, number=1, site="north"))
    for path in (f"/runs/{desk.key}", f"/runs/{desk.key}/costs", "/"):
        page(desk, path)


def test_new_events_are_taken_into_account_once(desk: DeskUnderTest) -> None:
    client = desk.client(Role.RESEARCHER)
    before = client.get(f"/api/runs/{desk.key}").json()
    append(desk, event(EventKind.ROUND_STARTED, 50, number=3, attempt=1, sites=["north"]))
    for _ in range(2):
        after = client.get(f"/api/runs/{desk.key}").json()
    assert (before["sites"]["north"]["state"], after["sites"]["north"]["state"]) == ("done", "training")
    assert before["sites"]["north"]["bytes_up"] == after["sites"]["north"]["bytes_up"] == 7_000_000
    (trouble,) = after["troubles"]
    assert (trouble["site"], trouble["code"], trouble["count"]) == ("east", "E_DEADLINE", 1)
    events = client.get(f"/api/runs/{desk.key}/events", params={"after": 12}).json()
    assert [(each["number"], each["round"]) for each in events] == [(13, 3)]
    assert len(client.get(f"/api/runs/{desk.key}/events", params={"most": 2}).json()) == 2
    assert client.get(f"/api/runs/{desk.key}/events", params={"after": -1}).status_code == 422


def test_what_hospitals_say_is_text(desk: DeskUnderTest) -> None:
    append(
        desk,
        event(EventKind.SITE_JOINED, 60, site=HOSTILE, modalities=[HOSTILE, "t1"], cases=30, labelled={}, software=HOSTILE),
        event(EventKind.REPLY_REFUSED, 61, number=2, site=HOSTILE, code=ReasonCode.REPLY_REFUSED, message=HOSTILE),
        event(EventKind.ROUND_FAILED, 62, number=3, code=ReasonCode.QUORUM, message=HOSTILE),
    )
    for path in ("/", f"/runs/{desk.key}", f"/runs/{desk.key}/part/now", f"/runs/{desk.key}/costs"):
        shown = page(desk, path)
        assert not shown.all("img")
        assert "60481729" not in shown.text, "a template inside what a hospital says"
    assert HOSTILE in page(desk, f"/runs/{desk.key}").text.replace("\n", " ")


def test_small_counts_are_on_no_page_and_in_no_answer(desk: DeskUnderTest) -> None:
    """Seven cases at a hospital: neither they nor what they could be subtracted from."""
    marked = event(EventKind.SITE_JOINED, 60, site="small", modalities=["t1"], cases=7777, labelled={"segmentation": 7, "idh": 8888})
    append(desk, marked, event(EventKind.SITE_JOINED, 61, site="tiny", modalities=["flair"], cases=3, labelled={"segmentation": 3}))
    client = desk.client(Role.COORDINATOR)
    rows = client.get(f"/runs/{desk.key}/part/rounds").text
    assert "withheld (" in rows
    for path in (f"/runs/{desk.key}", f"/api/runs/{desk.key}", f"/api/runs/{desk.key}/events", f"/runs/{desk.key}/costs"):
        told = client.get(path).text
        assert "labelled" not in told.replace("labelledby", "")
        assert '"cases"' not in told
        assert not {">7<", ">8888<", ">7777<"} & set(re.findall(r">\d+<", told))


def test_each_hospital_stands_beside_all_of_them(desk: DeskUnderTest) -> None:
    def evaluated(dice: float, cases: int) -> Evaluation:
        return Evaluation(split=Split.VALIDATION, cases=cases, dice={Region.WT: Interval(value=dice, low=0, high=1, n=cases)})

    record = RoundRecord(
        run="r", round=3, rounds=3, started_at=0, seconds=1, model_sha256="", peak_memory_mib=0, attempt=1,
        sites=tuple(
            SiteRecord(site=name, node="1", outcome=Outcome.ACCEPTED, norms={"decoder": length}, evaluation=evaluated(dice, cases))
            for name, dice, cases, length in (("north", 0.62, 20, 1.0), ("east", 0.31, 5, 4.0), ("south", 0.59, 20, 1.1))
        ),
    )  # fmt: skip
    log = EventLog(desk.run_dir / "events.db")
    log.append(finished(3, 90.0, dice_wt=0.6, dice_tc=0.3, auc_idh=0.8))
    log.close()
    for number in (1, 2, 3):  # one or two odd rounds may be chance
        (desk.run_dir / "rounds" / f"{number:04d}").mkdir(parents=True)
        kept = record.model_copy(update={"round": number}).model_dump_json()
        (desk.run_dir / "rounds" / f"{number:04d}" / "round.json").write_text(kept)
    html = desk.client(Role.RESEARCHER).get(f"/runs/{desk.key}/part/rounds").text
    text = " ".join(Page(html).text.split())
    assert "all hospitals 0.600 0.300 0.800" in text
    assert "east 0.310 ▼0.29 few" in text
    assert "north 0.620 south" in text
    assert "its updates are 3.6 times as long as the others'" in text


def test_a_hospital_that_was_out_stands_not_with_an_older_model(desk: DeskUnderTest) -> None:
    """East measured the start and was out since: its 0.1 says nothing beside the newest model's 0.6."""
    for number, dice in ((1, {"north": 0.12, "east": 0.1}), (2, {"north": 0.62})):
        sites = tuple(
            SiteRecord(
                site=name, node="1", outcome=Outcome.ACCEPTED,
                evaluation=Evaluation(split=Split.VALIDATION, cases=20, dice={Region.WT: Interval(value=value, low=0, high=1, n=20)}),
            )
            for name, value in dice.items()
        )  # fmt: skip
        record = RoundRecord(
            run="r", round=number, rounds=3, started_at=0, seconds=1, model_sha256="", peak_memory_mib=0, attempt=1, sites=sites
        )
        (desk.run_dir / "rounds" / f"{number:04d}").mkdir(parents=True)
        (desk.run_dir / "rounds" / f"{number:04d}" / "round.json").write_text(record.model_dump_json())
    client = desk.client(Role.RESEARCHER)
    html = client.get(f"/runs/{desk.key}/part/rounds").text
    (rows,) = re.findall(r"accuracy-title.*?</section>", html, re.DOTALL)
    assert "Validation of the model of round 1" in rows
    assert "north" in rows
    assert "east" not in rows
    (drifts,) = re.findall(r"drift-title.*?</section>", html, re.DOTALL)
    assert "<td>none</td>" not in drifts, "of two hospitals nothing can be compared, which is not the same as nothing found"
    assert client.get(f"/api/runs/{desk.key}").json()["sites"]["east"]["dice"] == {"wt": 0.1}


def test_connections_are_told_in_the_same_words_everywhere(desk: DeskUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """North was enrolled with a new key and has not come back yet."""
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    nodes = [
        NodeStatus("north", "1", Connection.UNREGISTERED, "a" * 64, moment, moment),
        NodeStatus("north", "2", Connection.REGISTERED, "b" * 64, moment, None),
        NodeStatus("east", "3", Connection.ONLINE, "c" * 64, moment, moment),
    ]
    monkeypatch.setattr("server.dashboard.desk.list_nodes", lambda _folder: tuple(nodes))
    listed, told = page(desk, "/sites").text, page(desk, f"/runs/{desk.key}").text
    assert all(words in listed for words in ("revoked", "never connected", "online"))
    assert "never connected" in told
    assert "online" in told
    assert not [words for words in ("registered", "revoked") if words in told], "the key that is in force counts"
    sites = desk.client(Role.RESEARCHER, bearer=True).get("/api/sites").json()
    assert [site["connection"] for site in sites] == ["unregistered", "registered", "online"]


def test_hidden_updates_are_said_to_be_hidden(desk: DeskUnderTest, tmp_path: Path) -> None:
    config = FederationConfig.model_validate(
        {"name": "unseen", "secure": {}, "quorum": {"sites": 3, "replies": 3}, "robustness": {"norm_limit": None}}
    )
    RunFolder.create(desk.folder.runs / "unseen", config)
    try:
        text = page(desk, f"/runs/{run_key(desk.folder.runs / 'unseen')}").text
        assert "No hospital's update is known here (secure aggregation)" in " ".join(text.split())
        assert "nothing has happened yet" in text
    finally:
        for file in (desk.folder.runs / "unseen").iterdir():
            file.unlink()
        (desk.folder.runs / "unseen").rmdir()


def test_without_a_run_the_way_to_one_is_told(desk: DeskUnderTest) -> None:
    (desk.folder.path / "runs.jsonl").unlink()
    for role in Role:
        text = page(desk, "/", role).text
        assert "gmmas server enrol" in text
        assert str(desk.folder.path / "authority" / "authority.pem") in text
        assert ("New run" in text) is (role is Role.COORDINATOR)


@pytest.mark.parametrize("key", ["absent-00000000", "..%2f..", "%2e%2e%2fetc", "x" * 300])
def test_no_other_folder_can_be_asked_for(desk: DeskUnderTest, key: str) -> None:
    assert desk.client(Role.COORDINATOR).get(f"/runs/{key}").status_code == 404
    assert desk.client(Role.COORDINATOR).get(f"/api/runs/{key}").status_code == 404


def test_a_damaged_run_hides_no_other(desk: DeskUnderTest, tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "second", FederationConfig(name="second"))
    from server.run_register import note_run

    note_run(desk.folder, tmp_path / "second")
    (desk.run_dir / "federation.json").write_text("{")
    names = [run["name"] for run in desk.client(Role.RESEARCHER).get("/api/runs").json()]
    assert names == ["second"]


def test_a_number_beyond_all_events_is_refused(desk: DeskUnderTest) -> None:
    program = desk.client(Role.RESEARCHER, bearer=True)
    for number, status in ((2**63 - 1, 200), (2**63, 422), ("9" * 5000, 422)):
        assert program.get(f"/api/runs/{desk.key}/events?after={number}").status_code == status
    assert program.get(f"/runs/{desk.key}/part/stream?after={2**63}").status_code == 422


@pytest.mark.parametrize("uri", ["https://anna:hunter2@mlflow.example.org/store", "postgresql://anna:hunter2@db.example.org/mlflow"])
def test_the_password_of_a_store_is_on_no_page(desk: DeskUnderTest, uri: str) -> None:
    path = desk.run_dir / "federation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tracking": {"uri": uri}}))
    text = desk.client(Role.RESEARCHER).get(f"/runs/{desk.key}").text
    assert "hunter2" not in text
    assert uri.replace("anna:hunter2@", "") in text


def test_links_lead_into_mlflow(desk: DeskUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (desk.run_dir / "mlflow_run").write_text("abc123")
    text = page(desk, f"/runs/{desk.key}").text
    assert f"mlflow ui --backend-store-uri sqlite:///{desk.run_dir}/mlflow.db" in text
    desk.app.state.desk.config = desk.app.state.desk.config.model_copy(update={"mlflow": "http://127.0.0.1:5000/"})
    html = desk.client(Role.RESEARCHER).get(f"/runs/{desk.key}").text
    assert 'href="http://127.0.0.1:5000/#/runs/abc123"' in html


def test_libraries_are_those_that_were_published() -> None:
    lines = (STATIC / "vendor" / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split() for line in lines)}
    assert {name: sha256_file(STATIC / "vendor" / name) for name in listed} == listed
    others = {path.name for path in (STATIC / "vendor").iterdir()} - set(listed)
    assert others == {"README.md", "SHA256SUMS"}


def test_a_coordinator_that_does_not_answer_is_said_so(desk: DeskUnderTest) -> None:
    assert "does not answer" in page(desk, "/sites").text
    assert desk.client(Role.RESEARCHER).get("/api/sites").json() is None
    with pytest.raises(FederationError):
        launching.check_server(desk.folder.path)
