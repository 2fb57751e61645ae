"""Secure aggregation on real processes over TLS: three hospitals, and one's secrets killed after its masked update has left.

The true updates are made again in this process, from the models that the coordinator kept: a site's round is a function of what it is sent.
"""

import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from client.cohort import open_cohort, prepare_samples
from client.folder import NodeFolder
from client.secure_records import LEDGER_FILE
from gmmas_cli.demo_deployment import TRAINER_THREADS, DemoFolder, prepare_deployment, running_deployment
from gmmas_data.cache import SampleCache
from gmmas_data.phantom import make_cohorts
from gmmas_schema.events import Event, EventKind
from gmmas_schema.federation import FederationConfig
from gmmas_schema.groups import group_of
from gmmas_schema.messages import Action, TaskRequest
from gmmas_schema.phantom import PhantomSpec
from gmmas_schema.site import SiteConfig
from gmmas_schema.vocabulary import MODALITIES, Split
from gmmas_workflows.training import LocalTrainer
from server.checkpoint import RunFolder
from server.deployment import prepare_run, submit_run
from server.events import read_events
from server.following import follow_run
from server.records import Outcome
from strategies.exchange import tensors_down
from strategies.rows import split_rows
from strategies.secure.fixed_point import FixedPoint
from strategies.secure.ledger import LedgerDocument
from strategies.secure.vectors import flatten_update, group_names
from strategies.weighting import choose_weighting
from tests.integration.killing import kill_process

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

Float32 = NDArray[np.float32]
Updates = dict[int, dict[str, tuple[dict[str, Float32], dict[str, Float32], float]]]
"""By round and site: what it received, what it trained, and its weight."""

SITES = ("north", "south", "east")
VICTIM = "south"
CLIP = 0.25
BITS = 16
GRID = FixedPoint(sites=3, bits=BITS, ring_bits=32)
WEIGHT_LIMIT = 64.0
MASKED = 2
"""Messages of a secure round that a site has answered when its masked update has left: shares, masked update."""

SPEC = PhantomSpec.model_validate(
    {
        "seed": 4,
        "spacing_mm": 4.0,
        "sites": [
            {"name": "north", "cases": 4, "scanner": "research-3t"},
            {"name": VICTIM, "cases": 5, "scanner": "clinical-1.5t"},
            {"name": "east", "cases": 4, "scanner": "clinical-3t", "modalities": ["t1", "t2", "flair"]},
        ],
    }
)

CONFIG = FederationConfig.model_validate(
    {
        "name": "secure",
        "rounds": 2,
        "model": {
            "network": {"channels": [4, 8], "blocks": [1, 1], "transformer_heads": 2},
            "grid": {"spacing_mm": 8.0, "shape": [24, 24, 24]},
        },
        "training": {"local_steps": 2},
        "wire": {"down": "fp32", "up": "fp32"},
        "secure": {"clip": CLIP, "bits": BITS, "phase_deadline_s": 60},
        "robustness": {"norm_limit": None},
        "calibration": None,
        "quorum": {"sites": 3, "replies": 3, "join_deadline_s": 180, "round_deadline_s": 120},
    }
)


class Tap(threading.Thread):
    """Keeps every page that the coordinator's SuperLink writes: in SQLite's WAL mode all of them pass through one file."""

    HEADER, FRAME_HEADER, PAGE = 32, 24, 4096

    def __init__(self, database: Path) -> None:
        super().__init__(daemon=True)
        self._log, self._over = database.with_name(database.name + "-wal"), threading.Event()
        self._pages: dict[bytes, None] = {}

    def run(self) -> None:
        """Look at the file ten times a second."""
        while not self._over.wait(0.1):
            raw = self._log.read_bytes() if self._log.exists() else b""
            starts = range(self.HEADER + self.FRAME_HEADER, len(raw), self.FRAME_HEADER + self.PAGE)
            self._pages |= dict.fromkeys(raw[start : start + self.PAGE] for start in starts)

    def stop(self) -> bytes:
        """Return all that was seen."""
        self._over.set()
        self.join()
        return b"".join(self._pages)


