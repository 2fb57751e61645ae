"""What a run costs, as tables within 80 columns: each site over the whole run, and each round over all sites or at one of them."""

from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from gmmas_schema.errors import ConfigError
from server.ledger import Cost, LedgerEntry, add_up
from server.wording import format_bytes, format_clock

Key = TypeVar("Key", int, str)

COORDINATOR: Final = "coordinator"
_FIGURES: Final = ("answers", "down", "up", "work", "slowest", "CPU s", "MiB")


def cost_tables(entries: Sequence[LedgerEntry], *, site: str | None = None) -> list[Table]:
    """Return the table of the sites and the table of the rounds.

    Args:
        entries: the ledger.
        site: show the rounds of this site alone.

    Raises:
        ConfigError: the ledger knows no such site.
    """
    by_site = _group((entry.site or "", entry) for entry in entries)
    coordinator = by_site.pop("", [])
    if site is not None and site not in by_site:
        raise ConfigError(
            "the run has no such site",
            where="--site",
            got=site,
            expected=", ".join(sorted(by_site)) or "a site that has answered",
            remedy="name one of these",
        )
    sites = _table("cost of each site over the run", "site")
    for name in sorted(by_site):
        sites.add_row(Text(name, style="bold"), *_cells(add_up(by_site[name])))
    sites.add_section()
    if len(by_site) > 1:
        sites.add_row(Text("all sites", style="dim"), *_cells(add_up(entry for own in by_site.values() for entry in own)))
    if coordinator:
        sites.add_row(Text(COORDINATOR, style="dim"), *_cells(add_up(coordinator), coordinator=True))
    shown = [entry for entry in entries if entry.site is not None] if site is None else by_site[site]
    own = _group((_number(entry), entry) for entry in coordinator) if site is None else {}
    rounds = _table(f"cost of each round{f' at {site}' if site else ', all sites together'}", "round")
    if own:
        rounds.add_column("coord. CPU s", justify="right", no_wrap=True)
    for number, each in sorted(_group((_number(entry), entry) for entry in shown).items()):
        last = [Text(f"{add_up(own[number]).cpu_seconds:.1f}")] if number in own else []
        rounds.add_row("joining" if number < 0 else str(number), *_cells(add_up(each)), *last)
    return [sites, rounds]


def _number(entry: LedgerEntry) -> int:
    """Return the round of an entry, -1 before the first."""
    return -1 if entry.round is None else entry.round


def _group(pairs: Iterable[tuple[Key, LedgerEntry]]) -> dict[Key, list[LedgerEntry]]:
    groups: dict[Key, list[LedgerEntry]] = {}
    for key, entry in pairs:
        groups.setdefault(key, []).append(entry)
    return groups


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column(first, overflow="fold", min_width=7)
    for column in _FIGURES:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _cells(cost: Cost, *, coordinator: bool = False) -> list[Text]:
    """Return the figures of a row; the coordinator's bytes are those of the sites."""
    answers = Text(f"{cost.answered}/{cost.asked}", style="" if cost.answered == cost.asked else "red")
    own = [Text(), Text(), Text()] if coordinator else [answers, Text(format_bytes(cost.bytes_down)), Text(format_bytes(cost.bytes_up))]
    slowest = 0.0 if coordinator else cost.slowest_s
    # What nobody told is empty, not nothing.
    cpu, memory = (f"{cost.cpu_seconds:.1f}" if cost.cpu_seconds else "", f"{cost.peak_memory_mib:.0f}" if cost.peak_memory_mib else "")
    return [*own, *map(Text, (_wall(cost.seconds), _wall(slowest), cpu, memory))]


def _wall(seconds: float) -> str:
    """Return a time that may be a part of a second or hours; empty where none was told."""
    if seconds == 0:
        return ""
    return f"{seconds:.1f} s" if seconds < 60 else format_clock(seconds)
