"""The folder of a run, federated or not: one atomic, checksummed directory per finished round, and the models that came out.

    run.json                           identifier of the run; a resumed run keeps it
    rounds/0000/                       the seeded start; then one folder a round
        model.safetensors, model.json  model after the round, and what it was trained on (of older rounds only the best is kept)
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
import logging
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final, Generic, Literal, TypeVar

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import ValidationError

from gmmas_model.weights import Weights, WeightsRecord, load_weights, save_calibration, save_weights
from gmmas_runtime.disk import require_room
from gmmas_runtime.files import clear_unfinished, sha256_file, whole_folder, write_atomic
from gmmas_runtime.manifest import Signer, write_manifest
from gmmas_runtime.sealed_files import PLAIN, Seal, SealedFile
from gmmas_schema.calibration import Calibration
from gmmas_schema.errors import GmmasError, ModelError
from gmmas_schema.model import ModelDefinition
from gmmas_schema.trained_parts import TrainedParts
from gmmas_workflows.records import FinishedRound, FinishedRun
from gmmas_workflows.round_sums import check_digest, check_sums, expected_digest, read_sums, rewrite_sums, write_sums
from gmmas_workflows.run_identity import hold_folder, read_json
from gmmas_workflows.scores import ModelScore

logger = logging.getLogger(__name__)

KEEP_LAST: Final = 3
"""Models of the last rounds that are kept, so that one damaged folder costs a round and not the run: it is deleted, and the run goes on
from the newest one that is left, with the one before that for its momentum."""

_MODELS_HELD: Final = KEEP_LAST + 4
"""At the most: the last rounds, the best one, the one that is being written, and the two that are published."""

_ROUNDS, _RECORD, _RESULT = "rounds", "round.json", "result.json"
_MODEL_FILES = ("model.safetensors", "model.json")
_STATE = "state.safetensors"
_SEALED = (_MODEL_FILES[0], _STATE)

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
        groups_of: returns the groups of tensors that a round trained.
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
        groups_of: Callable[[RoundT], Iterable[str]],
        seal: Seal = PLAIN,
    ) -> None:
        self.path, self.run, self._seal = path, run, seal
        self._definition, self._round_type, self._result_type = definition, round_type, result_type
        self._groups_of = groups_of

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
        trained = self._trained_after(record)
        clear_unfinished(self.path / _ROUNDS)
        with whole_folder(self.round_path(number)) as folder:
            sums: dict[str, str] = {}

            def write(path: Path, data: bytes) -> None:
                self._seal.write(path, data, context=self._context(number, path.name))
                sums[path.name] = hashlib.sha256(data).hexdigest()

            origin = {"run": self.run, "round": str(number)}
            digest = save_weights(folder, tensors, self._definition, metadata=origin, trained=trained, write=write)
            if state:
                ordered = {name: np.asarray(value, order="C") for name, value in sorted(state.items())}
                write(folder / _STATE, safetensors.numpy.save(ordered))
            if record is not None:
                record = record.model_copy(update={"model_sha256": digest})
                write_atomic(folder / _RECORD, record.model_dump_json(indent=2).encode() + b"\n")
            sums |= {file.name: sha256_file(file) for file in folder.iterdir() if file.name not in sums}
            write_sums(folder, sums)
        return record

    def load_round(self, round: int) -> Weights:  # noqa: A002
        """Return the model of a round, tensors by name, after checking the folder's digests.

        Raises:
            ModelError: a file is missing or damaged, or holds another model than the run's configuration defines.
            TrustError: it is encrypted, and its key is not there or not the right one.
        """
        folder = self.round_path(round)
        check_sums(folder, needed=_MODEL_FILES[1:])
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
        if _STATE not in read_sums(folder):
            return {}
        return dict(sorted(safetensors.numpy.load(self._content(round, folder / _STATE)).items()))

    def read_record(self, round: int) -> RoundT:  # noqa: A002
        """Return what happened in a round.

        Raises:
            ModelError: the record is missing or damaged.
        """
        folder = self.round_path(round)
        check_sums(folder, needed=(_RECORD,))
        return self._round_type.parse(read_json(folder / _RECORD), where=folder / _RECORD)

    def read_records(self) -> list[RoundT]:
        """Return the records of all finished rounds, oldest first."""
        return [self.read_record(number) for number in self.finished_rounds() if number > 0]

    def kept(self, scores: Iterable[ModelScore]) -> list[ModelScore]:
        """Return the scores of the models that are there: not pruned, nor deleted with their folder."""
        return [score for score in scores if (self.round_path(score.model_round) / _MODEL_FILES[0]).exists()]

    def read_result(self) -> ResultT | None:
        """Return the run's end, or None while it has not come."""
        return self._result_type.parse(read_json(self.result_path), where=self.result_path) if self.result_path.exists() else None

    def write_result(self, result: ResultT) -> None:
        """Write the run's end."""
        write_atomic(self.result_path, result.model_dump_json(indent=2).encode() + b"\n")

    def prune_models(self, *, keep: Collection[int]) -> None:
        """Delete the model files of all rounds but the last KEEP_LAST and those in `keep`; records stay.

        States go with the models of older rounds, those in `keep` too.
        SHA256SUMS is rewritten first, so a crash in between leaves a file that no sum names, never a sum without its file. A folder whose
        sums are damaged stays as it is.
        """
        for number in self.finished_rounds()[:-KEEP_LAST]:
            folder = self.round_path(number)
            done_with = (_STATE,) if number in keep else (*_MODEL_FILES, _STATE)
            if not any((folder / name).exists() for name in done_with) or not rewrite_sums(folder, without=done_with):
                continue
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
            rewrite_sums(self.round_path(number))

    def _trained_after(self, record: RoundT | None) -> TrainedParts | None:
        """Return what the rounds up to this one have trained: what the model before says, and this round's groups; None if unknown."""
        if record is None:
            return TrainedParts()
        before = self._trained_before(record.round)
        return None if before is None else before | TrainedParts.of(self._groups_of(record))

    def _trained_before(self, number: int) -> TrainedParts | None:
        try:
            said = WeightsRecord.model_validate_json((self.round_path(number - 1) / _MODEL_FILES[1]).read_bytes()).trained
            # The models of an earlier release do not say it; the records of its rounds do.
            earlier = [] if said is not None else [self.read_record(done) for done in self.finished_rounds() if 0 < done < number]
        except (GmmasError, OSError, ValidationError) as error:
            logger.warning("what the rounds before %d trained is not known: %s", number, error)
            return None
        return TrainedParts.of(group for each in earlier for group in self._groups_of(each)) if said is None else said

    def _context(self, number: int, name: str) -> str:
        """Return what a sealed file is."""
        return f"run {self.run}, round {number}, {name}"

    def _content(self, number: int, path: Path) -> bytes:
        """Return the tensors' bytes of a round after checking them against their digest."""
        expected = expected_digest(path, read_sums(path.parent))
        data = self._seal.read(path, context=self._context(number, path.name))
        check_digest(path, hashlib.sha256(data).hexdigest(), expected)
        return data
