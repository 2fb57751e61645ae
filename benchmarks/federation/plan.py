"""What is measured: cells of (system, sites, model), each repeated, in an order that alternates the systems."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from gmmas_schema.base import FrozenModel
from gmmas_schema.federation import FederationConfig
from gmmas_schema.model import ModelDefinition, NetworkConfig

System = Literal["gmmas", "gmmas-plain", "flower", "flower-train-only", "nvflare", "nvflare-simulator", "gmmas-nodes", "flower-nodes"]

WHAT: Final[dict[System, str]] = {
    "gmmas": "this project as deployed: SuperLink, executor and ServerApp; supervisor, SuperNode, executor and trainer at each site",
    "gmmas-plain": "this project with fp32 both ways, as the others send",
    "flower": "Flower's FedAvg as it comes: training and evaluation, one process per message, the app imports torch",
    "flower-train-only": "Flower's FedAvg without its federated evaluation (fraction_evaluate=0)",
    "nvflare": "NVFlare's FedAvg in POC mode: provisioned, mTLS, a server, a job process, and two processes per site",
    "nvflare-simulator": "NVFlare's FedAvg in its simulator, one process per site, no TLS",
    "gmmas-nodes": "this project's coordinator with real processes; the nodes are threads of one process that speak the Fleet API over TLS",
    "flower-nodes": "Flower's coordinator with real processes and FedAvg; the nodes are threads, as in gmmas-nodes",
}
DEPLOYED: Final[tuple[System, ...]] = ("gmmas", "flower", "gmmas-plain", "flower-train-only", "nvflare")
"""What is measured where nothing is named: each system as it is deployed, and at equal work (COMPARED)."""
COMPARED: Final[tuple[tuple[str, System, System], ...]] = (
    ("as deployed", "gmmas", "flower"),
    ("equal work", "gmmas-plain", "flower-train-only"),
    ("equal work", "gmmas-plain", "nvflare"),
    ("nodes as threads", "gmmas-nodes", "flower-nodes"),
)
"""Whose ratio is told. Equal work: both ways fp32, and a round is the training only."""
MODELS: Final[dict[str, NetworkConfig]] = {"4 MB": NetworkConfig(), "20 MB": NetworkConfig(channels=(18, 36, 72, 144))}
"""The default network, and a wider one; fp32 bytes as named."""
TINY: Final = NetworkConfig(channels=(4, 8), blocks=(1, 1), transformer_heads=2)


class Cell(FrozenModel):
    """One run to measure.

    Attributes:
        rounds: rounds of the run; there is one period less.
        train_s: seconds of a site's stand-in training.
        repeat: number of the repeat, from 0.
    """

    system: System
    sites: PositiveInt
    model: str = Field(pattern=r"^(tiny|4 MB|20 MB)$")
    rounds: int = Field(default=4, ge=2)
    train_s: PositiveFloat = 2.0
    repeat: int = Field(default=0, ge=0)

    @property
    def network(self) -> NetworkConfig:
        """Return the network whose tensors travel."""
        return TINY if self.model == "tiny" else MODELS[self.model]

    @property
    def name(self) -> str:
        """Return the name of the cell's folder; what is not in it is in the result."""
        return f"{self.system}-{self.sites}sites-{self.model.replace(' ', '')}-{self.rounds}x{self.train_s:g}s-{self.repeat}"

    @property
    def patience_s(self) -> float:
        """Return how long any step of the run may take, the whole of its rounds too: with 64 sites, two of plain Flower take 1,150 s."""
        return 30.0 * max(30, self.sites)

    @property
    def federation(self) -> FederationConfig:
        """Return this project's configuration of the run, which every site must answer in every round, at once; the other systems take
        seed and network from it.
        """
        shape = (8, 8, 8) if self.model == "tiny" else (48, 48, 48)
        definition = ModelDefinition.model_validate({"network": self.network, "grid": {"shape": shape}})
        wire = {"down": "fp32", "up": "fp32"} if self.system == "gmmas-plain" else {}
        return FederationConfig.model_validate(
            {
                "name": "bench",
                "rounds": self.rounds,
                "model": definition,
                "wire": wire,
                "calibration": None,
                "quorum": {
                    "sites": self.sites,
                    "replies": self.sites,
                    "round_attempts": 1,
                    "join_deadline_s": 900,
                    "round_deadline_s": 900,
                },
            }
        )


def plan_cells(
    *, systems: Sequence[System], sites: Sequence[int], models: Sequence[str], rounds: int, train_s: float, repeats: int
) -> list[Cell]:
    """Return the cells; within a repeat, systems alternate fastest, so that those that are compared run one after the other."""
    return [
        Cell(system=system, sites=count, model=model, rounds=rounds, train_s=train_s, repeat=repeat)
        for repeat in range(repeats)
        for model in models
        for count in sites
        for system in systems
    ]


def notes_folder(folder: Path) -> Path:
    """Return where the sites of a run note when they trained."""
    return folder / "notes"
