"""What the hospitals hold together, from the signed aggregates of `gmmas site check --consent`.

    files -> signature of the site's enrolled key -> form, and no small count told -> table over sites | patients shared between sites

Small counts were withheld at the sites (gmmas_data.suppression) and are not in the files, so nothing here can bring them back: where a part
of a sum is withheld, the sum of the told parts is shown as "at least". Two aggregates of one site are refused, for those of a cohort that
grew by a patient differ by that patient.

Patients shared between sites are found by the keyed bands of gmmas_data.fingerprints; fewer than SMALLEST_COUNT are told as few.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from gmmas_data.fingerprints import SURE
from gmmas_runtime.signed_record import read_signed_record
from gmmas_schema.audit import SMALLEST_COUNT, AuditAggregate
from gmmas_schema.coordinator import SITE_NAME
from gmmas_schema.errors import TrustError
from gmmas_schema.vocabulary import MODALITIES, TASKS, Modality, Task
from server.site_register import SiteRegister

Bands = Sequence[Sequence[str]]
_OTHER = "other"


@dataclass(frozen=True)
class Count:
    """A count as far as it is told.

    Attributes:
        least: sum of the parts that are told.
        exact: whether all of it is told.
        held: whether the site has such cases at all.
    """

    least: int = 0
    exact: bool = True
    held: bool = True

    def __add__(self, other: "Count") -> "Count":
        return Count(self.least + other.least, self.exact and other.exact, self.held or other.held)

    def __str__(self) -> str:
        if not self.held:
            return "–"
        if self.exact:
            return str(self.least)
        return f"≥ {self.least}" if self.least else "few"


NOT_HELD = Count(held=False)


@dataclass(frozen=True)
class Overview:
    """Counts over sites.

    Attributes:
        sites: their names, sorted.
        rows: counts by site, under `cases`, a sequence, a task, or `sequence, task` for labelled cases that have the sequence.
    """

    sites: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Count]]

    def total(self, row: str) -> Count:
        """Return the sum of a row over the sites."""
        return sum(self.rows[row].values(), start=NOT_HELD)


@dataclass(frozen=True)
class SharedPatients:
    """Patients that two sites both have, by the sequence that shows most of them."""

    sites: tuple[str, str]
    modality: Modality
    patients: int

    def __str__(self) -> str:
        return str(self.patients) if self.patients >= SMALLEST_COUNT else f"1 to {SMALLEST_COUNT - 1}"


def read_audits(
    paths: Iterable[Path], register: SiteRegister, *, keys: Sequence[ec.EllipticCurvePublicKey] = ()
) -> tuple[AuditAggregate, ...]:
    """Return verified aggregates, by site.

    Args:
        paths: the files that the hospitals sent.
        register: knows the sites' keys.
        keys: of sites that it does not know.

    Raises:
        TrustError: a file is none, was changed, is of no enrolled site, tells a small count, or is a site's second.
    """
    found: dict[str, AuditAggregate] = {}
    for path in paths:
        aggregate = _read(path, register, keys)
        if aggregate.site in found:
            what = f"a second aggregate of site {aggregate.site}"
            raise _refuse(path, what, "one a site: two of them tell apart the patients by which they differ")
        found[aggregate.site] = aggregate
    return tuple(found[site] for site in sorted(found))


def overview_of(aggregates: Sequence[AuditAggregate]) -> Overview:
    """Return the table over sites."""
    rows: dict[str, dict[str, Count]] = {}
    sites = tuple(aggregate.site for aggregate in aggregates)
    for aggregate in aggregates:
        for name, count in _counts(aggregate).items():
            rows.setdefault(name, dict.fromkeys(sites, NOT_HELD))[aggregate.site] = count
    order = [name for name in _row_names() if name in rows]
    return Overview(sites, {name: rows[name] for name in order})


def shared_patients(aggregates: Sequence[AuditAggregate]) -> tuple[SharedPatients, ...]:
    """Return the pairs of sites that share patients."""
    found = []
    for one, other in combinations(aggregates, 2):
        common = [modality for modality in MODALITIES if modality in one.fingerprints and modality in other.fingerprints]
        counts = {modality: count_shared(one.fingerprints[modality], other.fingerprints[modality]) for modality in common}
        if any(counts.values()):
            most = max(counts, key=lambda modality: counts[modality])
            found.append(SharedPatients((one.site, other.site), most, counts[most]))
    return tuple(found)


def count_shared(one: Bands, other: Bands) -> int:
    """Return how many scans of `one` have SURE bands in common with a scan of `other`."""
    places: dict[tuple[int, str], list[int]] = defaultdict(list)
    for number, bands in enumerate(other):
        for band, value in enumerate(bands):
            places[band, value].append(number)
    shared = 0
    for bands in one:
        hits = Counter(number for band, value in enumerate(bands) for number in places.get((band, value), ()))
        shared += bool(hits) and max(hits.values()) >= SURE
    return shared


def _row_names() -> list[str]:
    return ["cases", *MODALITIES, *TASKS, *(f"{modality}, {task}" for modality in MODALITIES for task in TASKS)]


def _counts(aggregate: AuditAggregate) -> dict[str, Count]:
    """Return one site's rows."""
    told, held = aggregate.counts, set(aggregate.held)
    tasks = [task for task in TASKS if task in held]
    rows = {"cases": _sum_of(told, ["cases"])}
    rows |= {str(modality): _sum_of(told, [f"with {modality}"]) for modality in MODALITIES if modality in held}
    rows |= {str(task): _sum_of(told, _labelled(told, task, "")) for task in tasks}
    kinds = [name.removeprefix("sequences=") for name in told if name.startswith("sequences=")]
    for modality in (modality for modality in MODALITIES if modality in held):
        having = [kind for kind in kinds if modality in kind.split("+")]
        for task in tasks:
            count = _sum_of(told, [cell for kind in having for cell in _labelled(told, task, f", sequences={kind}")])
            # Who of the rare sets of sequences has this one is not told.
            rows[f"{modality}, {task}"] = Count(count.least, count.exact and _OTHER not in kinds)
    return rows


