"""Tables and the plot of what was measured: medians over the repeats, ratios against Flower within the same run."""

import json
from collections.abc import Sequence
from statistics import median
from typing import Any, Final

from benchmarks.federation.measure import Result
from benchmarks.federation.plan import WHAT, System

BASE: Final[dict[System, System]] = {"gmmas-nodes": "flower-nodes", "flower-nodes": "flower-nodes"}
"""What a system's ratios are taken against; Flower's deployment where nothing is named."""
MB: Final = 1e6
COLUMNS: Final = (
    *("model", "sites", "system", "overhead, s", "of Flower", "CPU-s", "of Flower", "coordinator, MiB", "payload down, up, MB"),
    *("loopback, MB", "periods"),
)

Key = tuple[System, int, str]


def summarise(results: Sequence[Result], *, command: str) -> dict[str, Any]:
    """Return the medians by system, sites and model, with ratios, beside every run they are made of."""
    groups: dict[Key, list[Result]] = {}
    for result in results:
        groups.setdefault((result.cell.system, result.cell.sites, result.cell.model), []).append(result)
    rows = []
    for (system, sites, model), group in sorted(groups.items(), key=lambda item: (item[0][2] == "20 MB", item[0][1], item[0][0])):
        base = groups.get((BASE.get(system, "flower"), sites, model))
        rows.append(_row(system, sites, model, group, base))
    first = results[0]
    return {
        "command": command,
        "machine": first.machine,
        "load": sorted(round(result.load, 1) for result in results),
        "train_s": first.cell.train_s,
        "software": sorted({result.software for result in results}),
        "own_loopback": all(result.own_loopback for result in results),
        "accounting_error_s": max(result.ended_unseen_s for result in results),
        "systems": {system: WHAT[system] for system in sorted({result.cell.system for result in results})},
        "rows": rows,
        "runs": [json.loads(result.model_dump_json()) for result in results],
    }


def _row(system: System, sites: int, model: str, group: Sequence[Result], base: Sequence[Result] | None) -> dict[str, Any]:
    rounds = group[0].cell.rounds
    row: dict[str, Any] = {
        "system": system,
        "sites": sites,
        "model": model,
        "runs": len(group),
        "periods": sum(result.periods for result in group),
        "overhead_s": round(median(result.overhead_s for result in group), 2),
        "cpu_s": round(median(result.cpu_s for result in group), 2),
        "coordinator_peak_mib": round(median(result.coordinator_peak_mib for result in group), 1),
        "loopback_mb": round(median(result.loopback_bytes for result in group) / MB, 1),
        "payload_down_mb_per_site": round(median(result.extra["payload_down"] for result in group) / sites / rounds / MB, 2),
        "payload_up_mb_per_site": round(median(result.extra["payload_up"] for result in group) / sites / rounds / MB, 2),
    }
    if base:
        row["overhead_of_flower"] = round(row["overhead_s"] / median(result.overhead_s for result in base), 3)
        row["cpu_of_flower"] = round(row["cpu_s"] / median(result.cpu_s for result in base), 3)
    return row


def write_markdown(summary: dict[str, Any]) -> str:
    """Return the summary as a page."""
    lines = [
        "# What a round costs beside the training",
        "",
        f"`{summary['command']}` on {summary['machine']}; load average {summary['load'][0]} to {summary['load'][-1]}. Stand-in training of "
        f"{summary['train_s']:g} s. Medians over runs; *of Flower* is the ratio to plain Flower with as many sites and the same model. "
        "Payload is what messages carry per site and round; loopback is everything that passed the machine's loopback per round, each "
        f"node's inner traffic and all headers included. Software of this project: {', '.join(summary['software'])}.",
        "",
        _line(COLUMNS),
        _line(["---"] * len(COLUMNS)),
        *(_line(_cells(row)) for row in summary["rows"]),
    ]
    lines += ["", *(f"- **{system}**: {what}." for system, what in summary["systems"].items()), ""]
    lines += _programs(summary)
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: dict[str, Any]) -> list[str]:
    def ratio(key: str) -> str:
        return f"{row[key]:.2f}" if key in row else ""

    return [
        row["model"],
        str(row["sites"]),
        row["system"],
        f"{row['overhead_s']:.2f}",
        ratio("overhead_of_flower"),
        f"{row['cpu_s']:.2f}",
        ratio("cpu_of_flower"),
        f"{row['coordinator_peak_mib']:.0f}",
        f"{row['payload_down_mb_per_site']:.2f}, {row['payload_up_mb_per_site']:.2f}",
        f"{row['loopback_mb']:.1f}" if row["loopback_mb"] else "",
        str(row["periods"]),
    ]


def _programs(summary: dict[str, Any]) -> list[str]:
    """Return where the processor seconds go, of the last run of each system with the fewest sites."""
    lines = ["Where the processor seconds of a round go (one run each):", ""]
    seen = set()
    for run in sorted(summary["runs"], key=lambda run: (run["cell"]["sites"], run["cell"]["model"] != "4 MB", -run["cell"]["repeat"])):
        system = run["cell"]["system"]
        if system not in seen:
            seen.add(system)
            parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in list(run["cpu_by_program"].items())[:7])
            lines.append(f"- {system}, {run['cell']['sites']} sites, {run['cell']['model']}: {parts}")
    return [*lines, ""]
