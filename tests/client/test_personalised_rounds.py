"""Personalised norms, FedAdam, FedProx, fair weights and rows together in the true round loop: records, and a kill and resume."""

import pytest

from client.in_process import InProcessSite
from gmmas_schema.errors import FederationError
from gmmas_schema.events import EventKind
from gmmas_schema.federation import FederationConfig
from gmmas_schema.vocabulary import Modality
from server.checkpoint import RunFolder
from server.events import EventLog
from server.local_grid import LocalGrid
from server.rounds import run_federation
from tests.client.tiny_sites import make_config, make_trainer
from tests.matrices import thinned
from tests.server.kills import Killed, kill_at
from tests.server.simulated_sites import RecordingTracker

ROUNDS = 3
CHANGES = {
    "rounds": ROUNDS,
    "strategy": {"kind": "holders", "region_rows": True, "fairness": 1.0},
    "server_step": {"kind": "adam"},
    "training": {
        "local_steps": 2,
        "warmup_steps": 1,
        "precision": "fp32",
        "personalised": "norms",
        "proximal_weight": 0.1,
        "enhancing_needs_t1ce": "site",
    },
}
WITHOUT_T1CE = (Modality.T1, Modality.FLAIR)


def make_folder(path):
    config = FederationConfig.parse(make_config(2).model_dump() | CHANGES, where="test")
    return RunFolder.create(path, config, run="r")


def run(folder, states, **hook):
    trainers = [
        make_trainer("full", folder=states / "full"),
        make_trainer("without", WITHOUT_T1CE, first=10, folder=states / "without"),
    ]
    grid = LocalGrid({node: InProcessSite(trainer) for node, trainer in enumerate(trainers, start=10)})
    return run_federation(grid, folder, tracker=RecordingTracker(), events=EventLog(folder.events_path, **hook))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("personalised")
    folder = make_folder(path / "run")
    run(folder, path / "states")
    return folder


def test_the_record_has_a_figure_for_each_of_the_two_models(finished) -> None:
    for number in range(1, ROUNDS + 1):
        record = finished.read_record(number)
        assert record.personalised is not None
        assert record.validation is not None
        assert record.personalised.model_round == record.validation.model_round == number - 1
        assert set(record.personalised.sites) == {"full", "without"}
        assert (record.personalised.metrics == record.validation.metrics) == (number == 1)


def test_the_row_of_the_enhancing_tumour_is_the_full_sites_alone(finished) -> None:
    shares = {site.site: site.shares for site in finished.read_record(ROUNDS).sites}
    assert shares["full"]["head.segmentation.et"] == 1
    assert "head.segmentation.et" not in shares["without"]
    assert 0 < shares["without"]["head.segmentation.wt"] < 1
    assert finished.load_round(ROUNDS).tensors["heads.segmentation.weight"].shape[0] == 3


@pytest.mark.parametrize(("number", "kind"), thinned(range(1, ROUNDS + 1), [EventKind.REPLY_ACCEPTED, EventKind.ROUND_FINISHED]))
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, finished, number, kind) -> None:
    """The sites of the first attempt have trained the round that is asked for again: their state is ahead of the coordinator's."""
    folder = make_folder(tmp_path / "run")
    with pytest.raises(Killed):
        run(folder, tmp_path / "states", on_event=kill_at(kind, number))
    run(folder, tmp_path / "states")
    for each in range(1, ROUNDS + 1):
        assert folder.read_record(each).model_sha256 == finished.read_record(each).model_sha256
        assert folder.read_record(each).personalised == finished.read_record(each).personalised


def test_a_reply_with_figures_of_an_own_model_is_refused_where_there_is_one_model_for_all(tmp_path) -> None:
    config = FederationConfig.parse(make_config(2).model_dump(), where="test")
    folder = RunFolder.create(tmp_path / "run", config, run="r")
    trainers = [make_trainer("honest"), make_trainer("odd", first=10)]
    plain = trainers[1].train

    def train(tensors, request):
        outcome = plain(tensors, request)
        report = outcome.report.model_copy(update={"personalised": outcome.report.evaluation})
        return type(outcome)(outcome.tensors, report)

    trainers[1].train = train
    grid = LocalGrid({node: InProcessSite(trainer) for node, trainer in enumerate(trainers, start=10)})
    with pytest.raises(FederationError, match="too few good replies"):
        run_federation(grid, folder, tracker=RecordingTracker(), events=EventLog(folder.events_path))
