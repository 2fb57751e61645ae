import sqlite3
import threading
from pathlib import Path

import pytest

from gmmas_schema.errors import ConfigError, TrustError
from server.operators import OperatorStore, Role, Way

LONG = {"longest_s": 3600.0, "idle_s": 600.0}


@pytest.fixture
def store(tmp_path: Path) -> OperatorStore:
    return OperatorStore(tmp_path / "operators.db")


def test_a_token_is_shown_once_and_kept_as_a_hash(store: OperatorStore, tmp_path: Path) -> None:
    token = store.add("anna", Role.COORDINATOR)
    name, _, secret = token.partition(".")
    assert name == "anna"
    assert len(secret) >= 43, "256 bits"
    assert secret.encode() not in (tmp_path / "operators.db").read_bytes()
    assert (tmp_path / "operators.db").stat().st_mode & 0o777 == 0o600
    found = store.verify(token)
    assert found is not None
    assert (found.name, found.role) == ("anna", Role.COORDINATOR)


def test_only_the_whole_token_of_its_own_operator_is_one(store: OperatorStore) -> None:
    anna, bert = store.add("anna", Role.COORDINATOR), store.add("bert", Role.RESEARCHER)
    for wrong in (
        anna[:-1],
        anna + "x",
        anna.upper(),
        "bert." + anna.partition(".")[2],
        "carl." + anna.partition(".")[2],
        anna.partition(".")[2],
    ):
        assert store.verify(wrong) is None, wrong
    found = store.verify(bert)
    assert found is not None
    assert found.role is Role.RESEARCHER


def test_equal_operators_have_unlike_hashes(store: OperatorStore, tmp_path: Path) -> None:
    for name in ("anna", "bert"):
        store.add(name, Role.RESEARCHER)
    with sqlite3.connect(tmp_path / "operators.db") as database:
        rows = database.execute("SELECT salt, hash FROM operators").fetchall()
    database.close()
    assert len({salt for salt, _ in rows}) == len({hash_ for _, hash_ in rows}) == 2


@pytest.mark.parametrize("name", ["", "Anna", "a b", "a.b", "../a", "a" * 32, "-a", "ä"])
def test_names_are_plain(store: OperatorStore, name: str) -> None:
    with pytest.raises(ConfigError, match="not an operator's name"):
        store.add(name, Role.RESEARCHER)


def test_a_name_is_given_once_and_removed_once(store: OperatorStore) -> None:
    token = store.add("anna", Role.RESEARCHER)
    with pytest.raises(TrustError, match="operator of this name") as caught:
        store.add("anna", Role.COORDINATOR)
    assert "operator remove anna" in caught.value.remedy
    store.remove("anna")
    assert store.verify(token) is None
    with pytest.raises(TrustError, match="no such operator"):
        store.remove("anna")
    assert store.add("anna", Role.RESEARCHER) != token
    assert store.verify(token) is None


def test_a_session_belongs_to_its_operator_and_ends_with_them(store: OperatorStore) -> None:
    operator = store.verify(store.add("anna", Role.RESEARCHER))
    assert operator is not None
    value, other = store.open_session(operator), store.open_session(operator)
    session = store.session(value, **LONG)
    assert session is not None
    assert session.operator == operator
    assert session.csrf != store.session(other, **LONG).csrf  # type: ignore[union-attr]
    assert store.session(value + "x", **LONG) is None
    store.close_session(value)
    assert store.session(value, **LONG) is None
    assert store.session(other, **LONG) is not None
    store.remove("anna")
    assert store.session(other, **LONG) is None


def test_a_session_ends_by_age_and_by_idleness(store: OperatorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_800_000_000.0]
    monkeypatch.setattr("server.operators.time.time", lambda: now[0])
    operator = store.verify(store.add("anna", Role.RESEARCHER))
    assert operator is not None
    value = store.open_session(operator)
    for _ in range(6):  # used every 9 minutes, 10 are allowed
        now[0] += 540
        assert store.session(value, **LONG) is not None
    now[0] += 400
    assert store.session(value, **LONG) is None, "older than an hour"
    value = store.open_session(operator)
    now[0] += 500
    assert store.session(value, used=False, **LONG) is not None
    now[0] += 101
    assert store.session(value, **LONG) is None, "a look that is no use does not keep it"


def test_calls_can_be_added_and_nothing_else(store: OperatorStore, tmp_path: Path) -> None:
    for number in range(3):
        store.note(f"GET /{number}", "200\x1b[31m" + "y" * 500, operator="anna", role="researcher", way=Way.SESSION, client="127.0.0.1")
    calls = store.calls(last=2)
    assert [call.action for call in calls] == ["GET /2", "GET /1"]
    assert calls[0].outcome == "200[31m" + "y" * (300 - 7)
    database = sqlite3.connect(tmp_path / "operators.db")
    for statement in (
        "UPDATE calls SET operator = 'eve'",
        "DELETE FROM calls",
        "INSERT OR REPLACE INTO calls SELECT id, time, 'eve', role, way, client, action, outcome FROM calls",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            database.execute(statement)
    database.close()


def test_threads_share_the_file(store: OperatorStore) -> None:
    def write(number: int) -> None:
        for each in range(5):
            store.note(f"{number}-{each}", "ok", operator=None, role=None, way=Way.NONE, client="")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.calls()) == 20


@pytest.mark.parametrize("content", [b"not a database, but long enough to look like one" * 20, None])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "operators.db"
    if content is None:
        database = sqlite3.connect(path)
        database.execute("CREATE TABLE events (id)")
        database.commit()
        database.close()
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        OperatorStore(path).operators()
