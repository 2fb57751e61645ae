"""One fake language model for the tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.gmmas_portal.language.fake_model import FakeModel, run_fake_model


@pytest.fixture(scope="session")
def served_model() -> Iterator[FakeModel]:
    with run_fake_model() as model:
        yield model


@pytest.fixture
def fake_model(served_model: FakeModel) -> FakeModel:
    for record in (served_model.requests, served_model.headers, served_model.paths, served_model.calls):
        record.clear()
    served_model.answer("{}")
    return served_model
