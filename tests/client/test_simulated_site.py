"""A site that is made for each answer gives the bits of one that lives on, and holds nothing between answers."""

import gc
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from client import simulated_site
from client.in_process import InProcessSite
from client.simulated_site import SimulatedSite
from gmmas_data.cache import SampleCache
from gmmas_data.samples import Sample
from gmmas_schema.errors import FederationError, ReasonCode
from gmmas_schema.events import Event, EventKind
from gmmas_schema.federation import FederationConfig
from gmmas_schema.groups import group_of
from gmmas_schema.model import ModelDefinition
from gmmas_schema.standalone import CohortConfig
from gmmas_workflows.cohorts import store_cohorts
from gmmas_workflows.training import LocalTrainer
from server.checkpoint import RunFolder
from server.events import read_events
from server.records import Outcome
from server.simulation import NoTracker, simulate
from tests.client.simulations import COHORTS, GRID, write_cohorts
from tests.client.tiny_sites import TINY, make_config

MODEL = ModelDefinition(network=TINY.network, grid=GRID)


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SimulatedSite]:
    folder = tmp_path_factory.mktemp("sites")
    write_cohorts(folder)
    configs = [
        CohortConfig(name=name, root=folder / name, labels=folder / name / "labels.csv", modalities=held) for name, held in COHORTS.items()
    ]
    stored = store_cohorts(configs, SampleCache(folder / "cache", GRID))
    return {
        cohort.name: SimulatedSite(
            site=cohort.name, cohort=cohort, definition=MODEL, cache=folder / "cache", folder=folder / "state" / cohort.name, device="cpu"
        )
        for cohort in stored
    }


def resident(site: SimulatedSite) -> InProcessSite:
    samples = site.cohort.load(SampleCache(site.cache, GRID))
    return InProcessSite(LocalTrainer(MODEL, samples, modalities=site.cohort.modalities, site=site.site, device="cpu", threads=1))


def test_weights_are_those_of_sites_that_live_on(sites: dict[str, SimulatedSite], tmp_path: Path) -> None:
    config = make_config(2, MODEL)
    results = []
    for name, clients in {"lazy": sites, "resident": {name: resident(site) for name, site in sites.items()}}.items():
        folder = RunFolder.create(tmp_path / name, config, run="r")
        results.append(simulate(folder, clients, tracker=NoTracker()))
        assert all(len(record.sites) == 2 for record in folder.read_records())
    assert results[0].last_sha256 == results[1].last_sha256
    assert results[0].test == results[1].test


@pytest.mark.slow
def test_no_case_stays_in_memory(sites: dict[str, SimulatedSite], tmp_path: Path) -> None:
    gc.collect()
    before = sum(type(each) is Sample for each in gc.get_objects())
    simulate(RunFolder.create(tmp_path / "run", make_config(2, MODEL), run="r"), sites, tracker=NoTracker())
    gc.collect()
    assert sum(type(each) is Sample for each in gc.get_objects()) <= before


def test_a_site_is_a_small_record(sites: dict[str, SimulatedSite]) -> None:
    content = pickle.dumps(sites["north"])
    assert len(content) < 20_000
    assert pickle.loads(content) == sites["north"]


def test_a_site_whose_cases_are_gone_answers_with_a_code(sites: dict[str, SimulatedSite], tmp_path: Path) -> None:
    north = sites["north"]
    for entry in north.cache.iterdir():
        entry.rename(entry.with_suffix(".away"))
    scans = next(iter(north.cohort.cases.values()))[0].images.values()
    try:
        path = next(iter(scans))
        path.rename(path.with_suffix(".away"))
        folder = RunFolder.create(tmp_path / "run", make_config(1, MODEL), run="r")
        asked: list[Message] = []

        def site(message: Message, context: object) -> Message:
            asked.append(north(message, context))  # type: ignore[arg-type]
            return asked[-1]

        with pytest.raises(Exception, match="too few good replies"):
            simulate(folder, {"north": site}, tracker=NoTracker())
        assert asked[-1].error.reason == ReasonCode.DATA_UNREADABLE.value
    finally:
        path.with_suffix(".away").rename(path)
        for entry in north.cache.glob("*.away"):
            entry.rename(entry.with_suffix(".safetensors"))


def make_secure(sites: dict[str, SimulatedSite], folder: Path) -> dict[str, SimulatedSite]:
    """Return three sites with keys of their own over two cohorts."""
    chosen = {"ash": "north", "birch": "north", "cedar": "east"}
    return {name: replace(sites[cohort], site=name, folder=folder / name, secure=True) for name, cohort in chosen.items()}


def secure_config(**changes: object) -> FederationConfig:
    quorum = {"sites": 3, "replies": 3, "round_attempts": 1}
    plain = make_config(3, MODEL).model_dump() | {"secure": {}, "robustness": {"norm_limit": None}, "quorum": quorum, "calibration": None}
    return FederationConfig.parse(plain | changes, where="test")


def test_a_secure_federation_is_simulated_to_the_weights_of_a_plain_one(sites: dict[str, SimulatedSite], tmp_path: Path) -> None:
    """All hold the shared groups; what the two of them with T1ce hold alone stays closed."""
    clients = make_secure(sites, tmp_path / "state")
    keys = {name: site.public_key() for name, site in clients.items()}
    secure, plain = (
        RunFolder.create(tmp_path / "s", secure_config(), run="r"),
        RunFolder.create(tmp_path / "p", make_config(3, MODEL), run="r"),
    )
    simulate(secure, clients, tracker=NoTracker(), keys=keys, processes=2)
    simulate(plain, clients, tracker=NoTracker())
    first, other = secure.load_round(1).tensors, plain.load_round(1).tensors
    opened = {group for site in secure.read_record(1).sites for group in site.shares}
    assert {"fusion", "decoder", "encoder.flair"} <= opened
    assert "encoder.t1ce" not in opened
    for name, value in first.items():
        if group_of(name) in opened:
            np.testing.assert_allclose(value, other[name], atol=2e-5, err_msg=name)
    assert {site.outcome for site in secure.read_record(2).sites} == {Outcome.ACCEPTED}


def test_a_secure_simulation_that_was_stopped_goes_on_under_the_same_keys(sites: dict[str, SimulatedSite], tmp_path: Path) -> None:
    clients = make_secure(sites, tmp_path / "state")
    keys = {name: site.public_key() for name, site in clients.items()}
    folder = RunFolder.create(tmp_path / "run", secure_config(), run="r")

    def stop(event: Event) -> None:
        if event.kind is EventKind.ROUND_FINISHED:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(folder, clients, tracker=NoTracker(), keys=keys, on_event=stop)
    simulated_site._secure_site.cache_clear()
    assert keys == {name: site.public_key() for name, site in clients.items()}
    simulate(folder, clients, tracker=NoTracker(), keys=keys)
    assert folder.finished_rounds() == (0, 1, 2)


def test_without_a_key_a_simulated_site_takes_no_part_in_a_secure_round(sites: dict[str, SimulatedSite], tmp_path: Path) -> None:
    clients = {name: replace(site, secure=False) for name, site in make_secure(sites, tmp_path / "state").items()}
    folder = RunFolder.create(tmp_path / "run", secure_config(), run="r")
    with pytest.raises(FederationError, match="too few good replies"):
        simulate(folder, clients, tracker=NoTracker())
    refused = read_events(folder.events_path, kinds={EventKind.REPLY_REFUSED})
    assert {event.code for event in refused} == {ReasonCode.CONFIG}


def test_sites_of_a_process_share_the_models_they_received() -> None:
    assert simulated_site._shared_shelf(2) is simulated_site._shared_shelf(2)
