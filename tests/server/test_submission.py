import json
from pathlib import Path

import pytest

from gmmas_schema.errors import ConfigError
from gmmas_schema.federation import FederationConfig, TrainingPlan
from server.records import RunResult
from server.submission import RunState, is_at_work, prepare_run, read_submission

CONFIG = FederationConfig(name="test", rounds=3)


def test_a_new_run_gets_its_resolved_configuration(tmp_path: Path) -> None:
    prepare_run(tmp_path / "run", CONFIG)
    assert FederationConfig.model_validate(json.loads((tmp_path / "run" / "federation.json").read_text())) == CONFIG
    assert not is_at_work(tmp_path / "run")
    assert read_submission(tmp_path / "run") is None


@pytest.mark.parametrize(("file", "remedy"), [("federation.json", "--resume"), ("notes.txt", "another folder")])
def test_a_folder_in_use_is_refused_with_the_way_on(tmp_path: Path, file: str, remedy: str) -> None:
    (tmp_path / file).write_text("{}")
    with pytest.raises(ConfigError, match="not empty") as caught:
        prepare_run(tmp_path, CONFIG)
    assert remedy in caught.value.remedy
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_resume_wants_the_same_configuration_and_names_what_differs(tmp_path: Path) -> None:
    folder = prepare_run(tmp_path / "run", CONFIG)
    assert prepare_run(tmp_path / "run", CONFIG, resume=True).run == folder.run
    changed = CONFIG.model_copy(update={"rounds": 5, "training": TrainingPlan(learning_rate=0.1)})
    with pytest.raises(ConfigError, match=r"rounds: 3 -> 5; training\.learning_rate: 0\.002 -> 0\.1"):
        prepare_run(tmp_path / "run", changed, resume=True)


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"federation\.json"):
        prepare_run(tmp_path / "absent", CONFIG, resume=True)
    assert not (tmp_path / "absent").exists()


def test_a_finished_run_is_not_resumed(tmp_path: Path) -> None:
    folder = prepare_run(tmp_path / "run", CONFIG)
    folder.write_result(RunResult(run=folder.run, rounds=3, best_round=2, model_digest="d", best_sha256="b", last_sha256="l"))
    with pytest.raises(ConfigError, match="this run is finished"):
        prepare_run(tmp_path / "run", CONFIG, resume=True)


def test_a_held_folder_is_at_work(tmp_path: Path) -> None:
    folder = prepare_run(tmp_path / "run", CONFIG)
    with folder.hold():
        assert is_at_work(tmp_path / "run")
    assert not is_at_work(tmp_path / "run")


def test_states_that_are_an_end() -> None:
    ended = {
        status: RunState(flower_run="1", status=status).ended for status in ("pending", "running", "finished:failed", "finished:stopped")
    }
    assert ended == {"pending": False, "running": False, "finished:failed": True, "finished:stopped": True}
