"""A report in a language model's words on its way through the pages: shown, signed as it was shown, and marked."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from gmmas_portal.reports.report import Audience, Report, Wording
from gmmas_portal.web.accounts import Role
from gmmas_portal.web.app import make_app
from gmmas_portal.web.craft import write_reports
from gmmas_portal.web.settings import PortalFolder
from gmmas_portal.web.worker import Worker
from tests.gmmas_portal.language.fake_model import FakeModel, as_given, run_fake_model
from tests.gmmas_portal.web.conftest import HASHER, PortalUnderTest
from tests.gmmas_portal.web.test_reports import digest_on

GOOD = "The measured volumes are {{volume.wt}}, {{volume.tc}} and {{volume.et}}."
BAD = "The tumour has grown: {{volume.wt}}, {{volume.tc}} and {{volume.et}}."


@pytest.fixture
def model() -> Iterator[FakeModel]:
    with run_fake_model() as running:
        yield running


@pytest.fixture
def speaking(site: PortalUnderTest, model: FakeModel) -> PortalUnderTest:
    """The platform with a language model."""
    config = site.folder.config.model_copy(update={"language": model.endpoint().settings})
    site.folder = PortalFolder.make(site.folder.path, config)
    site.app = make_app(site.folder, hasher=HASHER)
    return site


def templates(site: PortalUnderTest) -> dict[Audience, Report]:
    version = site.desk.cases.version(site.key)
    return write_reports(version.record, folder=site.folder.path / "nowhere", on=datetime.now(UTC).date())


@pytest.mark.parametrize(("text", "passes"), [(GOOD, True), (BAD, False)])
def test_only_what_the_verifier_passes_reaches_a_page_and_a_signature(
    speaking: PortalUnderTest, model: FakeModel, text: str, passes: bool
) -> None:
    site, plain = speaking, templates(speaking)
    clinician = as_given(plain[Audience.CLINICIAN].sentences, measures__volumes={"text": text})
    patient = as_given(plain[Audience.PATIENT].sentences)
    model.answer(clinician, patient) if passes else model.answer(clinician, clinician, patient, patient)
    doctor, path = site.client(Role.CLINICIAN), f"/cases/{site.key}/report"
    assert "Have it worded anew" in doctor.get(path).text
    before = digest_on(doctor.get(path).text)
    assert site.post(doctor, f"{path}/reword").status_code == 303
    assert Worker(site.folder).do_next()
    page = doctor.get(path).text
    assert ("The measured volumes are a whole-tumour volume of 31.4 ml" in page) is passes
    assert "grown" not in page
    assert site.post(doctor, f"{path}/sign", digest=before, reviewed="yes").status_code == 409, "it reads otherwise now, or is marked"
    if passes:
        assert site.post(doctor, f"{path}/sign", digest=digest_on(page), reviewed="yes").status_code == 303
        report = Report.model_validate_json(site.desk.cases.reports(site.key)[0].clinician)
        assert (report.wording, report.worded_by) == (Wording.LANGUAGE_MODEL, "fake")
    calls = [line for line in site.desk.audit.lines() if line.action.startswith("language model")]
    assert calls
    assert all(len(line.input) == 64 for line in calls)
    assert "31.4" not in str(model.requests), "no value is sent"


def test_without_a_language_model_nothing_is_asked(site: PortalUnderTest) -> None:
    doctor = site.client(Role.CLINICIAN)
    assert "worded anew" not in doctor.get(f"/cases/{site.key}/report").text
    assert site.post(doctor, f"/cases/{site.key}/report/reword").status_code == 409
    assert site.desk.jobs.latest(site.key) is None