def _labelled(told: Mapping[str, int | None], task: Task, suffix: str) -> list[str]:
    return [name for value in ("positive", "negative") if (name := f"{task}={value}{suffix}") in told]


def _sum_of(told: Mapping[str, int | None], names: Sequence[str]) -> Count:
    counts = [told.get(name) for name in names]
    return Count(sum(count for count in counts if count is not None), all(count is not None for count in counts))


def _read(path: Path, register: SiteRegister, keys: Sequence[ec.EllipticCurvePublicKey]) -> AuditAggregate:
    site = _claimed_site(path)
    candidates = (*register.keys(site), *keys)
    if not candidates:
        raise _refuse(
            path, f"an aggregate of '{site:.40}', whose key is not known here", "an enrolled site; or name its .pub file by --key"
        )
    try:
        aggregate = AuditAggregate.model_validate(_verified(path, candidates))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['type']}" for fault in error.errors()[:3])
        raise _refuse(path, f"{faults:.200}", "an aggregate of this release") from error
    small = sorted(name for name, count in aggregate.counts.items() if count is not None and count < SMALLEST_COUNT)
    if small:
        raise _refuse(path, f"a small count told: {small[0]}", f"counts below {SMALLEST_COUNT} withheld; delete the file")
    return aggregate


def _claimed_site(path: Path) -> str:
    try:
        site = json.loads(path.read_bytes())["record"]["site"]
        if not re.fullmatch(SITE_NAME, site):
            raise ValueError("no site's name")
        return str(site)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _refuse(path, type(error).__name__, "a file that `gmmas site check --consent` wrote") from error


def _verified(path: Path, candidates: Sequence[ec.EllipticCurvePublicKey]) -> dict[str, object]:
    """Return what one of the keys has signed; the newest speaks where none has."""
    for key in candidates[1:]:
        try:
            return read_signed_record(path, key)
        except TrustError:
            continue
    return read_signed_record(path, candidates[0])


def _refuse(path: Path, got: str, expected: str) -> TrustError:
    return TrustError(
        "an aggregate cannot be used", where=path, got=got, expected=expected, remedy="ask the hospital for the file that it means to give"
    )
