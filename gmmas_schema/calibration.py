"""Calibration: one temperature per head, reliability by confidence, and below which confidence a head abstains (calibration.json).

A temperature T > 0 divides a head's logit: s(l / T) is less sure than s(l) for T > 1 (Guo et al., ICML 2017, "On Calibration of Modern
Neural Networks"). Heads are those of conditional probabilities (WT, TC given WT, ET given TC, IDH, 1p/19q given IDH mutant, and optional
molecular ones), so nested regions stay nested and WHO CNS5 is obeyed whatever the temperatures.

Everything that a site reports is a sum over its patients, so sites are merged by addition.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator

from gmmas_schema.vocabulary import Region, Task


def _one_head(value: Region | Task) -> Region | Task:
    if value is Task.SEGMENTATION:
        raise ValueError("the segmentation has three heads: wt, tc, et")
    return value


Head = Annotated[Region | Task, AfterValidator(_one_head)]
"""What has a temperature of its own: a region or a molecular task."""

Temperatures = Mapping[Region | Task, float]
"""Temperature per head; a head that is not named has temperature 1."""
