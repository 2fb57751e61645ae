"""The whole method in the true round loop: sites without a label, an adapter, server momentum; what travels, and resuming."""

import math

import pytest

from client.in_process import InProcessSite
from gmmas_schema.events import EventKind
from gmmas_schema.federation import FederationConfig, SemiSupervisedConfig
from gmmas_schema.groups import group_of
from gmmas_schema.strategy import HoldersStrategy, MomentumStep
from gmmas_schema.vocabulary import Modality, Region, Task
from server.checkpoint import RunFolder
from server.events import EventLog
from server.local_grid import LocalGrid
from server.rounds import run_federation
from strategies.codec import Parcel, read_report, unpack_tensors
from tests.client.tiny_sites import FLAIR_ONLY, TINY, make_config, make_trainer, run
from tests.matrices import thinned
from tests.server.kills import Killed, kill_at
from tests.server.simulated_sites import RecordingTracker

ROUNDS = 4
FIRST_READY = 3
"""A model is validated in the round after its own; one of these is enough here, however bad."""
AT_ONCE = SemiSupervisedConfig(
    ready_dice=0, ready_auc=0, ready_rounds=1, ramp_rounds=1, voxel_confidence=0.501, voxel_spread=9, case_confidence=0.501, case_spread=9
)
NO_LABEL = {"regions_RXYZ": None, "idh": math.nan}


def make_trainers():
    return [
        make_trainer("full", model=WITH_ADAPTER),
        make_trainer("flair-only", FLAIR_ONLY, first=10, model=WITH_ADAPTER),
        make_trainer("unlabelled", (Modality.T1, Modality.FLAIR), first=20, model=WITH_ADAPTER, **NO_LABEL),
    ]


WITH_ADAPTER = TINY.model_copy(update={"network": TINY.network.model_copy(update={"prototypes": 1})})


def config() -> FederationConfig:
    plain = make_config(3, WITH_ADAPTER)
    training = plain.training.model_copy(update={"semi_supervised": AT_ONCE, "uncertainty_weighting": "closed_form"})
    changes = {"rounds": ROUNDS, "training": training, "strategy": HoldersStrategy(), "server_step": MomentumStep(momentum=0.5)}
    return plain.model_copy(update=changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[RunFolder, list]:
    seen: list = []
    folder = RunFolder.create(tmp_path_factory.mktemp("whole") / "run", config(), run="r")
    grid = LocalGrid({node: InProcessSite(trainer) for node, trainer in enumerate(make_trainers(), start=10)}, watch=seen.append)
    run_federation(grid, folder, tracker=RecordingTracker(), events=EventLog(folder.events_path))
    return folder, seen


def record_of(folder: RunFolder, number: int, site: str):
    (found,) = (each for each in folder.read_record(number).sites if each.site == site)
    return found


@pytest.mark.parametrize("number", range(1, FIRST_READY))
def test_a_site_without_labels_sends_nothing_before_a_target_is_ready(finished, number) -> None:
    record = record_of(finished[0], number, "unlabelled")
    assert not record.shares
    assert not record.pseudo_labels
    assert not finished[0].read_record(number).ready


@pytest.mark.parametrize("number", range(FIRST_READY, ROUNDS + 1))
def test_it_takes_part_by_pseudo_labels_with_a_third_at_most(finished, number) -> None:
    record = record_of(finished[0], number, "unlabelled")
    assert Region.WT in finished[0].read_record(number).ready
    assert record.pseudo_labels[Region.WT].offered == 3
    assert record.pseudo_labels[Region.WT].accepted > 0
    # Without T1ce nothing is accepted for the enhancing tumour, or for the core.
    assert not any(target in record.pseudo_labels and record.pseudo_labels[target].accepted for target in (Region.TC, Region.ET))
    assert "encoder.t1" in record.shares
    assert all(share <= 1 / 3 + 1e-9 for share in record.shares.values())


def test_labelled_sites_have_no_ledger_of_what_is_labelled(finished) -> None:
    ledger = record_of(finished[0], ROUNDS, "full").pseudo_labels
    assert not any(target in ledger and ledger[target].accepted for target in (*Region, Task.IDH))


def test_what_travels_is_of_the_senders_sequences_and_never_per_patient(finished) -> None:
    replies = [m for m in finished[1] if m.metadata.reply_to_message_id and "arrays" in m.content]
    sent: dict[str, set[str]] = {}
    for message in replies:
        report, _ = read_report(message.content)
        parcel = Parcel(message.content["arrays"], str(message.content["report"]["index"]))
        sent.setdefault(report.site, set()).update(unpack_tensors(parcel))
    groups = {site: {group_of(name) for name in names} for site, names in sent.items()}
    assert {"anchors", "adapter", "encoder.t1ce"} <= groups["full"]
    assert not {"encoder.t1", "encoder.t1ce", "encoder.t2"} & groups["flair-only"]
    assert not {"encoder.t1ce", "encoder.t2"} & groups["unlabelled"]
    assert "anchors" not in groups["unlabelled"]


@pytest.mark.parametrize(
    ("number", "kind"), thinned([2, FIRST_READY, ROUNDS], [EventKind.ROUND_FINISHED, EventKind.REPLY_ACCEPTED, EventKind.ROUND_STARTED])
)
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, finished, number, kind) -> None:
    folder = RunFolder.create(tmp_path / "run", config(), run="r")
    grid = LocalGrid({node: InProcessSite(trainer) for node, trainer in enumerate(make_trainers(), start=10)})
    with pytest.raises(Killed):
        run_federation(grid, folder, tracker=RecordingTracker(), events=EventLog(folder.events_path, on_event=kill_at(kind, number)))
    run(make_trainers(), folder)
    for each in range(1, ROUNDS + 1):
        assert folder.read_record(each).model_sha256 == finished[0].read_record(each).model_sha256