@dataclass
class Killer:
    """Kills the executor of one hospital with SIGKILL as soon as it has handed over its masked update of round 2.

    Attributes:
        folder: of the federation.
        killed: process that was killed.
        stored: what the coordinator's database has held.
    """

    folder: DemoFolder
    killed: int | None = None
    stored: bytes = b""
    _answered: int = 0

    def __call__(self, event: Event) -> None:
        """Look at an event; from the end of round 1 on, wait for the moment in a thread."""
        if event.kind is EventKind.ROUND_FINISHED and event.round == 1:
            self._answered = self._count()
            threading.Thread(target=self._kill_when_masked, daemon=True).start()

    def _node(self) -> NodeFolder:
        return NodeFolder(SiteConfig.from_yaml(self.folder.site_yaml(VICTIM)).node.state)

    def _count(self) -> int:
        log = self._node().log("executor").read_text(encoding="utf-8", errors="replace")
        return len(re.findall(r"query\.secure: pull", log))

    def _kill_when_masked(self) -> None:
        while self._count() < self._answered + MASKED:
            time.sleep(0.02)
        self.killed = kill_process(self._node().state_file, "executor")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Killer]:
    """Run the federation once; every test below looks at what it left."""
    folder = DemoFolder(tmp_path_factory.mktemp("secure"))
    make_cohorts(SPEC, folder.cohorts, processes=2)
    prepare_deployment(folder, SPEC)
    prepare_run(folder.run, CONFIG)
    with running_deployment(folder, SPEC, on_wait=lambda _text: None):
        killer, tap = Killer(folder), Tap(folder.coordinator / "superlink.db")
        tap.start()
        submit_run(folder.coordinator, folder.run)
        end = follow_run(folder.run, on_event=killer)
        killer.stored = tap.stop()
    assert end.kind is EventKind.RUN_FINISHED, end.message
    return RunFolder.open(folder.run), killer


def _trained(folder: RunFolder, killer: Killer, site: str, number: int) -> tuple[dict[str, Float32], dict[str, Float32], float]:
    """Return what a site received, what it made of it, and its weight in every group it sends, which follows from its counts alone."""
    config = SiteConfig.from_yaml(killer.folder.site_yaml(site))
    cohort = open_cohort(config)
    samples = prepare_samples(cohort, SampleCache(NodeFolder(config.node.state).cache, CONFIG.model.grid), processes=1)
    modalities = tuple(m for m in MODALITIES if any(m in case.images for case in cohort.cases[Split.TRAIN]))
    trainer = LocalTrainer(CONFIG.model, samples, modalities=modalities, site=site, device="cpu", threads=TRAINER_THREADS)
    request = TaskRequest(
        action=Action.TRAIN,
        run=folder.run,
        round=number,
        rounds=CONFIG.rounds,
        seed=CONFIG.seed,
        model=CONFIG.model,
        plan=CONFIG.training,
    )
    received = tensors_down(folder.load_round(number - 1).tensors, modalities=modalities)
    outcome = trainer.train(received, request)
    return received, outcome.tensors, choose_weighting(CONFIG.strategy)(outcome.report)["fusion"]


@pytest.fixture(scope="module")
def updates(finished: tuple[RunFolder, Killer]) -> Updates:
    """What each site received and trained in each round, in the clear."""
    return {number: {site: _trained(*finished, site, number) for site in SITES} for number in (1, 2)}


def test_the_run_finishes_although_a_hospitals_secrets_were_killed(finished: tuple[RunFolder, Killer]) -> None:
    folder, killer = finished
    assert killer.killed is not None
    assert folder.finished_rounds() == (0, 1, 2)
    # Its masked update was in the sum before: it counts.
    assert {site.site: site.outcome for site in folder.read_record(2).sites} == dict.fromkeys(SITES, Outcome.ACCEPTED)


def test_the_events_tell_each_phase_and_who_dropped_out_of_which(finished: tuple[RunFolder, Killer]) -> None:
    told = [event for event in read_events(finished[0].events_path, kinds={EventKind.SUM_PHASE}) if event.round == 2]
    assert [event.detail["phase"] for event in told] == ["sharing keys", "masking", "agreeing", "unmasking"]
    dropped = [event.detail["dropped"] for event in told]
    assert dropped[:2] == [{}, {}]
    assert set(dropped[2]) == {VICTIM}
    assert f"agreeing: 2 of 3 answered, 2 needed; dropped out: {VICTIM}" in told[2].message
    (opened,) = [event for event in read_events(finished[0].events_path, kinds={EventKind.SUM_OPENED}) if event.round == 2]
    assert opened.detail["opened"]["fusion"] == sorted(SITES)
    assert opened.detail["closed"] == {"encoder.t1ce": "fewer than 3 holders", "gate.t1ce": "fewer than 3 holders"}


