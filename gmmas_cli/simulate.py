"""`gmmas simulate`: a whole federation on this machine, in one command and without a network; it can be interrupted and resumed.

What is simulated comes from a YAML file (site_configs/simulation-example.yaml), or, to resume, from the run's own folder.
"""

import os
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from gmmas_cli.accuracy_report import accuracy_table
from gmmas_cli.live import LiveRun
from gmmas_cli.progress import progress_bar
from gmmas_cli.run import print_outcome
from gmmas_cli.run_report import CURVES, write_curves
from gmmas_runtime.files import write_atomic
from gmmas_schema.base import differing_keys
from gmmas_schema.errors import ConfigError, GmmasError
from gmmas_schema.events import Event
from gmmas_schema.simulation import SimulationConfig
from gmmas_schema.standalone import CohortConfig
from gmmas_schema.vocabulary import TASKS
from server.checkpoint import SIMULATION, RunFolder
from server.events import read_events
from server.following import resume_command
from server.submission import prepare_run

if TYPE_CHECKING:
    from client.simulated_site import SimulatedSite

INTERRUPTED: Final = 130
MOST_SITES_SHOWN: Final = 20


class Engine(StrEnum):
    """What carries messages to the simulated sites."""

    LOCAL = "local"
    RAY = "ray"


def simulate(
    spec: Annotated[Path | None, typer.Argument(help="simulation.yaml; not needed with --resume.", show_default=False)] = None,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.", show_default=False)],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out after its last finished round.")] = False,
    processes: Annotated[
        int | None, typer.Option(help="Sites that train at one time, a process each; by default one per core.", min=1, show_default=False)
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="local: this program's own; ray: Flower's simulation runtime (pip install 'gmmas-fed[simulation]').")
    ] = Engine.LOCAL,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of preprocessed cases, to share between runs; by default OUT/cache.", show_default=False),
    ] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow store; by default mlflow.db in the run's folder.", show_default=False)
    ] = None,
) -> None:
    """Run a whole federation on this machine: hospitals are functions over folders of scans, or over phantoms made for it.

    The rounds, the messages, the checks and the folder are those of a real run. The weights do not depend on --processes. With secure
    aggregation the sites answer one after the other, in this process, which holds their secrets.

    Ctrl-C stops; the same command with --resume goes on after the last finished round, to the same weights.
    """
    console = Console()
    folder, config = _open_folder(spec, out.resolve(), resume=resume, tracking_uri=tracking_uri)
    cores = processes or min(len(os.sched_getaffinity(0)), len(config.site_names))
    sites = prepare_sites(console, folder, config, cache=cache or folder.path / "cache", processes=cores)
    end = _run_to_end(console, folder, sites, processes=cores, engine=engine)
    _show_end(console, folder, end)


def _open_folder(spec: Path | None, out: Path, *, resume: bool, tracking_uri: str | None) -> tuple[RunFolder, SimulationConfig]:
    """Make the folder of a new simulation, or open that of one to resume.

    Raises:
        ConfigError: nothing says what to simulate, or the folder holds something else.
    """
    kept = out / SIMULATION
    if spec is None and not (resume and kept.exists()):
        raise ConfigError(
            "a new simulation needs a configuration",
            where="gmmas simulate",
            got=f"no simulation.yaml{f', and no {SIMULATION} in {out}' if resume else ''}",
            expected="the path of a simulation.yaml",
            remedy="name one (site_configs/simulation-example.yaml is commented), or go on with a simulation by --out and --resume",
        )
    # JSON is YAML.
    config = SimulationConfig.from_yaml(spec or kept)
    if tracking_uri is not None:
        tracking = config.federation.tracking.model_copy(update={"uri": tracking_uri})
        config = config.model_copy(update={"federation": config.federation.model_copy(update={"tracking": tracking})})
    if resume and spec is not None and kept.exists():
        before = SimulationConfig.from_yaml(kept)
        if differences := differing_keys(before.model_dump(mode="json"), config.model_dump(mode="json")):
            raise ConfigError(
                "a simulation can only be resumed with the configuration it began with",
                where=kept,
                got="; ".join(differences[:5]),
                expected="no difference",
                remedy="leave the configuration out, or start a new simulation in another folder",
            )
    folder = prepare_run(out, config.federation, resume=resume)
    write_atomic(kept, config.model_dump_json(indent=2).encode() + b"\n")
    return folder, config


