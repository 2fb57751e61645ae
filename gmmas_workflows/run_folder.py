"""The folder of a run, federated or not: one atomic, checksummed directory per finished round, and the models that came out.

    run.json                           identifier of the run; a resumed run keeps it
    rounds/0000/                       the seeded start; then one folder a round
        model.safetensors, model.json  model after the round (of older rounds only the best is kept)
        state.safetensors              what the next round must remember beside the model, if anything (of the last rounds)
        round.json                     what happened (gmmas_workflows.records.FinishedRound)
        SHA256SUMS                     `sha256sum -c SHA256SUMS` checks the folder
    models/best/, models/last/         the run's outcome, with a manifest of its files (gmmas_runtime.manifest)
    result.json                        the run's end (gmmas_workflows.records.FinishedRun)

A folder is written under a temporary name, flushed to the disk and renamed, so after a crash a round is there as a whole or not at all.

The tensors of rounds (model.safetensors, state.safetensors) can lie encrypted (gmmas_runtime.sealed_files). Their digests are then those
of the content, in lines that sha256sum passes over (`# sealed ...`): the seal itself tells a damaged file. What is published is plain.
"""

import hashlib
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final, Generic, Literal, TypeVar

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from gmmas_model.weights import Weights, load_weights, save_calibration, save_weights
from gmmas_runtime.disk import require_room
from gmmas_runtime.files import clear_unfinished, sha256_file, whole_folder, write_atomic
from gmmas_runtime.manifest import Signer, write_manifest
from gmmas_runtime.sealed_files import PLAIN, Seal, SealedFile, is_sealed
from gmmas_schema.calibration import Calibration
from gmmas_schema.errors import ModelError
from gmmas_schema.model import ModelDefinition
from gmmas_workflows.records import FinishedRound, FinishedRun
from gmmas_workflows.run_identity import hold_folder, read_json

KEEP_LAST: Final = 3
"""Models of the last rounds that are kept, so that one damaged folder costs a round and not the run."""

_MODELS_HELD: Final = KEEP_LAST + 4
"""At the most: the last rounds, the best one, the one that is being written, and the two that are published."""

_ROUNDS, _SUMS, _RECORD, _RESULT = "rounds", "SHA256SUMS", "round.json", "result.json"
_MODEL_FILES = ("model.safetensors", "model.json")
_STATE = "state.safetensors"
_SEALED = (_MODEL_FILES[0], _STATE)
_SEALED_LINE = "# sealed "

Float32 = NDArray[np.float32]
RoundT = TypeVar("RoundT", bound=FinishedRound)
ResultT = TypeVar("ResultT", bound=FinishedRun)


