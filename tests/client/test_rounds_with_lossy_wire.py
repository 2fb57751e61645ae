"""Real trainers behind a lossy wire, in the true round loop: what is carried on disk, near to full precision, and resuming."""

import numpy as np
import pytest

from client.in_process import InProcessSite
from gmmas_schema.events import EventKind
from gmmas_schema.federation import FederationConfig, HoldersStrategy
from gmmas_schema.wire import WireConfig
from server.checkpoint import RunFolder
from server.events import EventLog
from server.initial_model import make_initial_model
from server.local_grid import LocalGrid
from server.rounds import run_federation
from strategies.wire import SHELF, ModelShelf
from tests.client.tiny_sites import FLAIR_ONLY, TINY, make_config, make_trainer
from tests.server.kills import Killed, kill_at
from tests.server.simulated_sites import RecordingTracker

ROUNDS = 3
WITH_ADAPTER = TINY.model_copy(update={"network": TINY.network.model_copy(update={"prototypes": 1})})
FULL = WireConfig(down="fp32", up="fp32")
INT8 = WireConfig(up="int8")
SPARSE = WireConfig(up="int8", top_k=0.25)


def config(wire: WireConfig) -> FederationConfig:
    changes = {"rounds": ROUNDS, "strategy": HoldersStrategy(), "wire": wire}
    return make_config(2, WITH_ADAPTER).model_copy(update=changes)


def run(path, wire, *, on_event=None) -> RunFolder:
    """Run, or go on with, a run whose sites are new processes with the folders of the old ones."""
    folder = RunFolder.create(path / "run", config(wire), run="r")
    trainers = (make_trainer("full", model=WITH_ADAPTER), make_trainer("flair-only", FLAIR_ONLY, first=10, model=WITH_ADAPTER))
    shelf = ModelShelf(2 * SHELF)
    sites = [InProcessSite(trainer, folder=path / trainer.site, shelf=shelf) for trainer in trainers]
    grid = LocalGrid(dict(enumerate(sites, start=10)))
    run_federation(grid, folder, tracker=RecordingTracker(), events=EventLog(folder.events_path, on_event=on_event or (lambda _: None)))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("wires")
    return {wire: run(path / str(place), wire) for place, wire in enumerate((FULL, INT8, SPARSE))}


def distance(first, second) -> float:
    return float(np.sqrt(sum(((first[name] - second[name]).astype(np.float64) ** 2).sum() for name in first if "anchors" not in name)))


@pytest.mark.parametrize(("wire", "share"), [(INT8, 0.3), (SPARSE, 0.7)])
def test_the_model_is_near_to_that_of_full_precision(finished, wire, share) -> None:
    """Measured by how far training has moved it. The first steps of AdamW go by the gradient's sign, which a rounding error may turn where
    the gradient is next to nothing; a sparse wire lags behind by what it still owes."""
    end, found = (finished[each].load_round(ROUNDS).tensors for each in (FULL, wire))
    moved, apart = distance(end, make_initial_model(config(wire))), distance(end, found)
    assert 0 < apart < share * moved


def test_anchors_are_sums_over_patients_to_the_last_bit(finished) -> None:
    """Round 1 trains on the same weights but for their rounding, and counts are counts."""
    exact, found = (finished[wire].load_round(ROUNDS).tensors for wire in (FULL, SPARSE))
    np.testing.assert_array_equal(exact["anchors.counts_KP"], found["anchors.counts_KP"])


@pytest.mark.parametrize(
    ("kind", "number"),
    [(EventKind.ROUND_STARTED, 2), (EventKind.REPLY_ACCEPTED, 2), (EventKind.ROUND_FINISHED, 2), (EventKind.REPLY_ACCEPTED, 3)],
)
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, finished, kind, number) -> None:
    with pytest.raises(Killed):
        run(tmp_path, SPARSE, on_event=kill_at(kind, number))
    folder = run(tmp_path, SPARSE)
    for each in range(1, ROUNDS + 1):
        assert folder.read_record(each).model_sha256 == finished[SPARSE].read_record(each).model_sha256
    assert folder.read_result().test == finished[SPARSE].read_result().test
