import os
from pathlib import Path

import pytest

from gmmas_data.parallel import map_in_processes
from gmmas_schema.errors import DataError, GmmasError, ReasonCode


@pytest.fixture(autouse=True)
def _workers_find_this_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spawned worker takes over sys.path, where pytest's importlib mode does not put the repository."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2]))


def square(number: int) -> tuple[int, int]:
    if number < 0:
        raise DataError("a number is negative", where="here", got=number, expected="0 or more", remedy="add", code=ReasonCode.DATA_LABEL)
    return number**2, os.getpid()


def die(number: int) -> int:
    os._exit(3)


@pytest.mark.parametrize("processes", [1, 2])
def test_results_keep_their_order(processes: int) -> None:
    seen: list[tuple[int, int]] = []
    results = map_in_processes(square, range(6), processes=processes, on_progress=lambda done, total: seen.append((done, total)))
    assert [value for value, _ in results] == [0, 1, 4, 9, 16, 25]
    assert (os.getpid() in {pid for _, pid in results}) == (processes == 1)
    assert seen == [(n, 6) for n in range(7)]


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_arrives_whole(processes: int) -> None:
    with pytest.raises(DataError) as caught:
        map_in_processes(square, [1, -2, 3], processes=processes)
    assert str(caught.value) == str(
        DataError("a number is negative", where="here", got=-2, expected="0 or more", remedy="add", code=ReasonCode.DATA_LABEL)
    )


def test_a_dead_worker_is_one_clear_error() -> None:
    with pytest.raises(GmmasError, match="fewer processes"):
        map_in_processes(die, [1, 2], processes=2)
