"""The coordinator's memory does not grow with the number of replies."""

import subprocess
import sys
from pathlib import Path

import pytest

MODEL_MIB = 20


def measure(sites: str, folder: str) -> None:
    """Run a federation of a 20 MiB model in this process; print the peak of traced memory and of resident memory, MiB."""
    import resource
    import tracemalloc

    import numpy as np
    from flwr.app import Message

    import server.rounds
    from gmmas_schema.messages import Action
    from server.checkpoint import RunFolder
    from strategies.codec import pack_tensors, read_request, write_report
    from tests.server.simulated_sites import SimulatedSite, make_config, make_grid, run

    tensors = {f"fusion.{index}": np.full(MODEL_MIB * 2**20 // 4 // 10, index, np.float32) for index in range(10)}
    server.rounds.make_initial_model = lambda config: tensors  # type: ignore[attr-defined]

    class BigSite(SimulatedSite):
        """Sends a copy of what it received."""

        def __call__(self, message, context):
            request, tensors = read_request(message.content)
            if request.action is not Action.TRAIN:
                return super().__call__(message, context)
            trained = {name: value + np.float32(1) for name, value in tensors.items()}
            return Message(write_report(self.report(request), pack_tensors(trained)), reply_to=message)

    count = int(sites)
    grid = make_grid(*(BigSite(f"site{index}") for index in range(count)))
    run_folder = RunFolder.create(Path(folder), make_config(rounds=1, sites=count, replies=count), run="r")
    tracemalloc.start()
    run(grid, run_folder)
    assert all(record.bytes_up > MODEL_MIB * 2**20 for record in run_folder.read_record(1).sites)
    print(tracemalloc.get_traced_memory()[1] / 2**20, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)  # noqa: T201


@pytest.fixture(scope="module")
def peaks(tmp_path_factory):
    found = {}
    for sites in (2, 32):
        done = subprocess.run(
            [
                sys.executable, "-c", "import sys; from tests.server.test_memory import measure; measure(*sys.argv[1:])",
                str(sites), str(tmp_path_factory.mktemp("memory") / "run"),
            ],
            cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True,
        )  # fmt: skip
        found[sites] = [float(word) for word in done.stdout.split()]
    return found


def test_32_sites_take_no_more_than_2(peaks):
    traced = {sites: values[0] for sites, values in peaks.items()}
    resident = {sites: values[1] for sites, values in peaks.items()}
    assert traced[32] < traced[2] + MODEL_MIB / 4, traced
    # Room for the allocator's fragments; thirty more replies would be 600 MiB.
    assert resident[32] < resident[2] + MODEL_MIB, resident


def test_the_peak_is_a_small_multiple_of_the_model(peaks):
    """Model, its serialised form, two float64 sums per value, one reply, and the site's own copies in this process."""
    assert peaks[32][0] < 12 * MODEL_MIB
