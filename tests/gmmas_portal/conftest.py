"""Analyses of the small real case by random weights: what they say means nothing, that they say it consistently does."""

import numpy as np
import pytest
import torch

from gmmas_data.volumes import read_labels
from gmmas_model.weights import Weights
from gmmas_portal.analysis import Analysis, analyse, remeasure
from gmmas_schema.case_record import CaseRecord
from gmmas_schema.inference import InferencePlan
from gmmas_schema.model import GridConfig, ModelDefinition, NetworkConfig
from gmmas_schema.vocabulary import ENHANCING, NECROSIS, OEDEMA
from tests.gmmas_workflows.predictions import CASE, random_weights


@pytest.fixture(scope="session")
def portal_weights() -> Weights:
    """Random weights of a small network on a coarse grid."""
    torch.set_num_threads(1)
    network = NetworkConfig(channels=(4, 8), blocks=(1, 1), transformer_layers=1, transformer_heads=2)
    return random_weights(ModelDefinition(network=network, grid=GridConfig(spacing_mm=8.0, shape=(24, 24, 24))))


@pytest.fixture(scope="session")
def analysis(portal_weights: Weights) -> Analysis:
    """The small real case, with Monte-Carlo passes. A random outline is like no glioma, so all that rests on it is left open."""
    return analyse(CASE, portal_weights, plan=InferencePlan(passes=2), device="cpu")


@pytest.fixture(scope="session")
def outlined() -> np.ndarray:
    """The expert's outline of the small real case, in our own values."""
    labels: np.ndarray = read_labels(CASE / "BraTS2021_00006_seg.nii.gz", meaning={1: NECROSIS, 2: OEDEMA, 4: ENHANCING}).values_XYZ
    return labels


@pytest.fixture(scope="session")
def corrected(analysis: Analysis, outlined: np.ndarray) -> CaseRecord:
    """The record once the expert has corrected the outline."""
    return remeasure(analysis.record, outlined, author="Weber^Änne", frame=analysis.frame)
