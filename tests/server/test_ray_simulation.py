"""Flower's simulation runtime gives the run that our own engine gives. In a process of its own: Ray keeps threads and warns at will."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from gmmas_schema.errors import ConfigError
from server.checkpoint import RunFolder
from server.local_grid import identify_process
from server.ray_simulation import PARTITION, make_client_app, simulate_with_ray
from server.simulation import NoTracker, simulate
from tests.server.secure_federation import make_secure_config
from tests.server.test_simulation import make_folder, sites

SCRIPT = """
import json, os, sys
from pathlib import Path
from server.ray_simulation import simulate_with_ray
from server.simulation import NoTracker
from tests.server.test_simulation import make_folder, sites
told = []
# Ray takes its time on a busy machine.
folder = make_folder(Path(sys.argv[1]), rounds=2, join_deadline_s=240.0)
result = simulate_with_ray(folder, sites(), tracker=NoTracker(), processes=1, on_event=told.append)
quiet = {name: os.environ[name] for name in ("FLWR_TELEMETRY_ENABLED", "RAY_USAGE_STATS_ENABLED")}
print(json.dumps({"last": result.last_sha256, "end": told[-1].kind, "quiet": quiet}))
"""


@pytest.mark.slow
@pytest.mark.integration
def test_the_run_is_that_of_our_own_engine(tmp_path):
    pytest.importorskip("ray", reason="the optional dependencies `simulation`")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "ray")],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["end"] == "run_finished"
    assert set(told["quiet"].values()) == {"0"}
    assert told["last"] == simulate(make_folder(tmp_path / "own", rounds=2), sites(), tracker=NoTracker()).last_sha256


def test_a_secure_run_is_refused_with_the_way_to_try_it(tmp_path):
    folder = RunFolder.create(tmp_path / "run", make_secure_config(), run="r")
    with pytest.raises(ConfigError, match="use --engine local, or a deployment"):
        simulate_with_ray(folder, sites(), tracker=NoTracker())


@pytest.mark.parametrize("kind", ["query", "train", "evaluate"])
def test_a_partition_is_a_site(kind):
    identify_process(1)
    asked = []

    def site(number):
        return lambda message, context: asked.append(number) or Message(message.content, reply_to=message)

    app = make_client_app((site(0), site(1)))
    message = Message(RecordDict({"q": ConfigRecord({"x": 1})}), 7, kind)
    context = Context(run_id=1, node_id=7, node_config={PARTITION: 1}, state=RecordDict(), run_config={})
    assert app(message, context).content == message.content
    assert asked == [1]
