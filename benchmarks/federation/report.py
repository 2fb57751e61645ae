"""The page of what was measured: medians over the repeats, two systems side by side with their ratio, and what is missing."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final

from benchmarks.federation.measure import Result
from benchmarks.federation.plan import COMPARED, MODELS, WHAT, Cell, System

MB: Final = 1e6
TOLD_SHARE: Final = 0.01
"""Share of unseen processor seconds from which on the page tells it."""
TRUSTED_SHARE: Final = 0.05
"""Share of unseen processor seconds above which there is no figure and no ratio."""
COLUMNS: Final = (
    *("model", "sites", "system", "overhead, s", "CPU-s", "coordinator, MiB", "payload down, up, MB", "loopback, MB", "runs, periods"),
)
SIDES: Final = ("compared", "model", "sites", "overhead, s", "ratio", "CPU-s", "ratio", "coordinator, MiB", "ratio")

Key = tuple[System, int, str]
Row = dict[str, Any]


def summarise(results: Sequence[Result], *, command: str, missing: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the medians by system, sites and model, and ratios, beside every run they are made of.

    Args:
        results: of the runs.
        command: that made them.
        missing: why a planned cell has no result, by its name.
    """
    groups: dict[Key, list[Result]] = {}
    for result in results:
        groups.setdefault((result.cell.system, result.cell.sites, result.cell.model), []).append(result)
    rows = [_row(*key, group) for key, group in sorted(groups.items(), key=lambda item: _order(item[0]))]
    first = results[0]
    return {
        "command": command,
        "machine": sorted({result.machine for result in results}),
        "load": sorted(round(result.load, 1) for result in results),
        "train_s": first.cell.train_s,
        "software": sorted({result.software for result in results}),
        "own_loopback": all(result.own_loopback for result in results),
        "systems": {system: WHAT[system] for system in WHAT if any(row["system"] == system for row in rows)},
        "compared": _compare(rows),
        "missing": dict(missing or {}),
        "rows": rows,
        "runs": [json.loads(result.model_dump_json()) for result in results],
    }


def count_rows(summary: Mapping[str, Any]) -> dict[str, int]:
    """Return how many runs stand behind each row of a summary."""
    return {f"{row['system']}, {row['sites']} sites, {row['model']}": row["runs"] for row in summary["rows"]}


def name_missing(cells: Sequence[Cell], results: Sequence[Result], failures: Mapping[str, str]) -> dict[str, str]:
    """Return why there is no result, by the name of each planned cell without one."""
    done = {result.cell.name for result in results}
    return {cell.name: failures.get(cell.name, "not run") for cell in cells if cell.name not in done}


def _order(key: Key) -> tuple[int, int, int]:
    system, sites, model = key
    return (["tiny", *MODELS].index(model), sites, list(WHAT).index(system))


def _row(system: System, sites: int, model: str, group: Sequence[Result]) -> Row:
    rounds = group[0].cell.rounds
    return {
        "system": system,
        "sites": sites,
        "model": model,
        "runs": len(group),
        "periods": sum(result.periods for result in group),
        "overhead_s": round(median(result.overhead_s for result in group), 2),
        "overhead_range_s": [round(end(result.overhead_s for result in group), 2) for end in (min, max)],
        "cpu_s": round(median(result.cpu_s for result in group), 2),
        "cpu_range_s": [round(end(result.cpu_s for result in group), 2) for end in (min, max)],
        "cpu_unseen_share": round(max(result.unseen_share for result in group), 4),
        "coordinator_peak_mib": round(median(result.coordinator_peak_mib for result in group), 1),
        "loopback_mb": round(median(result.loopback_bytes for result in group) / MB, 1),
        "payload_down_mb_per_site": round(median(result.extra["payload_down"] for result in group) / sites / rounds / MB, 2),
        "payload_up_mb_per_site": round(median(result.extra["payload_up"] for result in group) / sites / rounds / MB, 2),
    }


def _compare(rows: Sequence[Row]) -> list[Row]:
    """Return the two sides and the ratio of each comparison whose both sides were measured."""
    by_key = {(row["system"], row["sites"], row["model"]): row for row in rows}
    places = dict.fromkeys((row["model"], row["sites"]) for row in rows)
    found = []
    for what, system, base in COMPARED:
        for model, sites in places:
            sides = [by_key.get((each, sites, model)) for each in (system, base)]
            if sides[0] and sides[1]:
                found.append({"what": what, "system": system, "of": base, "model": model, "sites": sites} | _ratios(sides[0], sides[1]))
    return found


def _ratios(row: Row, base: Row) -> Row:
    keys = ["overhead_s", "cpu_s", "coordinator_peak_mib"]
    if max(side["cpu_unseen_share"] for side in (row, base)) > TRUSTED_SHARE:
        keys.remove("cpu_s")
    return {key: {"values": [row[key], base[key]], "ratio": round(row[key] / base[key], 3) if base[key] else None} for key in keys}


