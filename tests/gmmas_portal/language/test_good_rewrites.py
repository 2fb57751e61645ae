"""How many good rewrites are refused: the price of the verifier. docs/gmmas-gpt.md tells the number."""

from pathlib import Path
from typing import Any

import yaml

from gmmas_portal.language.rewriting import rewrite_report
from gmmas_portal.reports.report import Wording
from tests.gmmas_portal.language.fake_model import FakeModel, as_given
from tests.gmmas_portal.sample_case import sample_report

GOOD: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "good_rewrites.yaml").read_text(encoding="utf-8"))
REPORT = sample_report()
REFUSED = 20
"""Of the GOOD ones; the number in docs/gmmas-gpt.md."""


def test_refused_good_rewrites_are_as_many_as_documented(fake_model: FakeModel) -> None:
    refused = []
    for good in GOOD:
        fake_model.answer(as_given(REPORT.sentences, **{good["of"].replace(".", "__"): {"text": good["text"]}}))
        report = rewrite_report(REPORT, fake_model.endpoint(), on_call=fake_model.calls.append)
        if report.wording is not Wording.LANGUAGE_MODEL:
            assert fake_model.calls[-1].faults
            refused.append((good["text"], fake_model.calls[-1].faults))
    assert len(GOOD) == 50
    assert len(refused) == REFUSED, refused
