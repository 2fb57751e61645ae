"""`gmmas site check`: is this machine fit, is the coordinator there, and is the data what it says it is?

Nothing leaves the site by this command. With --consent it signs the counts that the report shows as fit to leave, and writes them to a
file that a person may send.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from client.folder import NodeFolder
from client.machine import Check, CheckState, check_machine
from gmmas_cli.progress import progress_bar
from gmmas_data.audit_report import SERIOUS, write_report
from gmmas_data.cases import Case
from gmmas_data.cohort_audit import aggregate_of, audit_cohort
from gmmas_data.layouts import read_cases, survey_folder
from gmmas_runtime.files import read_hex, write_atomic
from gmmas_runtime.keys import load_node_key
from gmmas_runtime.signed_record import sign_record
from gmmas_schema.audit import SALT_BYTES, AuditAggregate, CohortAudit
from gmmas_schema.errors import ConfigError
from gmmas_schema.site import SiteConfig

_STYLES = {CheckState.GOOD: "green", CheckState.WARNING: "yellow", CheckState.BAD: "bold red"}
_SHOWN_FINDINGS = 12
_FAULT = 1


def check(
    config: Annotated[Path, typer.Option("--config", "-c", help="site.yaml of the site.")] = Path("site.yaml"),
    *,
    offline: Annotated[bool, typer.Option("--offline", help="Ask nothing of the coordinator.")] = False,
    machine: Annotated[bool, typer.Option("--machine/--no-machine", help="Check machine and connection.")] = True,
    data: Annotated[bool, typer.Option("--data/--no-data", help="Audit the cohort.")] = True,
    report: Annotated[Path | None, typer.Option(help="Folder of the report; <state>/audit by default.", show_default=False)] = None,
    processes: Annotated[
        int | None, typer.Option(help="Cases at one time; node.threads by default. One takes about 1 GiB.", min=1, show_default=False)
    ] = None,
    salt: Annotated[Path | None, typer.Option(help="Salt of the federation: adds keyed fingerprints.", show_default=False)] = None,
    consent: Annotated[
        bool, typer.Option("--consent", help="Sign the counts that may leave and write them to a file; nothing is sent.")
    ] = False,
) -> None:
    """Check the machine and the connection, and audit the data. Exit code 1 if something has to be mended."""
    console = Console()
    site = SiteConfig.from_yaml(config)
    bad = False
    if machine:
        with console.status("checking the machine" + ("" if offline else f" and asking {site.coordinator.address}")):
            checks = check_machine(site, offline=offline)
        console.print(_check_table(checks))
        bad |= any(one.state is CheckState.BAD for one in checks)
    if data:
        bad |= _check_data(console, site, folder=report, processes=processes, salt=salt, consent=consent)
    if bad:
        raise typer.Exit(_FAULT)


def _check_table(checks: tuple[Check, ...]) -> Table:
    table = Table(title="Machine", title_justify="left", box=SIMPLE)
    for column in ("check", "", "found"):
        table.add_column(column, no_wrap=column != "found", overflow="fold")
    for one in checks:
        found = Text(one.found)
        if one.remedy:
            found.append(f"\n{one.remedy}", style="cyan")
        table.add_row(one.name, Text(one.state, style=_STYLES[one.state]), found)
    return table


def _check_data(
    console: Console, site: SiteConfig, *, folder: Path | None, processes: int | None, salt: Path | None, consent: bool
) -> bool:
    """Audit the cohort, write the report, and return whether something has to be mended."""
    key = load_node_key(site.node.private_key) if consent else None
    secret = None if salt is None else read_salt(salt)
    data = site.data
    survey = survey_folder(data.root, layout=data.layout, exclude=data.exclude)
    cases = read_cases(data)
    folder = folder or NodeFolder(site.node.state).root / "audit"
    with progress_bar(console, "auditing", each="case") as update:
        audit, pictures = audit_cohort(
            cases, site=site.site, survey=survey, folder=folder / "cases", processes=processes or site.node.threads, on_progress=update
        )
    aggregate = aggregate_of(audit, cases, salt=secret)
    path = write_report(folder, audit, aggregate, pictures)
    _print_findings(console, audit, cases)
    console.print(Text.assemble("The report names cases and stays here: ", (str(path), "bold")), soft_wrap=True)
    if key is not None:
        target = folder / f"aggregate-{site.site}.json"
        again = target.exists()
        write_atomic(target, sign_record(aggregate.model_dump(mode="json"), key))
        _print_consent(console, aggregate, target, again=again)
    return any(finding.kind in SERIOUS for case in audit.cases for finding in case.findings)


def read_salt(path: Path) -> bytes:
    """Return the federation's salt: a file of hexadecimal digits.

    Raises:
        ConfigError: the file cannot be read or is no salt.
    """
    return read_hex(path, fewest=SALT_BYTES, refuse=lambda got: _wrong_salt(path, got))


def _wrong_salt(path: Path, got: str) -> ConfigError:
    return ConfigError(
        "the federation's salt cannot be used",
        where=path,
        got=got,
        expected=f"at least {2 * SALT_BYTES} hexadecimal digits",
        remedy="take the file from the coordinator as it is (made with `gmmas server salt`)",
    )


def _print_findings(console: Console, audit: CohortAudit, cases: tuple[Case, ...]) -> None:
    """Print how many of each finding there are, and the first in words."""
    patients = len({case.patient_id for case in cases})
    left_out = "".join(f"\n  {count} files left out: {reason}" for reason, count in audit.left_out.items())
    console.print(f"{len(cases)} cases of {patients} patients, layout {audit.layout}{left_out}", highlight=False)
    every = [(case, finding) for case in audit.cases for finding in case.findings]
    if not every:
        console.print("nothing found to mend or to look at", style="bold green")
        return
    counts: dict[str, set[str]] = {}
    for case, finding in every:
        counts.setdefault(finding.kind, set()).add(case.case_id)
    table = Table(title="Findings", title_justify="left", box=SIMPLE)
    table.add_column("finding")
    table.add_column("cases", justify="right")
    serious = {str(kind) for kind in SERIOUS}
    for kind, ids in sorted(counts.items(), key=lambda item: (item[0] not in serious, -len(item[1]))):
        table.add_row(Text(kind, style="red" if kind in serious else "yellow"), str(len(ids)))
    console.print(table)
    first = sorted(every, key=lambda pair: pair[1].kind not in SERIOUS)[:_SHOWN_FINDINGS]
    for case, finding in first:
        console.print(Text.assemble((case.case_id, "bold"), f": {finding.text}"), soft_wrap=True)
    if len(every) > len(first):
        console.print(f"and {len(every) - len(first)} more in the report")


def _print_consent(console: Console, aggregate: AuditAggregate, target: Path, *, again: bool) -> None:
    told = sum(count is not None for count in aggregate.counts.values())
    console.print(Text.assemble("Signed and written, not sent: ", (str(target), "bold")), soft_wrap=True)
    prints = f", and holds keyed fingerprints of {', '.join(aggregate.fingerprints)}" if aggregate.fingerprints else ""
    console.print(f"It tells {told} counts and withholds {len(aggregate.counts) - told}{prints}. Send it to the coordinator, or do not.")
    if again:
        console.print(
            "One was written before. Who has two of one cohort sees what a few patients changed: if that one was sent, send this one only "
            "after many have joined.",
            style="yellow",
        )
