"""What the coordinator needs for 10, 100 and 1,000 sites on one machine: memory, processor seconds and wall seconds of a round.

    python benchmarks/thousand_sites.py

Everything between coordinator and site is real: the round loop with its checks, its defences as they are by default, checkpoints, events
and ledger, the codec, and server.simulation's worker processes, which answer for the sites. Training is a stand-in, a seeded perturbation
of the tensors a site sends, for it is the coordinator that is measured. The network has its default size. Each number of sites is a
process of its own, whose memory, at its largest, is that of the coordinator; the workers are measured beside it.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message

from gmmas_runtime.memory import peak_memory_mib
from gmmas_schema.federation import FederationConfig, QuorumConfig
from gmmas_schema.groups import groups_sent
from gmmas_schema.messages import Action, Evaluation, Interval, SiteDescription, SiteReport, TaskRequest
from gmmas_schema.vocabulary import MODALITIES, REGIONS, Modality, Split, Task
from gmmas_workflows.site_state import SiteState
from server.checkpoint import RunFolder
from server.ledger import add_up, read_ledger
from server.simulation import NoTracker, simulate
from strategies.codec import write_report
from strategies.exchange import select_groups
from strategies.wire import FEEDBACK, SHELF, ModelShelf, SiteWire

RESULT = Path(__file__).parent / "results" / "thousand_sites.json"
HELD = (MODALITIES, (Modality.T1, Modality.T2, Modality.FLAIR), (Modality.T2, Modality.FLAIR))
"""Sequences of the sites, in turn."""
LABELLED = {Task.SEGMENTATION: 20, Task.IDH: 20, Task.CODELETION: 12}
CHANGE = 1e-3
"""Standard deviation of the perturbation that stands for training."""
_SHELF = ModelShelf(SHELF * len(HELD))


@dataclass(frozen=True)
class StandIn:
    """A site of which all is real but its cases and its training; small and picklable."""

    number: int

    @property
    def name(self) -> str:
        """The site's name."""
        return f"site-{self.number:04d}"

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The site's sequences."""
        return HELD[self.number % len(HELD)]

    def __call__(self, message: Message, _: Context) -> Message:
        """Answer as a site does."""
        wire = SiteWire(SiteState(kind=FEEDBACK), shelf=_SHELF)
        request, received = wire.open(message.content)
        if request.action is Action.DESCRIBE:
            return Message(write_report(self._describe(request)), reply_to=message)
        trained = self._train(request, received) if request.action is Action.TRAIN else {}
        return Message(wire.answer(request, self._report(request), received=received, trained=trained), reply_to=message)

    def _describe(self, request: TaskRequest) -> SiteDescription:
        digest = request.model.digest()
        return SiteDescription(
            site=self.name, model_digest=digest, software="benchmark", modalities=self.modalities, cases=20, labelled=LABELLED
        )

    def _train(self, request: TaskRequest, received: dict[str, Any]) -> dict[str, Any]:
        draw = np.random.default_rng((request.seed, request.round, self.number))
        mine = select_groups(received, groups_sent(self.modalities, LABELLED))
        return {name: value + CHANGE * draw.standard_normal(value.shape, dtype=np.float32) for name, value in mine.items()}

    def _report(self, request: TaskRequest) -> SiteReport:
        dice = {region: Interval(value=0.5, n=4) for region in REGIONS}
        return SiteReport(
            site=self.name,
            run=request.run,
            round=request.round,
            model_digest=request.model.digest(),
            modalities=self.modalities,
            cases=20,
            labelled=LABELLED,
            losses=dict.fromkeys(LABELLED, 0.5),
            steps=1,
            evaluation=Evaluation(split=request.evaluate or Split.VALIDATION, cases=4, dice=dice),
            peak_memory_mib=peak_memory_mib(),
        )


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, nargs="+", default=(10, 100, 1000))
    parser.add_argument("--processes", type=int, default=2, help="workers that answer for the sites")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    result: dict[str, Any] = {
        "command": " ".join(("python benchmarks/thousand_sites.py", *(sys.argv[1:] if arguments is None else arguments))),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "parameters": 0,
        "processes": options.processes,
        "sites": {},
    }
    # Not a pool: its workers are daemons, which may have no workers of their own.
    context = multiprocessing.get_context("spawn")
    for count in options.sites:
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=measure, args=(count, options.processes, sender))
        child.start()
        sender.close()  # the child's own is left, so that one that dies ends the waiting
        found = receiver.recv()
        child.join()
        result["parameters"] = found.pop("parameters")
        result["sites"][str(count)] = found
        print(count, found, flush=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


def measure(count: int, processes: int, sender: Any) -> None:
    """Run one round over so many sites, and send what it cost."""
    config = FederationConfig(name="scale", rounds=1, calibration=None, quorum=QuorumConfig(sites=count, replies=count))
    sites = {site.name: site for site in map(StandIn, range(count))}
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run", config)
        before, start = peak_memory_mib(), time.perf_counter()
        simulate(run, sites, tracker=NoTracker(), processes=processes)
        seconds = time.perf_counter() - start
        (record,) = run.read_records()
        ledger = read_ledger(run.events_path)
        trained = [entry for entry in ledger if entry.action == "train"]
        coordinator = next(entry for entry in ledger if entry.action == "coordinate")
        parameters = sum(value.size for value in run.load_round(1).tensors.values())
    cost = add_up(trained)
    assert cost.answered == count, f"{cost.answered} of {count} answered"
    sender.send(
        {
            "parameters": parameters,
            "coordinator_peak_mib": round(peak_memory_mib(), 1),
            "coordinator_mib_before": round(before, 1),
            "worker_peak_mib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, 1),
            "coordinator_cpu_s": round(coordinator.cpu_seconds or 0.0, 2),
            "coordinator_stages_s": {name: round(seconds, 2) for name, seconds in coordinator.stages.items()},
            "worker_cpu_s_per_site": round(_children_cpu_s() / count, 4),
            "round_wall_s": round(record.seconds, 2),
            "round_wall_s_per_site": round(record.seconds / count, 4),
            "run_wall_s": round(seconds, 1),
            "mib_down_per_site": round(cost.bytes_down / count / 2**20, 2),
            "mib_up_per_site": round(cost.bytes_up / count / 2**20, 2),
        }
    )


def _children_cpu_s() -> float:
    """Return the processor seconds of the workers that have ended: their start, the round, and the evaluations after it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