def prepare_sites(
    console: Console, folder: RunFolder, config: SimulationConfig, *, cache: Path, processes: int
) -> dict[str, "SimulatedSite"]:
    """Make the phantoms, preprocess every case once, and return the sites by name.

    Raises:
        DataError: a cohort cannot be read, or has bad cases and may not leave them out.
    """
    with console.status("loading"):
        from client.simulated_site import SimulatedSite
        from gmmas_data.cache import SampleCache
        from gmmas_data.phantom import make_cohorts
        from gmmas_workflows.cohorts import store_cohorts
        from strategies.wire import SHELF
    if config.phantom is not None:
        with progress_bar(console, "making patients") as update:
            make_cohorts(config.phantom, folder.path / "cohorts", processes=processes, on_progress=update)
    samples = SampleCache(cache, config.federation.model.grid)
    with progress_bar(console, "preprocessing") as update:
        stored = store_cohorts(_cohorts(folder, config), samples, processes=processes, on_progress=update)
    for cohort in stored:
        for case_id in cohort.left_out:
            console.print(Text(f"left out {case_id} of {cohort.name}: it fails the quality gate (`gmmas data check` says why)"))
    by_name = {cohort.name: cohort for cohort in stored}
    kinds = len({cohort.modalities for cohort in stored})
    return {
        site: SimulatedSite(
            site=site,
            cohort=by_name[cohort],
            definition=config.federation.model,
            cache=cache.resolve(),
            folder=folder.path / "sites" / site,
            device=config.device,
            threads=config.threads,
            shelf=SHELF * kinds,
            secure=config.federation.secure is not None,
        )
        for site, cohort in config.site_names.items()
    }


def _cohorts(folder: RunFolder, config: SimulationConfig) -> list[CohortConfig]:
    """Return the cohorts that take part; those of phantoms lie in the run's folder."""
    wanted = config.cohort_names
    if config.phantom is None:
        return [cohort for cohort in config.cohorts if cohort.name in wanted]
    made = []
    for site in (site for site in config.phantom.sites if site.name in wanted):
        root = folder.path / "cohorts" / site.name
        labels = root / "labels.csv" if any(site.labelled.get(task, 1.0) for task in TASKS) else None
        made.append(CohortConfig(name=site.name, root=root, layout=site.layout, labels=labels, modalities=site.modalities))
    return made


def _run_to_end(console: Console, folder: RunFolder, sites: Mapping[str, "SimulatedSite"], *, processes: int, engine: Engine) -> Event:
    """Run what is left, shown as `gmmas run` shows it; returns the last event.

    Raises:
        typer.Exit: after an interruption, code 130.
        GmmasError: the run failed, with the way on.
    """
    with console.status("loading"):
        from server.tracking import MlflowTracker

        run: Callable[..., object]
        if engine is Engine.RAY:
            from server.ray_simulation import simulate_with_ray as run
        else:
            from server.simulation import simulate as simulate_here

            run = partial(simulate_here, keys={name: site.public_key() for name, site in sites.items() if site.secure})
    tracker = MlflowTracker(folder.config.tracking, folder.path)
    try:
        with LiveRun(console, run_dir=folder.path) as live:
            for event in read_events(folder.events_path):
                live.view.update(event)
            run(folder, sites, tracker=tracker, processes=processes, on_event=live.update)
    except KeyboardInterrupt:
        tracker.finish("KILLED")
        finished = max(folder.finished_rounds(), default=0)
        console.print(f"Interrupted; {finished} of {folder.config.rounds} rounds are safe. Go on with:", style="yellow")
        console.print(Text(f"  {resume_command(folder.path, None)}"), soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    except GmmasError as error:
        error.remedy = "; then: ".join(filter(None, [error.remedy, resume_command(folder.path, None)]))
        raise
    return read_events(folder.events_path)[-1]


def _show_end(console: Console, folder: RunFolder, end: Event) -> None:
    """Draw the curves, and show what came of the run."""
    write_curves(folder.read_records(), folder.path / CURVES)
    result = folder.read_result()
    if result is not None and result.test is not None and 0 < len(result.test.sites) <= MOST_SITES_SHOWN:
        console.print(accuracy_table(result.test.sites, title=f"Federated model of round {result.best_round}, at every site"))
    print_outcome(console, folder.path, end)
    if (folder.path / CURVES).exists():
        console.print(Text(f"  curves     {folder.path / CURVES}"), soft_wrap=True)
