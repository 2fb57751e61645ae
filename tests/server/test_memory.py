"""The coordinator's memory does not grow with the number of replies."""

import subprocess
import sys
from pathlib import Path

import pytest

MODEL_MIB = 20


MODES = {
    "default": {},
    "voting": {"combine": {"kind": "trimmed", "share": 0.2}, "cosine_limit": -1.0, "clip": {"kind": "median", "multiple": 1.0}},
}
"""The `robustness` blocks that are measured: both keep the replies of a round on disk, the second reads them back."""


def measure(sites: str, folder: str, mode: str) -> None:
    """Run a federation of a 20 MiB model in this process; print the peak of traced memory and of resident memory, MiB."""
    import resource
    import tracemalloc

    import numpy as np

    import server.rounds
    from gmmas_schema.messages import Action
    from gmmas_schema.robustness import RobustnessConfig
    from gmmas_schema.wire import WireConfig
    from gmmas_workflows.site_state import SiteState
    from server.checkpoint import RunFolder
    from strategies.wire import FEEDBACK, ModelShelf, SiteWire
    from tests.server.simulated_sites import SimulatedSite, make_config, make_grid, run

    tensors = {f"fusion.{index}": np.full(MODEL_MIB * 2**20 // 4 // 10, index, np.float32) for index in range(10)}
    server.rounds.make_initial_model = lambda config: tensors  # type: ignore[attr-defined]

    class BigSite(SimulatedSite):
        """Adds a little to what it received."""

        def train(self, request, tensors):
            return {name: value + np.float32(1e-3) for name, value in tensors.items()} if request.action is Action.TRAIN else {}

    count, shelf = int(sites), ModelShelf()
    # What a site holds is on its own machine: here all share a shelf, and what they carry is on disk.
    wires = (SiteWire(SiteState(Path(folder) / f"state{index}", kind=FEEDBACK), shelf=shelf) for index in range(count))
    grid = make_grid(*(BigSite(f"site{index}", wire=wire) for index, wire in enumerate(wires)))
    config = make_config(rounds=1, sites=count, replies=count).model_copy(
        update={"wire": WireConfig(up="int8"), "robustness": RobustnessConfig.model_validate(MODES[mode])}
    )
    run_folder = RunFolder.create(Path(folder) / "run", config, run="r")
    tracemalloc.start()
    run(grid, run_folder)
    records = run_folder.read_record(1).sites
    assert all(record.bytes_up > MODEL_MIB * 2**20 / 4 and record.bytes_down > MODEL_MIB * 2**20 / 2 for record in records)
    print(tracemalloc.get_traced_memory()[1] / 2**20, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)  # noqa: T201


@pytest.fixture(
    scope="module",
    params=[("default", 8), *(pytest.param((mode, 32), marks=pytest.mark.slow) for mode in MODES)],
    ids=lambda param: f"{param[0]}-{param[1]}",
)
def peaks(tmp_path_factory, request):
    """Return the peaks with two sites, then those with many."""
    mode, many = request.param
    found = []
    for sites in (2, many):
        done = subprocess.run(
            [
                sys.executable, "-c", "import sys; from tests.server.test_memory import measure; measure(*sys.argv[1:])",
                str(sites), str(tmp_path_factory.mktemp("memory") / "run"), mode,
            ],
            cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True,
        )  # fmt: skip
        found.append(tuple(float(word) for word in done.stdout.split()))
    return found


def test_many_sites_take_no_more_than_two(peaks):
    (traced_2, resident_2), (traced, resident) = peaks
    assert traced < traced_2 + MODEL_MIB / 4
    # Room for the allocator's fragments; six more replies would be 120 MiB.
    assert resident < resident_2 + MODEL_MIB


def test_the_peak_is_a_small_multiple_of_the_model(peaks):
    """Model, what the sites calculate from, two float64 sums per value, one reply; and in this process what a site has in hand while it
    answers: the model as it came, as it is trained, its change, what is owed, what is left over, and the file of that."""
    assert peaks[1][0] < 14 * MODEL_MIB