class RunStore(Generic[RoundT, ResultT]):
    """The rounds, models and result of one run on disk.

    Args:
        path: the folder.
        definition: the model that every checkpoint must hold.
        run: identifier of the run, the same before and after a resume.
        round_type: the kind of record that round.json holds.
        result_type: the kind of record that result.json holds.
        seal: how the tensors of rounds lie on the disk.
    """

    def __init__(
        self,
        path: Path,
        *,
        definition: ModelDefinition,
        run: str,
        round_type: type[RoundT],
        result_type: type[ResultT],
        seal: Seal = PLAIN,
    ) -> None:
        self.path, self.run, self._seal = path, run, seal
        self._definition, self._round_type, self._result_type = definition, round_type, result_type

    @property
    def result_path(self) -> Path:
        """The run's end; there once the run has finished."""
        return self.path / _RESULT

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other processes from working in this folder; the hold ends with the process, however it ends.

        Raises:
            FederationError: another process holds it.
        """
        with hold_folder(self.path):
            yield

    def round_path(self, round: int) -> Path:  # noqa: A002 - the field's word
        """Return the folder of a round."""
        return self.path / _ROUNDS / f"{round:04d}"

    def model_path(self, kind: Literal["best", "last"]) -> Path:
        """Return the folder of a published model."""
        return self.path / "models" / kind

    def finished_rounds(self) -> tuple[int, ...]:
        """Return the rounds that are there, 0 (the start) included; unfinished folders do not count."""
        rounds = self.path / _ROUNDS
        names = [entry.name for entry in rounds.iterdir()] if rounds.exists() else []
        return tuple(sorted(int(name) for name in names if re.fullmatch(r"\d{4,}", name)))

    def require_room(self, tensors: Mapping[str, Float32]) -> None:
        """Refuse to go on where the models that this folder will hold do not fit on its disk.

        Args:
            tensors: a model of the run.

        Raises:
            FederationError: code DISK.
        """
        there = sum(1 for number in self.finished_rounds() if (self.round_path(number) / _MODEL_FILES[0]).exists())
        size = sum(value.nbytes for value in tensors.values())
        require_room(self.path, size * max(1, _MODELS_HELD - there), what="the models of this run")

    def write_round(
        self, tensors: Mapping[str, Float32], *, record: RoundT | None, state: Mapping[str, Float32] = MappingProxyType({})
    ) -> RoundT | None:
        """Write a finished round as a whole.

        Args:
            tensors: the model after the round.
            record: what happened; None writes the seeded start.
            state: tensors that the next round needs beside the model (the server step's memory); often none.

        Returns:
            The record with the digest of the model file filled in.
        """
        number = 0 if record is None else record.round
        clear_unfinished(self.path / _ROUNDS)
        with whole_folder(self.round_path(number)) as folder:
            sums: dict[str, str] = {}

            def write(path: Path, data: bytes) -> None:
                self._seal.write(path, data, context=self._context(number, path.name))
                sums[path.name] = hashlib.sha256(data).hexdigest()

            digest = save_weights(folder, tensors, self._definition, metadata={"run": self.run, "round": str(number)}, write=write)
            if state:
                ordered = {name: np.asarray(value, order="C") for name, value in sorted(state.items())}
                write(folder / _STATE, safetensors.numpy.save(ordered))
            if record is not None:
                record = record.model_copy(update={"model_sha256": digest})
                write_atomic(folder / _RECORD, record.model_dump_json(indent=2).encode() + b"\n")
            sums |= {file.name: sha256_file(file) for file in folder.iterdir() if file.name not in sums}
            _write_sums(folder, sums)
        return record

    def load_round(self, round: int) -> Weights:  # noqa: A002
        """Return the model of a round, tensors by name, after checking the folder's digests.

        Raises:
            ModelError: a file is missing or damaged, or holds another model than the run's configuration defines.
            TrustError: it is encrypted, and its key is not there or not the right one.
        """
        folder = self.round_path(round)
        _check_sums(folder, needed=_MODEL_FILES[1:])
        weights = load_weights(folder, read=partial(self._content, round))
        if weights.definition != self._definition:
            raise ModelError(
                "a checkpoint holds another model than the run's configuration",
                where=folder,
                got=weights.definition.digest()[:12],
                expected=self._definition.digest()[:12],
                remedy="restore the configuration that the run began with, or start a new run",
            )
        # The order of names in the file is not fixed, and whoever draws random numbers tensor by tensor would see it.
        return replace(weights, tensors=dict(sorted(weights.tensors.items())))

    def load_state(self, round: int) -> dict[str, Float32]:  # noqa: A002
        """Return the tensors that were written beside the model of a round; none where none were.

        Raises:
            ModelError: the file is damaged, or its sum is there and the file is not.
            TrustError: it is encrypted, and its key is not there or not the right one.
        """
        folder = self.round_path(round)
        if _STATE not in _read_sums(folder):
            return {}
        return dict(sorted(safetensors.numpy.load(self._content(round, folder / _STATE)).items()))

    def read_record(self, round: int) -> RoundT:  # noqa: A002
        """Return what happened in a round.

        Raises:
            ModelError: the record is missing or damaged.
        """
        folder = self.round_path(round)
        _check_sums(folder, needed=(_RECORD,))
        return self._round_type.parse(read_json(folder / _RECORD), where=folder / _RECORD)

    def read_records(self) -> list[RoundT]:
        """Return the records of all finished rounds, oldest first."""
        return [self.read_record(number) for number in self.finished_rounds() if number > 0]

    def read_result(self) -> ResultT | None:
        """Return the run's end, or None while it has not come."""
        return self._result_type.parse(read_json(self.result_path), where=self.result_path) if self.result_path.exists() else None

    def write_result(self, result: ResultT) -> None:
        """Write the run's end."""
        write_atomic(self.result_path, result.model_dump_json(indent=2).encode() + b"\n")

    def prune_models(self, *, keep: Collection[int]) -> None:
        """Delete the model files of all rounds but the last KEEP_LAST and those in `keep`; records stay.

        States go with the models of older rounds, those in `keep` too.
        SHA256SUMS is rewritten first, so a crash in between leaves a file that no sum names, never a sum without its file.
        """
        for number in self.finished_rounds()[:-KEEP_LAST]:
            folder = self.round_path(number)
            done_with = (_STATE,) if number in keep else (*_MODEL_FILES, _STATE)
            if not any((folder / name).exists() for name in done_with):
                continue
            _write_sums(folder, {name: digest for name, digest in _read_sums(folder).items() if name not in done_with})
            for name in done_with:
                (folder / name).unlink(missing_ok=True)

    def publish_model(
        self,
        kind: Literal["best", "last"],
        *,
        round: int,  # noqa: A002
        calibration: Calibration | None = None,
        documents: Mapping[str, bytes] = MappingProxyType({}),
        signer: Signer | None = None,
    ) -> Path:
        """Copy the model of a round to models/<kind> as a whole and return that folder.

        Args:
            kind: which model of the run it is.
            round: that made it.
            calibration: of it.
            documents: further files by name, for instance the model card.
            signer: signs the manifest; None leaves it unsigned.
        """
        self.load_round(round)
        target = self.model_path(kind)
        clear_unfinished(target.parent)
        if target.exists():
            shutil.rmtree(target)
        with whole_folder(target) as folder:
            tensors, record = _MODEL_FILES
            write_atomic(folder / tensors, self._content(round, self.round_path(round) / tensors))
            shutil.copyfile(self.round_path(round) / record, folder / record)
            if calibration is not None:
                save_calibration(folder, calibration)
            for name, content in documents.items():
                write_atomic(folder / name, content)
            write_manifest(folder, model_digest=self._definition.digest(), run=self.run, round=round, signer=signer)
        return target

    def sealed_files(self) -> list[SealedFile]:
        """Return the files that are encrypted where a run's files are, for a rotation of the key."""
        paths = [(number, self.round_path(number) / name) for number in self.finished_rounds() for name in _SEALED]
        return [SealedFile(path, self._context(number, path.name)) for number, path in paths if path.exists()]

    def note_seals(self) -> None:
        """Bring the sums of all rounds into the form that fits how their files lie now, after a rotation of the key."""
        for number in self.finished_rounds():
            _write_sums(self.round_path(number), _read_sums(self.round_path(number)))

    def _context(self, number: int, name: str) -> str:
        """Return what a sealed file is."""
        return f"run {self.run}, round {number}, {name}"

    def _content(self, number: int, path: Path) -> bytes:
        """Return the tensors' bytes of a round after checking them against their digest."""
        expected = _expected_digest(path, _read_sums(path.parent))
        data = self._seal.read(path, context=self._context(number, path.name))
        _check_digest(path, hashlib.sha256(data).hexdigest(), expected)
        return data


def _write_sums(folder: Path, sums: Mapping[str, str]) -> None:
    """Write digests of a folder's files in the form of sha256sum; those of sealed files, which are of their content, as comments."""
    lines = [
        f"{_SEALED_LINE if (folder / name).is_file() and is_sealed(folder / name) else ''}{digest}  {name}\n"
        for name, digest in sorted(sums.items())
    ]
    write_atomic(folder / _SUMS, "".join(lines).encode())


def _read_sums(folder: Path) -> dict[str, str]:
    """Return the digests of a folder's files by name."""
    try:
        lines = (folder / _SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(folder / _SUMS, got=type(error).__name__) from error
    return {name: digest for digest, _, name in (line.removeprefix(_SEALED_LINE).partition("  ") for line in lines)}


def _check_sums(folder: Path, *, needed: Collection[str]) -> None:
    """Refuse a folder in which a needed file is missing or differs from its digest."""
    sums = _read_sums(folder)
    for name in needed:
        expected = _expected_digest(folder / name, sums)
        _check_digest(folder / name, sha256_file(folder / name), expected)


def _expected_digest(file: Path, sums: Mapping[str, str]) -> str:
    """Return the digest that a file must have; a missing file is refused."""
    if file.name not in sums or not file.is_file():
        raise _damaged(file, got="no such file")
    return sums[file.name]


def _check_digest(file: Path, found: str, expected: str) -> None:
    if found != expected:
        raise _damaged(file, got=f"digest {found[:12]}", expected=f"digest {expected[:12]} ({_SUMS})")


def _damaged(file: Path, *, got: str, expected: str = "the file as it was written") -> ModelError:
    return ModelError(
        "a checkpoint is damaged",
        where=file,
        got=got,
        expected=expected,
        remedy=f"restore it from a copy, or delete the folder {file.parent.name} to go on from the round before",
    )
