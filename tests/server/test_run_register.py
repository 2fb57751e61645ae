import threading
from pathlib import Path

from gmmas_schema.coordinator import CoordinatorDeployment
from server.folder import CoordinatorFolder
from server.run_register import REGISTER, known_runs, note_run, run_key


def make_run(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "federation.json").write_text("{}")
    return path


def coordinator(tmp_path: Path) -> CoordinatorFolder:
    (tmp_path / "coordinator").mkdir()
    return CoordinatorFolder(tmp_path / "coordinator", CoordinatorDeployment())


def test_runs_are_known_wherever_they_lie_and_once(tmp_path: Path) -> None:
    folder = coordinator(tmp_path)
    assert known_runs(folder) == {}
    far, own = make_run(tmp_path / "far" / "first"), make_run(folder.runs / "second")
    for _ in range(2):
        note_run(folder, far)
    note_run(folder, own)
    (folder.runs / "no-run").mkdir()
    assert sorted(known_runs(folder).values()) == sorted([far, own])
    assert len((folder.path / REGISTER).read_bytes().splitlines()) == 2
    assert (folder.path / REGISTER).stat().st_mode & 0o777 == 0o600


def test_a_run_that_is_gone_is_not_shown(tmp_path: Path) -> None:
    folder = coordinator(tmp_path)
    note_run(folder, make_run(tmp_path / "first"))
    (tmp_path / "first" / "federation.json").unlink()
    assert known_runs(folder) == {}


def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path: Path) -> None:
    folder = coordinator(tmp_path)
    first = make_run(tmp_path / "first")
    note_run(folder, first)
    with (folder.path / REGISTER).open("ab") as register:
        register.write(b'{"run": "/half\n["a"]\n{"other": 1}\n')
    assert list(known_runs(folder).values()) == [first]
    with (folder.path / REGISTER).open("ab") as register:
        register.write(b'{"run": "/half')
    second = make_run(tmp_path / "second")
    note_run(folder, second)
    assert sorted(known_runs(folder).values()) == [first, second], "it takes nothing with it"


def test_folders_of_one_name_have_keys_of_their_own(tmp_path: Path) -> None:
    keys = {run_key(tmp_path / place / "a run; <b>ü") for place in ("one", "two")}
    assert len(keys) == 2
    assert all(key.startswith("a-run---b---") for key in keys)
    assert all(set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_") for key in keys)


def test_many_may_note_runs_at_once(tmp_path: Path) -> None:
    folder = coordinator(tmp_path)
    runs = [make_run(tmp_path / f"run{number}") for number in range(8)]
    threads = [threading.Thread(target=note_run, args=(folder, run)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(known_runs(folder).values()) == runs
