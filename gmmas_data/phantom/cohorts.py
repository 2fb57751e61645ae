"""Making cohorts: plan, spread over processes, write, resume.

A case depends on (seed, site name, index) alone, so neither the number of processes nor their order changes a byte.
"""

import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from multiprocessing.connection import wait
from pathlib import Path

from threadpoolctl import threadpool_limits

from gmmas_data.phantom.atlas import MNI_NOTICE, Atlas, load_atlas
from gmmas_data.phantom.case import draw_patient, make_case
from gmmas_data.phantom.files import LABELS, MANIFEST, write_case, write_labels, write_whole
from gmmas_data.phantom.plan import LABELLED_TASKS, PlannedCase, plan_site
from gmmas_schema.errors import ConfigError, GmmasError, ReasonCode
from gmmas_schema.phantom import PhantomCounts, PhantomManifest, PhantomSpec
from gmmas_schema.vocabulary import SUBTYPES, Task

GENERATOR_VERSION = 1
"""Raised with any change that alters what a specification gives; cohorts of two versions are never mixed."""

_worker: dict[str, Atlas] = {}
"""The atlas of this worker process, set when it starts."""


def make_cohorts(
    spec: PhantomSpec,
    out: Path,
    *,
    processes: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> PhantomManifest:
    """Make every case of `spec` that is not there yet, and the tables beside them.

    Writes OUT/<site>/<patient>/ in the site's layout, OUT/<site>/labels.csv and OUT/phantom.json. An interrupted call leaves whole
    cases only; the same call again goes on where it stopped.

    Args:
        spec: the cohorts.
        out: an empty, new or unfinished folder.
        processes: worker processes; the usable CPU cores if None.
        on_progress: called with (cases done, cases in all), first with those found on disk.

    Returns:
        The manifest as written.

    Raises:
        ConfigError: `out` holds something else, or cohorts of another specification or generator version.
        GmmasError: a worker died, most often for want of memory.
    """
    _claim(spec, out)
    plans = {site.name: plan_site(spec, site) for site in spec.sites}
    cases = [case for plan in plans.values() for case in plan]
    missing = [case for case in cases if not _folder(out, case).is_dir()]
    report = on_progress or (lambda _done, _total: None)
    report(len(cases) - len(missing), len(cases))
    if missing:
        workers = min(processes or len(os.sched_getaffinity(0)), len(missing))
        _make_in_processes(missing, out, spec.spacing_mm, processes=workers, on_left=lambda left: report(len(cases) - left, len(cases)))
    for site in spec.sites:
        write_labels(out / site.name / LABELS, [_label_row(case) for case in plans[site.name]])
    manifest = _manifest(spec, complete=True, sites={name: _count(plan) for name, plan in plans.items()})
    _write_manifest(out, manifest)
    return manifest


def _make_in_processes(
    cases: Sequence[PlannedCase], out: Path, spacing_mm: float, *, processes: int, on_left: Callable[[int], None]
) -> None:
    """Make and write cases; `on_left` is told how many are left. Interrupted, it finishes the cases under way and begins none."""
    atlas = load_atlas(2 if spacing_mm >= 2 else 1)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker, initargs=(atlas,)) as pool:
        try:
            futures = [pool.submit(_make_and_write, case, out, spacing_mm) for case in cases]
            for made, future in enumerate(as_completed(futures), start=1):
                future.result()
                on_left(len(cases) - made)
        except BrokenProcessPool as error:
            raise GmmasError(
                "a process that makes phantoms died",
                where=out,
                got="a worker gone without an answer",
                expected=f"{len(cases)} cases",
                remedy="use fewer processes, the machine may be out of memory; call again to go on, what was made is kept",
                code=ReasonCode.OUT_OF_MEMORY,
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _claim(spec: PhantomSpec, out: Path) -> None:
    """Make sure that `out` is new, or holds cohorts of this very specification; sweep what a killed process left."""
    path = out / MANIFEST
    if path.is_file():
        found = PhantomManifest.parse(_read_json(path), where=path)
        if (found.spec_digest, found.generator) != (spec.digest(), GENERATOR_VERSION):
            raise ConfigError(
                "the folder holds phantom cohorts of another specification",
                where=out,
                got=f"specification {found.spec_digest[:12]}, generator {found.generator}",
                expected=f"specification {spec.digest()[:12]}, generator {GENERATOR_VERSION}",
                remedy="name another folder, or delete this one",
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            "the folder for phantom cohorts is not empty",
            where=out,
            got="files that are not phantom cohorts",
            expected=f"a new or empty folder, or one with {MANIFEST}",
            remedy="name another folder",
        )
    else:
        out.mkdir(parents=True, exist_ok=True)
        _write_manifest(out, _manifest(spec, complete=False, sites={}))
    for site in spec.sites:
        (out / site.name).mkdir(exist_ok=True)
        for left_over in (out / site.name).glob(".*.partial-*"):
            shutil.rmtree(left_over, ignore_errors=True)


def _folder(out: Path, case: PlannedCase) -> Path:
    return out / case.site.name / case.patient_id


def _start_worker(atlas: Atlas) -> None:
    """Prepare a worker: one thread, deaf to Ctrl-C (the parent decides), gone when the parent is gone."""
    _worker["atlas"] = atlas
    threadpool_limits(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()


def _make_and_write(planned: PlannedCase, out: Path, spacing_mm: float) -> None:
    """Make one case and write it; runs in a worker."""
    site = planned.site
    case = make_case(
        planned.seed,
        atlas=_worker["atlas"],
        subtype=planned.subtype,
        scanner=site.scanner,
        spacing_mm=spacing_mm,
        modalities=site.modalities,
    )
    write_case(_folder(out, planned), case, layout=site.layout, segmentation=Task.SEGMENTATION in planned.labelled)


def _label_row(planned: PlannedCase) -> dict[str, object]:
    """Return one row of the labels table. A subtype tells of molecular status, so it is published with it only."""
    subject, _ = draw_patient(planned.seed, planned.subtype)
    idh, codeletion = Task.IDH in planned.labelled, Task.CODELETION in planned.labelled
    return {
        "patient_id": planned.patient_id,
        "idh": ("mutant" if subject.idh_mutant else "wildtype") if idh else "unknown",
        "codeletion": ("codeleted" if subject.codeleted else "intact") if codeletion else "unknown",
        "subtype": subject.subtype.value if idh and codeletion else "unknown",
        "grade": subject.grade if Task.GRADE in planned.labelled else "unknown",
        "age_years": subject.age_years,
        "sex": subject.sex,
    }


def _count(plan: Sequence[PlannedCase]) -> PhantomCounts:
    return PhantomCounts(
        cases=len(plan),
        subtypes={s: sum(case.subtype is s for case in plan) for s in SUBTYPES},
        labelled={t: sum(t in case.labelled for case in plan) for t in LABELLED_TASKS},
    )


def _manifest(spec: PhantomSpec, *, complete: bool, sites: dict[str, PhantomCounts]) -> PhantomManifest:
    return PhantomManifest(
        spec_digest=spec.digest(),
        generator=GENERATOR_VERSION,
        software=version("gmmas-fed"),
        complete=complete,
        spec=spec,
        sites=sites,
        notice=MNI_NOTICE,
    )


def _write_manifest(out: Path, manifest: PhantomManifest) -> None:
    write_whole(out / MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            "the manifest of phantom cohorts cannot be read",
            where=path,
            got=type(error).__name__,
            expected="JSON as written by gmmas phantom make",
            remedy="delete the folder and make the cohorts again",
        ) from error
