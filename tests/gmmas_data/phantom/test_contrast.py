"""Contrasts follow physics: what is bright where."""

import numpy as np
import pytest

from gmmas_data.phantom.contrast import Contrast, draw_contrast
from gmmas_schema.phantom import SCANNERS
from gmmas_schema.vocabulary import MODALITIES, Modality


def mean_contrast(modality: Modality, scanner: str) -> Contrast:
    drawn = [draw_contrast(np.random.default_rng(s), modality, SCANNERS[scanner]) for s in range(60)]
    return Contrast(*(float(np.mean([getattr(c, f) for c in drawn])) for f in Contrast.__dataclass_fields__))


@pytest.mark.parametrize("scanner", SCANNERS)
def test_every_scanner_weights_as_its_sequence_says(scanner: str) -> None:
    t1, t1ce, t2, flair = (mean_contrast(m, scanner) for m in MODALITIES)
    assert t1.csf < t1.grey < 1
    assert t1.necrosis < t1.enhancing < 1.1
    assert t1ce.enhancing > 1.3
    assert 1 < t2.grey < t2.oedema < t2.csf
    assert flair.csf < 1 < flair.grey < flair.solid < flair.oedema


def test_spin_echo_flattens_t1() -> None:
    assert mean_contrast(Modality.T1, "old-1.5t").grey > mean_contrast(Modality.T1, "research-3t").grey