def write_markdown(summary: Mapping[str, Any]) -> str:
    """Return the summary as a page."""
    lines = [
        "# What a round costs beside the training",
        "",
        f"`{summary['command']}` on {'; '.join(summary['machine'])}; load average {summary['load'][0]} to {summary['load'][-1]}. Stand-in "
        f"training of {summary['train_s']:g} s. Medians over runs, with the smallest and the largest where there are several. Payload is "
        "what messages carry per site and round; loopback is everything that passed the machine's loopback per round, each node's inner "
        f"traffic and all headers included. Software of this project: {', '.join(summary['software'])}.",
        "",
    ]
    if summary["compared"]:
        lines += ["Side by side; the ratio is the first to the second.", "", _line(SIDES), _line(["---"] * len(SIDES))]
        lines += [*(_line(_sides(row)) for row in summary["compared"]), ""]
    lines += ["Each system:", "", _line(COLUMNS), _line(["---"] * len(COLUMNS)), *(_line(_cells(row)) for row in summary["rows"])]
    lines += ["", *(f"- **{system}**: {what}." for system, what in summary["systems"].items()), ""]
    return "\n".join([*lines, *_unseen(summary), *_missing(summary), *_programs(summary)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _sides(row: Row) -> list[str]:
    def pair(key: str, digits: int) -> list[str]:
        if key not in row:
            return ["", ""]
        first, second = row[key]["values"]
        return [f"{first:.{digits}f} / {second:.{digits}f}", "" if row[key]["ratio"] is None else f"{row[key]['ratio']:.2f}"]

    compared = f"{row['what']}: {row['system']} / {row['of']}"
    return [compared, row["model"], str(row["sites"]), *pair("overhead_s", 2), *pair("cpu_s", 2), *pair("coordinator_peak_mib", 0)]


def _cells(row: Row) -> list[str]:
    def spread(value: float, ends: Sequence[float]) -> str:
        return f"{value:.2f}" if row["runs"] == 1 else f"{value:.2f} ({ends[0]:.2f} to {ends[1]:.2f})"

    trusted = row["cpu_unseen_share"] <= TRUSTED_SHARE
    return [
        row["model"],
        str(row["sites"]),
        row["system"],
        spread(row["overhead_s"], row["overhead_range_s"]),
        spread(row["cpu_s"], row["cpu_range_s"]) if trusted else "not known, see below",
        f"{row['coordinator_peak_mib']:.0f}",
        f"{row['payload_down_mb_per_site']:.2f}, {row['payload_up_mb_per_site']:.2f}",
        f"{row['loopback_mb']:.1f}" if row["loopback_mb"] else "",
        f"{row['runs']}, {row['periods']}",
    ]


def _unseen(summary: Mapping[str, Any]) -> list[str]:
    """Return where processor seconds are too few, because processes ended and nobody counted them."""
    found = [
        f"- {row['system']}, {row['sites']} sites, {row['model']}: {row['cpu_unseen_share']:.1%} of its processor seconds, {_verdict(row)}"
        for row in summary["rows"]
        if row["cpu_unseen_share"] > TOLD_SHARE
    ]
    return ["Not seen by the accounting (the worst run of each):", "", *found, ""] if found else []


def _verdict(row: Row) -> str:
    return "which the figure lacks" if row["cpu_unseen_share"] <= TRUSTED_SHARE else "too many for a figure"


def _missing(summary: Mapping[str, Any]) -> list[str]:
    """Return the planned runs that are in no figure."""
    found = [f"- {name}: {why}" for name, why in summary["missing"].items()]
    return ["Planned and without a result:", "", *found, ""] if found else []


def _programs(summary: Mapping[str, Any]) -> list[str]:
    """Return where processor seconds and the coordinator's memory go, of one run of each system with the fewest sites."""
    lines = ["Where the processor seconds of a round and the coordinator's memory go (one run each):", ""]
    seen: Counter[str] = Counter()
    for run in sorted(summary["runs"], key=lambda run: (run["cell"]["sites"], run["cell"]["model"] != "4 MB", -run["cell"]["repeat"])):
        system = run["cell"]["system"]
        seen[system] += 1
        if seen[system] > 1:
            continue
        parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in list(run["cpu_by_program"].items())[:7])
        peaks = {name.removeprefix("coordinator/"): mib for name, mib in run["peak_by_program"].items() if name.startswith("coordinator/")}
        memory = ", ".join(f"{name} {mib:.0f}" for name, mib in sorted(peaks.items(), key=lambda item: -item[1]))
        lines.append(f"- {system}, {run['cell']['sites']} sites, {run['cell']['model']}: {parts}. MiB: {memory or 'not known'}")
    return [*lines, ""]
