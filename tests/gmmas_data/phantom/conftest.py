"""Shared by the phantom's tests: the atlas and one made case, which take seconds."""

import numpy as np
import pytest

from gmmas_data.phantom.atlas import Atlas, load_atlas
from gmmas_data.phantom.case import PhantomCase, make_case
from gmmas_schema.phantom import SCANNERS
from gmmas_schema.vocabulary import Subtype

SEED = np.random.SeedSequence(3, spawn_key=(1, 2))


@pytest.fixture(scope="session")
def atlas() -> Atlas:
    return load_atlas(2)


@pytest.fixture(scope="session")
def glioblastoma(atlas: Atlas) -> PhantomCase:
    return make_case(SEED, atlas=atlas, subtype=Subtype.GLIOBLASTOMA, scanner=SCANNERS["research-3t"], spacing_mm=3.0)
