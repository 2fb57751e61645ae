import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gmmas_schema.errors import ConfigError
from server import pseudonyms
from server.pseudonyms import PSEUDONYMS_FILE, pseudonyms_of

HOSPITALS = [f"hospital-{number}" for number in range(8)]


def test_a_hospital_keeps_its_pseudonym_and_a_new_one_gets_the_next(tmp_path):
    first = pseudonyms_of(HOSPITALS[:3], tmp_path)
    assert set(first.values()) == {"site-1", "site-2", "site-3"}
    later = pseudonyms_of(HOSPITALS[2:4], tmp_path)
    assert later == {HOSPITALS[2]: first[HOSPITALS[2]], HOSPITALS[3]: "site-4"}
    assert (tmp_path / PSEUDONYMS_FILE).stat().st_mode & 0o777 == 0o600


def test_runs_that_end_at_once_share_no_pseudonym(tmp_path, monkeypatch):
    everybody, write = threading.Barrier(len(HOSPITALS)), pseudonyms.write_atomic

    def slowly(path, data):
        threading.Event().wait(0.02)
        write(path, data)

    def ask(name):
        everybody.wait(timeout=60)
        return pseudonyms_of([name], tmp_path)[name]

    monkeypatch.setattr(pseudonyms, "write_atomic", slowly)
    with ThreadPoolExecutor(len(HOSPITALS)) as pool:
        found = list(pool.map(ask, HOSPITALS))
    assert sorted(found) == [f"site-{number}" for number in range(1, 9)]
    assert pseudonyms_of(HOSPITALS, tmp_path) == dict(zip(HOSPITALS, found, strict=True))


def test_a_damaged_list_is_not_begun_anew(tmp_path):
    (tmp_path / PSEUDONYMS_FILE).write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        pseudonyms_of(HOSPITALS, tmp_path)
    assert (tmp_path / PSEUDONYMS_FILE).read_text() == "{"
