import os
import subprocess
import sys
import threading
from pathlib import Path

from gmmas_runtime.file_locks import is_locked, try_lock


def test_one_open_file_at_a_time_has_the_lock_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as first, path.open("w") as second:
        assert not is_locked(path)
        assert try_lock(first.fileno())
        assert is_locked(path)
        assert not try_lock(second.fileno())
        first.close()
        assert not is_locked(path)
        assert try_lock(second.fileno())


def test_a_lock_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = (
        "import sys; from gmmas_runtime.file_locks import try_lock\n"
        "with open(sys.argv[1], 'w') as file: print(try_lock(file.fileno()), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "True"
        assert is_locked(path)
        other.kill()
    assert not is_locked(path)


def test_whoever_asks_keeps_nobody_away(tmp_path: Path) -> None:
    path, over = tmp_path / "lock", threading.Event()
    path.touch()

    def ask() -> None:
        while not over.is_set():
            is_locked(path)

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    taken = []
    for _ in range(2000):
        descriptor = os.open(path, os.O_RDWR)
        taken.append(try_lock(descriptor))
        os.close(descriptor)
    over.set()
    for asker in askers:
        asker.join()
    assert all(taken)


def test_a_file_that_is_not_there_is_not_locked_and_not_made(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "absent" / "lock")
    assert not is_locked(tmp_path / "lock")
    assert not list(tmp_path.iterdir())
