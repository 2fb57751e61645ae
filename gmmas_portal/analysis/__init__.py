"""From a case on disk to its record: prediction, measurements, reasons to leave questions open.

    analyse      a case and a model give an Analysis: record, label map, probabilities, uncertainty
    remeasure    a corrected label map gives the record's next version
    montage      slices with the outline as PNG, for the PDF and for browsers without WebGL2

Names are looked up when they are first used, so that a process that only serves what was analysed does without torch's 200 MB.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from gmmas_portal.analysis.case_analysis import DEFAULT_PLAN, Analysis, analyse, mask_digest, remeasure
    from gmmas_portal.analysis.context import CaseContext, KnownModel, TissueResults
    from gmmas_portal.analysis.files import read_frame, read_mask, read_record, write_analysis, write_mask
    from gmmas_portal.analysis.frame import MeasurementFrame
    from gmmas_portal.analysis.montage import draw_montage, draw_slice

__all__ = [
    "DEFAULT_PLAN",
    "Analysis",
    "CaseContext",
    "KnownModel",
    "MeasurementFrame",
    "TissueResults",
    "analyse",
    "draw_montage",
    "draw_slice",
    "mask_digest",
    "read_frame",
    "read_mask",
    "read_record",
    "remeasure",
    "write_analysis",
    "write_mask",
]

_MODULES: Final = {
    "case_analysis": ("DEFAULT_PLAN", "Analysis", "analyse", "mask_digest", "remeasure"),
    "context": ("CaseContext", "KnownModel", "TissueResults"),
    "files": ("read_frame", "read_mask", "read_record", "write_analysis", "write_mask"),
    "frame": ("MeasurementFrame",),
    "montage": ("draw_montage", "draw_slice"),
}


def __getattr__(name: str) -> Any:
    """Return an exported name from the module it lives in."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
