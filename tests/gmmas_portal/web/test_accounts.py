"""Accounts, passwords, sessions, and links that sign in once."""

import time
from pathlib import Path

import pytest

from gmmas_portal.web.accounts import MODEL_AUTHOR, AccountStore, Role
from gmmas_portal.web.tables import Database
from gmmas_schema.errors import ConfigError, TrustError
from tests.gmmas_portal.web.conftest import HASHER, PASSWORD


@pytest.fixture
def store(tmp_path: Path) -> AccountStore:
    return AccountStore(Database(tmp_path / "portal.db"), hasher=HASHER)


def test_the_file_is_for_nobody_else_and_holds_no_secret(store: AccountStore, tmp_path: Path) -> None:
    account = store.add("anna", Role.CLINICIAN)
    store.set_password("anna", PASSWORD)
    cookie, ticket = store.open_session(account), store.make_ticket("anna")
    assert (tmp_path / "portal.db").stat().st_mode & 0o777 == 0o600
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir()).decode("latin-1")
    assert "anna" in content
    assert [secret for secret in (PASSWORD, cookie, ticket) if secret in content] == []
    assert "$argon2id$" in content


@pytest.mark.parametrize("name", ["", "Anna", "anna meier", "a" * 32, "../x", "<b>", "anna\n", ".anna"])
def test_names_are_plain(store: AccountStore, name: str) -> None:
    with pytest.raises(ConfigError):
        store.add(name, Role.CLINICIAN)


def test_a_patient_names_a_pseudonym_and_staff_none(store: AccountStore) -> None:
    assert store.add("p", Role.PATIENT, patient="P-1").patient == "P-1"
    for role, patient in ((Role.PATIENT, ""), (Role.PATIENT, "Anna Meier"), (Role.CLINICIAN, "P-1"), (Role.ADMIN, "P-1")):
        with pytest.raises(ConfigError):
            store.add("other", role, patient=patient)


def test_a_name_is_used_once(store: AccountStore) -> None:
    store.add("anna", Role.CLINICIAN)
    with pytest.raises(TrustError):
        store.add("anna", Role.ADMIN)


def test_only_the_password_opens(store: AccountStore) -> None:
    store.add("anna", Role.CLINICIAN)
    for password in ("", PASSWORD):
        assert store.verify("anna", password) is None, "without a password set, none is right"
    store.set_password("anna", PASSWORD)
    assert store.verify("anna", PASSWORD) == store.account("anna")
    for name, password in (("anna", PASSWORD + " "), ("anna", ""), ("bert", PASSWORD), ("", ""), ("anna", "x" * 100_000)):
        assert store.verify(name, password) is None


@pytest.mark.parametrize("length", [0, 11, 129])
def test_a_password_has_a_length(store: AccountStore, length: int) -> None:
    store.add("anna", Role.CLINICIAN)
    with pytest.raises(ConfigError):
        store.set_password("anna", "x" * length)
    store.set_password("anna", "é" * 12)


def test_a_new_password_ends_the_other_sessions(store: AccountStore) -> None:
    account = store.add("anna", Role.CLINICIAN)
    here, there = store.open_session(account), store.open_session(account)
    store.set_password("anna", PASSWORD, keep=here)
    assert store.session(here, longest_s=9, idle_s=9) is not None
    assert store.session(there, longest_s=9, idle_s=9) is None


def test_sessions_end_in_time_and_with_their_account(store: AccountStore, monkeypatch: pytest.MonkeyPatch) -> None:
    account, now = store.add("anna", Role.CLINICIAN), time.time()
    first, second, third = (store.open_session(account) for _ in range(3))
    monkeypatch.setattr(time, "time", lambda: now + 50)
    assert store.session(first, longest_s=100, idle_s=40) is None, "idle"
    assert store.session(second, longest_s=100, idle_s=60) is not None
    monkeypatch.setattr(time, "time", lambda: now + 105)
    assert store.session(second, longest_s=100, idle_s=60) is None, "too old, though it was used"
    assert store.session(third, longest_s=1e6, idle_s=1e6) is not None
    store.remove("anna")
    assert store.session(third, longest_s=1e6, idle_s=1e6) is None
    with pytest.raises(TrustError):
        store.account("anna")


def test_a_link_works_once_and_not_for_ever(store: AccountStore, monkeypatch: pytest.MonkeyPatch) -> None:
    account = store.add("anna", Role.CLINICIAN)
    ticket = store.make_ticket("anna")
    assert store.look_at_ticket(ticket) == store.look_at_ticket(ticket) == account, "a look does not use it up"
    assert store.take_ticket(ticket) == account
    assert store.take_ticket(ticket) is None
    old, new = store.make_ticket("anna"), store.make_ticket("anna")
    assert store.take_ticket(old) is None, "a new link ends the old one"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 73 * 3600)
    assert store.take_ticket(new) is None
    assert store.take_ticket("") is None
    with pytest.raises(TrustError):
        store.make_ticket("nobody")


def test_a_new_password_ends_a_link_that_is_still_out(store: AccountStore) -> None:
    store.add("anna", Role.CLINICIAN)
    ticket = store.make_ticket("anna")
    store.set_password("anna", PASSWORD)
    assert store.take_ticket(ticket) is None


def test_nobody_is_called_as_the_author_of_the_models_outlines(store: AccountStore) -> None:
    with pytest.raises(ConfigError):
        store.add(MODEL_AUTHOR, Role.CLINICIAN)
