"""What a site carries from round to round: named tensors that belong to one run and one round, whole on disk or not there.

Training itself carries nothing (docs/decisions/0003). What does, such as the error that a lossy wire has left over, keeps it here in one
form, so that a repeated round starts where it started before:

    round r starts from the newest state that a round before r of the same run has ended with, and ends with one of its own
    of those rounds only the ones whose answer counted, where the caller knows the last one that did: what came of the others is void

The states of the last KEEP rounds stay, void ones apart. A coordinator that was killed and resumed asks for round r again: its start is
still there, and the round gives the same bits. A state of another run, or of round r itself or a later one, is never used. A state that is
missing or damaged is no state: a node does not stop for it, it starts that part anew.

No torch: the processes of a node that hold none use it too.
"""

import json
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from gmmas_runtime.files import make_private_folder
from gmmas_runtime.sealed_files import PLAIN, Seal, SealedFile
from gmmas_schema.errors import TrustError
from strategies.content_hash import hash_tensors

logger = logging.getLogger(__name__)

Float32 = NDArray[np.float32]

KEEP: Final = 3
"""Ended rounds whose states stay: the last, the one it started from, and one more for a coordinator that lost its last checkpoint."""

_RUN, _ROUND, _DIGEST = "run", "round", "sha256"
_FILE = re.compile(r"([a-z]+)-(\d+)\.safetensors")


class SiteState:
    """The states of one kind at one site.

    Args:
        folder: where they lie, rights 0700, one safetensors file of rights 0600 per ended round; made at the first write. None keeps
            them in memory.
        kind: whose they are (`feedback`, `norms`); each kind has its own files and its own KEEP rounds. Lower-case letters.
        seal: how the files lie on the disk. One that cannot be opened is left aside as a damaged one is.
    """

    def __init__(self, folder: Path | None = None, *, kind: str, seal: Seal = PLAIN) -> None:
        assert re.fullmatch(r"[a-z]+", kind), kind
        self._folder, self._kind, self._seal = folder, kind, seal
        self._memory: dict[int, tuple[str, dict[str, Float32]]] = {}

    def before(self, *, run: str, round: int, counted: int | None = None) -> dict[str, Float32]:  # noqa: A002 - the field's word
        """Return the state that a round starts from: float32 tensors by name, empty where there is none.

        Args:
            run: the run that asks.
            round: the one that begins.
            counted: the last round whose answer counted, 0 for none; states of later ones are passed over. None: all of them did.
        """
        earlier = [number for number in self._rounds() if number < round and (counted is None or number <= counted)]
        found = self._read(max(earlier)) if earlier else None
        return found[1] if found is not None and found[0] == run else {}

    def write(self, tensors: Mapping[str, Float32], *, run: str, round: int, counted: int | None = None) -> None:  # noqa: A002
        """Keep the state that a round has ended with, and forget those of later rounds, of other runs and of rounds long past.

        With `counted`, as in before(), the void ones go too, so that any number of them displaces none that a round may start from. A disk
        that cannot be written is logged and costs the state, not the round.
        """
        try:
            if counted is not None:
                self._drop(number for number in self._rounds() if counted < number < round)
            self._put(tensors, run=run, round_=round)
            self._forget(run=run, round_=round)
        except (OSError, TrustError) as error:
            logger.warning("the %s state of round %d is not kept: %s", self._kind, round, _shortly(error))

    def _rounds(self) -> list[int]:
        """Return the rounds whose states are there, of whichever run."""
        if self._folder is None:
            return sorted(self._memory)
        pattern = re.compile(rf"{self._kind}-(\d+)\.safetensors")
        names = [entry.name for entry in self._folder.iterdir()] if self._folder.is_dir() else []
        return sorted(int(match[1]) for name in names if (match := pattern.fullmatch(name)))

    def _path(self, number: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{self._kind}-{number:06d}.safetensors"

    def _put(self, tensors: Mapping[str, Float32], *, run: str, round_: int) -> None:
        if self._folder is None:
            self._memory[round_] = (run, {name: np.array(value, dtype=np.float32) for name, value in tensors.items()})
            return
        make_private_folder(self._folder)
        # Safetensors writes memory as it lies; not ascontiguousarray, which gives a scalar an axis.
        plain = {name: np.asarray(value, dtype=np.float32, order="C") for name, value in tensors.items()}
        content = save(plain, {_RUN: run, _ROUND: str(round_), _DIGEST: hash_tensors(plain)})
        self._seal.write(self._path(round_), content, context=_context(self._kind, round_))

    def _forget(self, *, run: str, round_: int) -> None:
        kept = [number for number in self._rounds() if number <= round_ and self._run_of(number) == run]
        self._drop(set(self._rounds()) - set(kept[-KEEP:]))

    def _drop(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if self._folder is None:
                del self._memory[number]
            else:
                self._path(number).unlink(missing_ok=True)

    def _run_of(self, number: int) -> str | None:
        """Return the run of a state by its header alone; None for one that cannot be read."""
        if self._folder is None:
            return self._memory[number][0]
        try:
            return _facts(self._bytes(number)).get(_RUN)
        except (OSError, TrustError, ValueError):
            return None

    def _read(self, number: int) -> tuple[str, dict[str, Float32]] | None:
        """Return (run, tensors) of a state, or None for one that is damaged."""
        if self._folder is None:
            run, kept = self._memory[number]
            return run, dict(kept)
        fault = ""
        facts: dict[str, str] = {}
        tensors: dict[str, Float32] = {}
        try:
            content = self._bytes(number)
            facts, tensors = _facts(content), dict(sorted(load(content).items()))
        except (OSError, TrustError, SafetensorError, ValueError, KeyError) as error:
            fault = _shortly(error)
        else:
            if facts.get(_ROUND) != str(number):
                fault = "a file of another round"
            elif any(value.dtype != np.float32 for value in tensors.values()) or facts.get(_DIGEST) != hash_tensors(tensors):
                fault = "values that differ from their digest"
        if fault:
            logger.warning("the %s state of round %d is left aside: %s", self._kind, number, fault)
            return None
        return facts.get(_RUN, ""), tensors

    def _bytes(self, number: int) -> bytes:
        return self._seal.read(self._path(number), context=_context(self._kind, number))


def sealed_states(folder: Path) -> list[SealedFile]:
    """Return the states in a folder, of every kind, for a rotation of the key."""
    found = [(path, _FILE.fullmatch(path.name)) for path in sorted(folder.glob("*.safetensors"))]
    return [SealedFile(path, _context(match[1], int(match[2]))) for path, match in found if match]


def _context(kind: str, number: int) -> str:
    """Return what a sealed state is."""
    return f"{kind} state of round {number}"


def _facts(content: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file: its first 8 bytes are the length of the JSON that follows.

    Raises:
        ValueError: it is none.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    return dict(header.get("__metadata__", {})) if isinstance(header, dict) else {}


def _shortly(error: Exception) -> str:
    return error.what if isinstance(error, TrustError) else type(error).__name__
