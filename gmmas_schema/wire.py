"""How tensors travel between coordinator and site (strategies.wire)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gmmas_schema.base import FrozenModel

KeptShare = Annotated[float, Field(gt=0, lt=1)]


class WireConfig(FrozenModel):
    """Precision of what travels. Anchors and log-variances of losses always travel as fp32.

    Attributes:
        down: values of the model that the sites receive. Sites train from what arrives; the coordinator keeps its model in fp32 and adds
            their changes to that, so rounding does not add up over the rounds.
        up: what a site answers with: `fp32` the trained values as they are; `fp16` and `int8` their change in this round, int8 with one
            scale per output channel.
        error_feedback: what a lossy answer leaves out is added to the site's next one. Without effect where `up` is fp32.
        top_k: share of each tensor's changes that is sent, the largest; None sends all. Needs `up: int8`. Small tensors are sent whole.
        reuse: a site that still holds the very model of a request is sent its hash instead.
    """

    down: Literal["fp32", "fp16"] = "fp16"
    up: Literal["fp32", "fp16", "int8"] = "fp32"
    error_feedback: bool = True
    top_k: KeptShare | None = None
    reuse: bool = True

    @model_validator(mode="after")
    def _sparse_changes_are_int8(self) -> "WireConfig":
        if self.top_k is not None and self.up != "int8":
            raise ValueError(f"top_k ({self.top_k:g}) needs up: int8, not up: {self.up}: only changes can be left out, and int8 is cheaper")
        return self
