"""The plot: overhead and processor seconds per round, and the coordinator's memory by number of sites."""

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

COLOURS: Final = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#000000", "#999999")
STYLES: Final = {"4 MB": "-o", "20 MB": "--s", "tiny": ":x"}
PANELS: Final = (("overhead_s", "seconds beside training"), ("cpu_s", "processor seconds"))


def draw(summary: dict[str, Any], path: Path) -> None:
    """Draw bars per system for each model and number of sites (logarithmic), and the coordinator's memory."""
    rows = summary["rows"]
    colour = dict(zip(summary["systems"], COLOURS, strict=False))
    figure, panels = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    for panel, (key, label) in zip(panels, PANELS, strict=False):
        _bars(panel, [row for row in rows if not row["system"].endswith("-nodes")], key=key, label=f"{label} per round", colour=colour)
    _memory(panels[2], rows, colour=colour)
    systems = [Patch(color=shade, label=system) for system, shade in colour.items()]
    figure.legend(handles=systems, loc="outside lower center", ncols=len(systems), fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _bars(panel: Axes, rows: list[dict[str, Any]], *, key: str, label: str, colour: dict[str, str]) -> None:
    groups = list(dict.fromkeys((row["model"], row["sites"]) for row in rows))
    systems = [system for system in colour if any(row["system"] == system for row in rows)]
    width = 0.8 / max(1, len(systems))
    for index, system in enumerate(systems):
        found = [(groups.index((row["model"], row["sites"])), max(row[key], 1e-2)) for row in rows if row["system"] == system]
        places = [place + (index - (len(systems) - 1) / 2) * width for place, _ in found]
        bars = panel.bar(places, [value for _, value in found], width, color=colour[system])
        panel.bar_label(bars, fmt="%.3g", fontsize=7)
    panel.set(ylabel=label, yscale="log", xticks=range(len(groups)), xticklabels=[f"{model}, {sites} sites" for model, sites in groups])
    panel.margins(y=0.15)
    panel.spines[["top", "right"]].set_visible(False)


def _memory(panel: Axes, rows: list[dict[str, Any]], *, colour: dict[str, str]) -> None:
    for system, shade in colour.items():
        for model, style in STYLES.items():
            found = sorted((row["sites"], row["coordinator_peak_mib"]) for row in rows if (row["system"], row["model"]) == (system, model))
            if found:
                panel.plot(*zip(*found, strict=True), style, color=shade, markersize=4)
    sites = sorted({row["sites"] for row in rows})
    panel.set(xlabel="sites", ylabel="coordinator's processes, at once, MiB", xscale="log", ylim=(0, None))
    panel.set_xticks(sites, [str(count) for count in sites])
    panel.minorticks_off()
    models = dict.fromkeys(row["model"] for row in rows)
    panel.legend(
        handles=[Line2D([], [], color="grey", marker=STYLES[model][-1], linestyle="", label=model) for model in models],
        fontsize=8,
        frameon=False,
    )
    panel.spines[["top", "right"]].set_visible(False)
