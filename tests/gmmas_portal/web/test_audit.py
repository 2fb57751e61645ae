"""The chain of the audit: it grows, it cannot be changed, and a changed one is found."""

import json
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmas_portal.web.audit import NO_LINE, AuditLine, AuditTrail, digest_of
from gmmas_portal.web.tables import Database


@pytest.fixture
def trail(tmp_path: Path) -> AuditTrail:
    trail = AuditTrail(Database(tmp_path / "portal.db"))
    for number in range(5):
        trail.note("analysed", who="anna", subject=f"case-{number}", model="a" * 64, input="b" * 64, output="c" * 64)
    return trail


def test_each_line_names_the_one_before(trail: AuditTrail) -> None:
    lines = trail.lines()[::-1]
    assert [line.n for line in lines] == [1, 2, 3, 4, 5]
    assert lines[0].previous == NO_LINE
    assert [line.previous for line in lines[1:]] == [digest_of(line.encode()) for line in lines[:-1]]
    assert (trail.verify().lines, trail.verify().broken_at, trail.verify().head) == (5, None, digest_of(lines[-1].encode()))
    assert [line.n for line in trail.lines(subject="case-3")] == [4]


def test_nothing_is_changed_or_removed_by_accident(trail: AuditTrail, tmp_path: Path) -> None:
    for statement in ("UPDATE audit SET line = '{}'", "DELETE FROM audit", "INSERT OR REPLACE INTO audit VALUES (1, '{}', '')"):
        database = sqlite3.connect(tmp_path / "portal.db")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            database.execute(statement)
        database.close()


@pytest.mark.parametrize("damage", ["changed", "rehashed", "removed", "swapped", "no record"])
def test_whoever_goes_round_that_is_found(trail: AuditTrail, tmp_path: Path, damage: str) -> None:
    database = sqlite3.connect(tmp_path / "portal.db", isolation_level=None)
    for trigger in ("update", "delete", "replace"):
        database.execute(f"DROP TRIGGER audit_refuse_{trigger}")
    line = json.loads(database.execute("SELECT line FROM audit WHERE n = 3").fetchone()[0])
    other = AuditLine.model_validate(line | {"who": "bert"}).encode()
    match damage:
        case "changed":
            database.execute("UPDATE audit SET line = ? WHERE n = 3", (other.decode(),))
        case "rehashed":
            database.execute("UPDATE audit SET line = ?, sha256 = ? WHERE n = 3", (other.decode(), digest_of(other)))
        case "removed":
            database.execute("DELETE FROM audit WHERE n = 3")
        case "swapped":
            database.execute("UPDATE audit SET n = n + 100 WHERE n = 3")
            database.execute("UPDATE audit SET n = 3 WHERE n = 4")
            database.execute("UPDATE audit SET n = 4 WHERE n = 103")
        case _:
            database.execute("UPDATE audit SET line = '[]' WHERE n = 3")
    database.close()
    assert trail.verify().broken_at == (4 if damage == "rehashed" else 3)


@settings(max_examples=30)
@given(text=st.text(max_size=600))
def test_any_text_keeps_the_chain(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    trail = AuditTrail(Database(tmp_path_factory.mktemp("audit") / "portal.db"))
    trail.note("refused", subject=text, reason=text)
    trail.note(text)
    assert (trail.verify().lines, trail.verify().broken_at) == (2, None)
    assert all(letter.isprintable() for letter in trail.lines()[1].reason)
