import pytest
from pydantic import ValidationError

from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.messages import Notice


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