@pytest.mark.parametrize("number", [1, 2])
def test_the_model_is_the_sum_of_the_plain_updates_to_the_stated_error(
    finished: tuple[RunFolder, Killer], updates: Updates, number: int
) -> None:
    folder, (before, after) = finished[0], (split_rows(finished[0].load_round(each).tensors) for each in (number - 1, number))
    sent = [(split_rows(received), split_rows(trained), weight) for received, trained, weight in updates[number].values()]
    opened = {group for site in folder.read_record(number).sites for group in site.shares}
    assert {"encoder.t1", "fusion", "decoder", "head.segmentation.wt"} <= opened
    step = CLIP / (2 ** (BITS - 1) - 1)
    moved = 0
    for name, value in after.items():
        parts = [(trained[name].astype(float) - received[name], weight) for received, trained, weight in sent if name in trained]
        if group_of(name) not in opened:
            assert value.tobytes() == before[name].tobytes(), name
            continue
        if group_of(name) in {"fusion", "encoder.t1", "encoder.t2", "encoder.flair", "bottleneck"}:
            # The weights are rounded too, to one in thousands; with updates of this size that is less than a step.
            mean = sum(weight * np.clip(delta, -CLIP, CLIP) for delta, weight in parts) / sum(weight for _, weight in parts)
            tolerance = step + 2.0**-22 * max(1.0, float(np.abs(value).max()))
            np.testing.assert_allclose(value, before[name] + mean, atol=tolerance, rtol=0, err_msg=name)
            moved += int(np.abs(mean).max() > 20 * tolerance)
    assert moved > 10


def test_no_plain_update_is_in_what_the_coordinator_stored(finished: tuple[RunFolder, Killer], updates: Updates) -> None:
    everything = finished[1].stored
    for number in (0, 1):
        model = finished[0].load_round(number).tensors
        pieces = [piece for value in model.values() for piece in _pieces(value)]
        seen = sum(piece in everything for piece in pieces)
        assert seen > 0.8 * len(pieces) > 50, "the search finds what does travel in the clear: the model"
    for number, sites in updates.items():
        for site, (received, trained, weight) in sites.items():
            update = flatten_update(trained, received)
            values = {group: np.concatenate([trained[name].reshape(-1) for name in names]) for group, names in group_names(trained).items()}
            steps = {group: np.rint(np.clip(delta, -CLIP, CLIP) * ((2 ** (BITS - 1) - 1) / CLIP)) for group, delta in update.items()}
            unmasked = {"fusion": GRID.encode(update["fusion"], weight=GRID.weigh(weight, limit=WEIGHT_LIMIT), clip=CLIP)}
            for kind in (update, values, steps, {group: value.astype("<i4") for group, value in steps.items()}, unmasked):
                found = [group for group, value in kind.items() for piece in _pieces(value) if piece in everything]
                assert not found, (number, site, found)


def _pieces(value: NDArray[np.generic]) -> list[bytes]:
    """Return pieces of 24 bytes of an array's bytes, far apart, so that no page of a database cuts all of them; none that is all alike."""
    raw = np.ascontiguousarray(value).tobytes()
    pieces = [raw[start : start + 24] for start in range(0, len(raw) - 24, max(24, len(raw) // 4 // 4 * 4))]
    return [piece for piece in pieces if len(set(piece)) > 8]


def test_ledgers_are_kept_at_the_hospitals_and_their_keys_nowhere_else(finished: tuple[RunFolder, Killer]) -> None:
    folder, killer = finished
    for site in SITES:
        node = SiteConfig.from_yaml(killer.folder.site_yaml(site)).node
        assert Path(node.private_key).read_bytes().splitlines()[1] not in killer.stored
        ledger = LedgerDocument.model_validate_json((NodeFolder(node.state).training / LEDGER_FILE).read_bytes())
        # The process that was killed has opened the first sum and no other.
        assert set(ledger.opened[folder.run]) == ({1} if site == VICTIM else {1, 2})
