"""A whole federation on loopback: SuperLink with TLS, enrolled nodes, executors, trainers, MLflow; and one node killed mid-round.

One hospital, east, runs Flower's own executor in the slow suite, the fallback; the others ours.
"""

from pathlib import Path

import pytest

from client.audit_line import AuditKind, AuditOutcome
from client.audit_verification import read_lines, verify_log
from client.folder import NodeFolder
from gmmas_cli.demo_deployment import DemoFolder, prepare_deployment, running_deployment
from gmmas_data.phantom import make_cohorts
from gmmas_runtime.keys import load_node_key
from gmmas_schema.events import Event, EventKind
from gmmas_schema.federation import FederationConfig
from gmmas_schema.phantom import PhantomSpec
from gmmas_schema.site import SiteConfig
from gmmas_schema.vocabulary import Modality
from server.checkpoint import RunFolder
from server.deployment import prepare_run, submit_run
from server.events import read_events
from server.following import follow_run
from server.records import Outcome, RoundRecord
from tests.integration.killing import kill_process

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

VICTIM = "south"
EAST = "east"
ROUNDS = 3

SPEC = PhantomSpec.model_validate(
    {
        "seed": 3,
        "spacing_mm": 4.0,
        "sites": [
            {"name": "north", "cases": 4, "scanner": "research-3t"},
            {"name": VICTIM, "cases": 4, "scanner": "clinical-1.5t", "modalities": ["t1", "t2", "flair"]},
            {"name": "east", "cases": 4, "scanner": "clinical-3t", "modalities": ["t2", "flair"], "layout": "brats2023"},
        ],
    }
)

CONFIG = FederationConfig.model_validate(
    {
        "name": "integration",
        "rounds": ROUNDS,
        "model": {
            "network": {"channels": [4, 8], "blocks": [1, 1], "transformer_heads": 2},
            "grid": {"spacing_mm": 8.0, "shape": [24, 24, 24]},
        },
        "training": {"local_steps": 2},
        "wire": {"up": "int8"},
        "quorum": {"sites": 3, "replies": 2, "join_deadline_s": 240, "round_deadline_s": 120},
    }
)


class NodeKiller:
    """Follows the run's events and kills the victim's SuperNode with SIGKILL as soon as round 2 has begun."""

    def __init__(self, folder: DemoFolder) -> None:
        self.folder = folder
        self._state_file = NodeFolder(SiteConfig.from_yaml(folder.site_yaml(VICTIM)).node.state).state_file
        self.killed: int | None = None
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if event.kind is EventKind.ROUND_STARTED and event.round == 2 and self.killed is None:
            self.killed = kill_process(self._state_file, "supernode")


@pytest.fixture(scope="module", params=["resident", pytest.param("flower", marks=pytest.mark.slow)])
def executor(request: pytest.FixtureRequest) -> str:
    """The executor of east."""
    return str(request.param)


@pytest.fixture(scope="module")
def finished(executor: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, NodeKiller]:
    """Run the federation once; every test below looks at what it left."""
    folder = DemoFolder(tmp_path_factory.mktemp("federation"))
    make_cohorts(SPEC, folder.cohorts, processes=2)
    prepare_deployment(folder, SPEC)
    settings = folder.site_yaml(EAST)
    settings.write_text(settings.read_text().replace("executor: resident", f"executor: {executor}", 1))
    assert SiteConfig.from_yaml(settings).node.executor == executor
    prepare_run(folder.run, CONFIG)
    with running_deployment(folder, SPEC, on_wait=lambda _text: None):
        killer = NodeKiller(folder)
        submit_run(folder.coordinator, folder.run)
        end = follow_run(folder.run, on_event=killer)
    assert end.kind is EventKind.RUN_FINISHED, end.message
    return RunFolder.open(folder.run), killer


def _record(folder: RunFolder, number: int) -> RoundRecord:
    return folder.read_record(number)


