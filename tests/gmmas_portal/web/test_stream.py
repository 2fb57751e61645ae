"""The progress of a job as server-sent events."""

import json
import threading
from typing import Any

import pytest

from gmmas_portal.web import stream
from gmmas_portal.web.accounts import Role
from gmmas_portal.web.jobs import JobKind
from gmmas_portal.web.stream import MOST_STREAMS, tell_job
from tests.gmmas_portal.web.conftest import PortalUnderTest


def messages(text: str) -> list[tuple[str, dict[str, Any]]]:
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.strip().split("\n\n")]
    return [(block["event"], json.loads(block["data"])) for block in blocks if "event" in block]


def test_a_page_is_told_of_every_step_until_the_job_is_over(site: PortalUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LOOK_S", 0.01)
    jobs = site.desk.jobs
    jobs.add(JobKind.ANALYSE, site.key, asked_by="anna")
    seen, real = threading.Event(), jobs.latest
    steps = iter(["take", "tell", "tell again", "finish"])

    def latest(subject: str) -> Any:
        """Go one step further with every look of the stream, so that nothing depends on time."""
        match next(steps, ""):
            case "take":
                jobs.take()
            case "tell":
                jobs.tell(real(subject), "predicting", 1, 4)
            case "finish":
                jobs.finish(real(subject))
                seen.set()
        return real(subject)

    monkeypatch.setattr(jobs, "latest", latest)
    answer = site.client(Role.CLINICIAN).get(f"/cases/{site.key}/part/stream")
    assert seen.is_set()
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = messages(answer.text)
    assert [(event, data["state"], data["text"], data["share"]) for event, data in told] == [
        ("progress", "running", "begins", 0.0),
        ("progress", "running", "predicting", 0.25),
        ("over", "done", "predicting", 0.25),
    ]
    assert site.desk.streams == set()


def test_a_failure_is_told_in_words_without_a_place(site: PortalUnderTest) -> None:
    jobs = site.desk.jobs
    jobs.add(JobKind.ANALYSE, site.key, asked_by="anna")
    job = jobs.take()
    assert job is not None
    jobs.fail(job, RuntimeError("/srv/Jane Doe"))
    ((event, data),) = messages(site.client(Role.CLINICIAN).get(f"/cases/{site.key}/part/stream").text)
    assert (event, data["state"], data["text"]) == ("over", "failed", "the software failed")
    assert tell_job(None)["state"] == "done"


def test_what_waits_says_for_how_many(site: PortalUnderTest) -> None:
    for subject in ("a", "b", "c"):
        site.desk.jobs.add(JobKind.ANALYSE, subject, asked_by="anna")
    texts = [tell_job(site.desk.jobs.latest(subject))["text"] for subject in ("a", "b", "c")]
    assert texts == ["waits for the worker", "waits for 1 other", "waits for 2 others"]


def test_streams_end_with_the_server_and_are_not_without_number(site: PortalUnderTest) -> None:
    site.desk.jobs.add(JobKind.ANALYSE, site.key, asked_by="anna")
    client = site.client(Role.CLINICIAN)
    site.desk.closing.set()
    assert messages(client.get(f"/cases/{site.key}/part/stream").text) == []
    site.desk.streams.update(range(MOST_STREAMS))
    assert client.get(f"/cases/{site.key}/part/stream").status_code == 503
    assert client.get("/cases/0000000000000000/part/stream").status_code == 404
