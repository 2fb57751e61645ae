import pytest
from pydantic import ValidationError

from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.messages import Action, Notice, SiteDescription, TaskRequest
from gmmas_schema.model import ModelDefinition
from gmmas_schema.vocabulary import Task


def test_a_notice_is_one_printable_line():
    for reason in ("two\nlines", "\x1b[31mred", "x" * 301):
        with pytest.raises(ValidationError):
            Notice(round=1, code=ReasonCode.REPLY_REFUSED, reason=reason)


def test_an_error_of_any_text_becomes_a_notice():
    error = ProtocolError("refused\nfor \x1b[31m its form", where="site a", got="y" * 400, expected="a\tb")
    notice = Notice(round=1, code=error.code, reason=error.brief())
    assert notice.reason.startswith("refused for [31m its form; got yyy")
    assert len(notice.reason) == 300
    assert ProtocolError("short", got=1, expected=2).brief() == "short; got 1; expected 2"


def test_what_is_asked_of_all_sites_does_not_depend_on_what_one_is_told():
    request = TaskRequest(action=Action.TRAIN, run="r", round=4, rounds=9, seed=0, model=ModelDefinition())
    told = request.model_copy(update={"counted": 2, "notice": Notice(round=3, code=ReasonCode.REPLY_REFUSED)})
    assert told.subject() == request.subject()
    assert told.digest() != request.digest()


@pytest.mark.parametrize("missing", ["cases", "labelled"])
def test_a_description_tells_its_counts(missing: str) -> None:
    fields = {"site": "s", "model_digest": "d", "software": "t", "modalities": ["t1"], "cases": 3, "labelled": {"idh": 2}}
    assert SiteDescription.model_validate(fields).telling(Task.IDH) == 2
    with pytest.raises(ValidationError):
        SiteDescription.model_validate({name: value for name, value in fields.items() if name != missing})
