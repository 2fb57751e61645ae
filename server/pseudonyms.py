"""The names under which hospitals stand in what is published: `site-1`, `site-2`, ..., drawn once and kept.

A hash of a hospital's name would be no pseudonym, for names of hospitals can be guessed. So numbers are given out in an order drawn by
chance when names are first seen, and the list stays in the coordinator's folder (or in a simulation's), rights 0600.
"""

import fcntl
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from gmmas_runtime.files import write_atomic
from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import ConfigError

PSEUDONYMS_FILE: Final = "pseudonyms.json"
_LOCK: Final = "pseudonyms.lock"


class _Pseudonyms(FrozenModel):
    """Contents of pseudonyms.json: pseudonym by name of the site."""

    sites: dict[str, str] = Field(default_factory=dict)


def pseudonyms_of(sites: Iterable[str], folder: Path) -> dict[str, str]:
    """Return the pseudonym of each site; those that have none yet are given one, which they keep.

    Raises:
        ConfigError: the list is damaged.
    """
    path, names = folder / PSEUDONYMS_FILE, sorted(set(sites))
    with (folder / _LOCK).open("a") as lock:
        # Two runs that end at once would give one number to two hospitals.
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = _read(path)
        if new := [name for name in names if name not in known]:
            secrets.SystemRandom().shuffle(new)
            known |= {name: f"site-{number}" for number, name in enumerate(new, start=len(known) + 1)}
            write_atomic(path, _Pseudonyms(sites=known).model_dump_json(indent=1).encode() + b"\n")
    return {name: known[name] for name in names}


def _read(path: Path) -> dict[str, str]:
    try:
        return dict(_Pseudonyms.model_validate_json(path.read_bytes()).sites)
    except FileNotFoundError:
        return {}
    except ValidationError as error:
        raise ConfigError(
            "the list of pseudonyms cannot be read",
            where=path,
            got=f"{error.error_count()} faults",
            expected="the file as it was written",
            remedy="restore it from a copy; without it model cards of one federation name the same hospital differently",
        ) from error
