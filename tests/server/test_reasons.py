from gmmas_schema.errors import ReasonCode
from server.reasons import REASONS, reason_of


def test_every_code_has_words_of_its_own() -> None:
    assert set(REASONS) == set(ReasonCode)
    for code in ReasonCode:
        reason = reason_of(code)
        assert reason.meaning[0].islower()
        assert reason.meaning[-1] != "."
        assert reason.remedy.endswith((".", ")"))
