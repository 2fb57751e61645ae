"""Preprocessed samples on disk, keyed by content.

    key = SHA-256(preprocessing version, grid, layout, and for every file of the case its role and the SHA-256 of its content)

A file that changes is preprocessed again, one that was only moved or renamed is not. Patient identifiers and molecular labels are
neither in the key nor in the entry but come from the case each time, so a mended label needs no rebuild and the folder names nobody.
An entry is a safetensors file (no pickle) with a checksum of its tensors; a damaged one is rebuilt.
"""

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from gmmas_data.cases import Case
from gmmas_data.parallel import map_in_processes
from gmmas_data.preprocessing import PREPROCESSING_VERSION, preprocess_case
from gmmas_data.regions import weights_of
from gmmas_data.samples import Sample, marker_value
from gmmas_data.volumes import unreadable
from gmmas_runtime.disk import told_of_disk
from gmmas_runtime.files import make_private_folder, sha256_file
from gmmas_runtime.sealed_files import PLAIN, KeyRing, Seal, SealedFile
from gmmas_schema.errors import TrustError
from gmmas_schema.model import GridConfig

_LOG = logging.getLogger(__name__)

_CHECKSUM = "sha256"


class SampleCache:
    """Samples of one grid in one folder (rights 0700). Several processes may share it: entries appear whole or not at all.

    Args:
        folder: made where it is missing.
        grid: of the samples.
        seal: how entries lie on the disk; one that cannot be opened is made again.
    """

    def __init__(self, folder: Path, grid: GridConfig, *, seal: Seal = PLAIN) -> None:
        self.folder = make_private_folder(folder)
        self.grid, self._seal = grid, seal

    def get(self, case: Case) -> Sample:
        """Return the sample of a case, from disk where it is there and whole.

        Raises:
            DataError: the case does not pass the quality gate.
            FederationError: code DISK, the disk does not take the entry.
        """
        path = self.path_of(case)
        sample = self._read(path, case)
        if sample is None:
            sample = preprocess_case(case, self.grid)
            with told_of_disk(path):
                self._seal.write(path, _encode(sample), context=_context(path))
        return sample

    def prepare(self, cases: Sequence[Case], *, processes: int = 1, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Preprocess what is not there yet.

        Args:
            cases: cases to have ready.
            processes: processes working at one time.
            on_progress: called with (done, total) cases.

        Raises:
            DataError: of the first case that does not pass the quality gate; finished entries stay.
        """
        map_in_processes(partial(_prepare_one, self.folder, self.grid, self._seal), cases, processes=processes, on_progress=on_progress)

    def path_of(self, case: Case, *, digests: Mapping[str, str] | None = None) -> Path:
        """Return the file of a case's entry, whether or not it is there.

        Args:
            case: whose entry it is.
            digests: as digest_files returns them, where they are known.

        Raises:
            DataError: a file of the case cannot be read.
        """
        return self.folder / f"{content_key(case, self.grid, digests=digests)}.safetensors"

    def load(self, path: Path, case: Case) -> Sample:
        """Return a case by the entry that path_of named: its files are read only where the entry is missing or damaged.

        Raises:
            DataError: the case does not pass the quality gate any more.
        """
        return self._read(path, case) or self.get(case)

    def _read(self, path: Path, case: Case) -> Sample | None:
        """Return the sample of an entry, or None if it is missing or damaged."""
        try:
            content = self._seal.read(path, context=_context(path))
        except FileNotFoundError:
            return None
        except TrustError as error:
            if self._seal.key_file is not None:
                KeyRing.read(self._seal.key_file)  # a key file that is not there is no reason to make every entry again
            _LOG.warning("a cache entry is left aside and made again: %s", error.what)
            return None
        with contextlib.suppress(OSError):
            status = path.stat()
            os.utime(path, ns=(time.time_ns(), status.st_mtime_ns))  # when it was of use last (prune_samples)
        try:
            return _decode(content, case)
        except (SafetensorError, KeyError, ValueError) as error:
            _LOG.warning("a cache entry is damaged and made again: %s", type(error).__name__)
            return None


def digest_files(case: Case) -> dict[str, str]:
    """Return the SHA-256 of each of a case's files, as they lie, by its role: a modality, or `segmentation`.

    Raises:
        DataError: a file of the case cannot be read.
    """
    files: dict[str, Path] = {str(modality): path for modality, path in case.images.items()}
    if case.segmentation is not None:
        files["segmentation"] = case.segmentation
    return {role: _digest(path) for role, path in files.items()}


def content_key(case: Case, grid: GridConfig, *, digests: Mapping[str, str] | None = None) -> str:
    """Return the key of what a case's files become on a grid, as in the module docstring: 64 hex digits.

    Args:
        case: whose files they are.
        grid: of the sample.
        digests: as digest_files returns them, where they are known; the files are not read then.

    Raises:
        DataError: a file of the case cannot be read.
    """
    identity = {
        "version": PREPROCESSING_VERSION,
        # The patch says how a sample is looked at, not what it is.
        "grid": grid.model_copy(update={"patch": None}).digest(),
        "layout": case.layout,
        **({} if case.tissues is None else {"tissues": sorted(case.tissues.items())}),
        "files": dict(digest_files(case) if digests is None else digests),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def prune_samples(folder: Path, *, unused_days: float) -> int:
    """Delete the entries, of every grid, that were not read for some days; returns how many. One that is asked for again is made again."""
    before, deleted = time.time() - unused_days * 86400, 0
    for path in folder.glob("*.safetensors"):
        status = path.stat()
        if max(status.st_atime, status.st_mtime) < before:
            path.unlink(missing_ok=True)
            deleted += 1
    return deleted


def sealed_samples(folder: Path) -> list[SealedFile]:
    """Return the entries of every grid in a folder, for a rotation of the key."""
    return [SealedFile(path, _context(path)) for path in sorted(folder.glob("*.safetensors"))]


def _context(path: Path) -> str:
    """Return what a sealed entry is: its name is its content's key."""
    return f"sample {path.stem}"


def _prepare_one(folder: Path, grid: GridConfig, seal: Seal, case: Case) -> None:
    SampleCache(folder, grid, seal=seal).get(case)


def _digest(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise unreadable(path, f"{type(error).__name__}: {error}") from error


def _encode(sample: Sample) -> bytes:
    """Return an entry: present scans in half precision, regions, geometry, checksum."""
    tensors: dict[str, NDArray[Any]] = {
        "image": np.ascontiguousarray(sample.image_MXYZ[sample.present_M], dtype=np.float16),
        "present": sample.present_M,
        "affine": sample.affine,
        "native_affine": sample.native_affine,
        "native_shape": np.array(sample.native_shape, dtype=np.int64),
    }
    if sample.regions_RXYZ is not None:
        tensors["regions"] = sample.regions_RXYZ
    tensors[_CHECKSUM] = _checksum(tensors)
    content: bytes = save(tensors)
    return content


def _decode(content: bytes, case: Case) -> Sample:
    """Return the sample of an entry.

    Raises:
        ValueError: the checksum does not fit. (SafetensorError, KeyError: not an entry.)
    """
    tensors: dict[str, NDArray[Any]] = load(content)
    if not np.array_equal(tensors.pop(_CHECKSUM), _checksum(tensors)):
        raise ValueError("checksum")
    present, stored = tensors["present"], tensors["image"]
    image_MXYZ = np.zeros((len(present), *stored.shape[1:]), dtype=np.float32)
    image_MXYZ[present] = stored
    x, y, z = tensors["native_shape"].tolist()
    return Sample(
        case_id=case.case_id,
        patient_id=case.patient_id,
        image_MXYZ=image_MXYZ,
        present_M=present,
        regions_RXYZ=tensors.get("regions"),
        idh=marker_value(case.idh),
        codeletion=marker_value(case.codeletion),
        grade=marker_value(case.grade),
        mgmt=marker_value(case.mgmt),
        affine=tensors["affine"],
        native_affine=tensors["native_affine"],
        native_shape=(x, y, z),
        weight_RXYZ=weights_of(case.known_regions, regions.shape[1:]) if (regions := tensors.get("regions")) is not None else None,
    )


def _checksum(tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """Return the SHA-256 over names and bytes of tensors, as 32 bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return np.frombuffer(digest.digest(), dtype=np.uint8)
