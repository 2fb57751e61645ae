"""How figures are said, on the terminal and on the dashboard."""

from collections.abc import Mapping
from typing import Final

from gmmas_schema.vocabulary import MARKER_NAMES, REGIONS

METRICS: Final = {
    "Dice": {f"dice_{region}": region.upper() for region in REGIONS},
    "AUC": {f"auc_{task}": name for task, name in MARKER_NAMES.items()},
}
"""Names in ModelScore.metrics and on the screen."""


def format_seconds(seconds: float) -> str:
    """Return a duration as 45 s, 3 min 05 s or 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_clock(seconds: float) -> str:
    """Return a duration as 0:45 or 2:05:30."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def format_metrics(metrics: Mapping[str, float]) -> str:
    """Return mean Dice per region and AUC per marker on one line; what was not measured is left out."""
    parts = []
    for family, names in METRICS.items():
        shown = [f"{label} {metrics[name]:.3f}" for name, label in names.items() if name in metrics]
        parts += [" ".join([family, *shown])] if shown else []
    return "  ".join(parts)


def format_bytes(count: float) -> str:
    """Return a number of bytes in kB, MB or GB (powers of ten)."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"
