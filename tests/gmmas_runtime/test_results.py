from pathlib import Path

import pytest

from gmmas_runtime.results import check_result_folder, result_folder
from gmmas_schema.errors import ConfigError

MARK = "configs/mark.json"


def make(folder: Path, text: str) -> None:
    with result_folder(folder) as made:
        (made / "configs").mkdir()
        (made / MARK).write_text(text)


def check(folder: Path, *, overwrite: bool) -> None:
    check_result_folder(folder, kind="a thing", marker=MARK, overwrite=overwrite)


def test_a_folder_is_made_with_its_parents_and_replaced_as_a_whole(tmp_path) -> None:
    folder = tmp_path / "deep" / "out"
    make(folder, "one")
    (folder / "stale").touch()
    make(folder, "two")
    assert (folder / MARK).read_text() == "two"
    assert [path.name for path in folder.iterdir()] == ["configs"]
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_a_failure_leaves_what_was_there(tmp_path) -> None:
    make(tmp_path / "out", "one")

    def fail() -> None:
        with result_folder(tmp_path / "out") as made:
            (made / "half").touch()
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert (tmp_path / "out" / MARK).read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_was_there_comes_back_when_the_last_step_fails(tmp_path, monkeypatch) -> None:
    make(tmp_path / "out", "one")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == "made":
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(PermissionError):
        make(tmp_path / "out", "two")
    assert (tmp_path / "out" / MARK).read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_only_results_of_the_same_kind_are_replaced(tmp_path) -> None:
    check(tmp_path / "none", overwrite=False)
    check(tmp_path, overwrite=False)
    make(tmp_path / "out", "one")
    check(tmp_path / "out", overwrite=True)
    with pytest.raises(ConfigError, match="--force"):
        check(tmp_path / "out", overwrite=False)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").touch()
    for other in (tmp_path / "thesis", tmp_path / "thesis" / "chapter.txt"):
        with pytest.raises(ConfigError, match="something that is not a thing"):
            check(other, overwrite=True)
