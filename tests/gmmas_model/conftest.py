"""A network small enough for hundreds of forward passes, and batches with any pattern of labels and modalities."""

from collections.abc import Callable, Iterator

import pytest
import torch

from gmmas_model.batch import Batch
from gmmas_model.network import GmmasNetwork
from gmmas_schema.model import NetworkConfig
from gmmas_schema.vocabulary import REQUIRED_TASKS, Task

TINY = NetworkConfig(channels=(4, 8), blocks=(1, 1), transformer_layers=1, transformer_heads=2)
NAN = float("nan")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def network() -> GmmasNetwork:
    torch.manual_seed(0)
    return GmmasNetwork(TINY)


@pytest.fixture(scope="session")
def networks() -> dict[tuple[Task, ...], GmmasNetwork]:
    """One network for every choice of optional heads."""
    choices = [(*REQUIRED_TASKS, *extra) for extra in ((), (Task.GRADE,), (Task.MGMT,), (Task.GRADE, Task.MGMT))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {tasks: GmmasNetwork(TINY.model_copy(update={"tasks": tasks})) for tasks in choices}


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Batch]:
    return _make_batch


def _make_batch(
    *,
    present: list[list[bool]],
    idh: list[float] | None = None,
    codeletion: list[float] | None = None,
    grade: list[float] | None = None,
    mgmt: list[float] | None = None,
    known: list[list[bool]] | None = None,
    tumour: bool = True,
    side: int = 8,
    seed: int = 0,
) -> Batch:
    """Return a batch whose tumour is three nested cubes, brighter than the rest in every modality; labels default to unknown."""
    size = len(present)
    labels = {"idh": idh, "codeletion": codeletion, "grade": grade, "mgmt": mgmt}
    generator = torch.Generator().manual_seed(seed)
    regions_BRXYZ = torch.zeros(size, 3, side, side, side)
    if tumour:
        for region, margin in enumerate((side // 8, side // 4, 3 * side // 8)):
            box = slice(margin, side - margin)
            regions_BRXYZ[:, region, box, box, box] = 1
    image_BMXYZ = 0.3 * torch.randn(size, 4, side, side, side, generator=generator) + regions_BRXYZ.sum(1, keepdim=True)
    return Batch(
        image_BMXYZ=image_BMXYZ,
        present_BM=torch.tensor(present),
        shown_BM=torch.tensor(present),
        regions_BRXYZ=regions_BRXYZ,
        region_known_BR=torch.tensor(known if known is not None else [[False] * 3] * size),
        **{f"{name}_B": torch.tensor(label if label is not None else [NAN] * size) for name, label in labels.items()},
    )
