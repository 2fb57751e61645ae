"""A network small enough for hundreds of forward passes, and batches with any pattern of labels and modalities."""

from collections.abc import Callable, Iterator

import pytest
import torch

from gmmas_model.batch import Batch
from gmmas_model.network import GmmasNetwork
from gmmas_schema.model import NetworkConfig

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
def make_batch() -> Callable[..., Batch]:
    return _make_batch


def _make_batch(
    *,
    present: list[list[bool]],
    idh: list[float] | None = None,
    codeletion: list[float] | None = None,
    known: list[list[bool]] | None = None,
    tumour: bool = True,
    side: int = 8,
    seed: int = 0,
) -> Batch:
    """Return a batch whose tumour is three nested cubes, brighter than the rest in every modality; labels default to unknown."""
    size = len(present)
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
        regions_BRXYZ=regions_BRXYZ,
        region_known_BR=torch.tensor(known if known is not None else [[False] * 3] * size),
        idh_B=torch.tensor(idh if idh is not None else [NAN] * size),
        codeletion_B=torch.tensor(codeletion if codeletion is not None else [NAN] * size),
    )