def test_run_finishes_although_a_node_was_killed(finished: tuple[RunFolder, NodeKiller]) -> None:
    folder, killer = finished
    assert killer.killed is not None
    assert folder.finished_rounds() == (0, 1, 2, 3)
    accepted = {site.site for site in _record(folder, 2).sites if site.outcome is Outcome.ACCEPTED}
    assert accepted >= {"north", EAST}
    assert folder.read_result() is not None


def test_every_site_took_part_in_the_first_round_with_what_it_has(finished: tuple[RunFolder, NodeKiller]) -> None:
    sites = {site.site: site for site in _record(finished[0], 1).sites}
    assert sites.keys() == {"north", "south", "east"}
    assert sites["east"].modalities == (Modality.T2, Modality.FLAIR)
    assert "encoder.t1ce" in sites["north"].shares
    assert "encoder.t1ce" not in sites[VICTIM].shares
    assert all(site.bytes_up > 0 and site.bytes_down > 0 for site in sites.values())


def test_models_travel_once_to_a_node_that_lives_on_and_what_is_owed_lies_on_its_disk(
    finished: tuple[RunFolder, NodeKiller], executor: str
) -> None:
    folder, killer = finished
    result = folder.read_result()
    assert result is not None
    ledger = [site for site in result.ledger if site.outcome is Outcome.ACCEPTED]
    down = {name: [site.bytes_down for site in ledger if site.site == name] for name in ("north", EAST)}
    assert min(down["north"]) < max(down["north"]) / 5
    if executor == "flower":  # starts a process for each message, which holds nothing; it is found out and sent every model
        assert min(down[EAST]) > max(down[EAST]) / 2
    else:
        assert min(down[EAST]) < max(down[EAST]) / 5
    for name in down:
        states = NodeFolder(SiteConfig.from_yaml(killer.folder.site_yaml(name)).node.state).training
        assert [file.name for file in sorted(states.glob("feedback-*"))][-1] == f"feedback-{ROUNDS:06d}.safetensors"


def test_mlflow_holds_the_run_and_the_registered_model(finished: tuple[RunFolder, NodeKiller]) -> None:
    import mlflow

    from server.tracking import MlflowTracker

    folder, _ = finished
    uri = MlflowTracker(folder.config.tracking, folder.path).uri
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    run = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])[0]
    assert run.info.status == "FINISHED"
    assert {"north", "east"} <= {name.split("/")[1] for name in run.data.metrics if name.startswith("site/")}
    assert client.get_model_version_by_alias("gmmas", "best").version
    assert client.get_model_version_by_alias("gmmas", "last").version


def test_events_hold_no_path_and_no_patient(finished: tuple[RunFolder, NodeKiller]) -> None:
    folder, killer = finished
    log = "\n".join(event.model_dump_json() for event in read_events(folder.events_path))
    assert "PH-NORTH" not in log
    assert str(Path(folder.path).parent / "cohorts") not in log
    assert {event.kind for event in killer.events} >= {EventKind.RUN_STARTED, EventKind.SITE_JOINED, EventKind.RUN_FINISHED}


def test_each_hospital_has_a_whole_record_of_what_it_answered(finished: tuple[RunFolder, NodeKiller]) -> None:
    folder, killer = finished
    for name in ("north", VICTIM, EAST):
        site = SiteConfig.from_yaml(killer.folder.site_yaml(name))
        log = NodeFolder(site.node.state).audit_log
        verdict = verify_log(log, load_node_key(site.node.private_key).public_key())
        assert verdict.is_whole, (name, verdict)
        trained = {line.round for line in read_lines(log) if line.kind is AuditKind.TRAIN and line.outcome is AuditOutcome.ANSWERED}
        accepted = {n for n in (1, 2, 3) for one in _record(folder, n).sites if one.site == name and one.outcome is Outcome.ACCEPTED}
        assert trained >= accepted
        assert {line.run for line in read_lines(log) if line.run} == {folder.run}
