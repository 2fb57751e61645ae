"""The frozen pydantic base of every configuration, and reading it from YAML with errors a person can act on."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo

from gmmas_schema.errors import ConfigError
from gmmas_schema.vocabulary import MODALITIES, Modality


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class FrozenModel(BaseModel):
    """A configuration record: immutable, unknown keys refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def digest(self) -> str:
        """Return the SHA-256 hex digest of the canonical JSON form (sorted keys, no white space)."""
        return _digest(self.model_dump(mode="json"))

    def choices_digest(self) -> str:
        """Return the digest of what differs from the defaults: a later release's new key, left as it is, does not change it."""
        return _digest(self.model_dump(mode="json", exclude_defaults=True))

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Read and validate a YAML file; relative paths inside it are relative to its folder.

        Raises:
            ConfigError: the file is missing, is not YAML, or has a missing, unknown or wrong key; every fault is named.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{cls.__name__} cannot be read",
                where=path,
                got=type(error).__name__,
                expected="a readable YAML file",
                remedy="check the path and its rights; site_configs/ holds commented examples",
            ) from error
        raw = read_yaml(text, what=cls.__name__, where=path)
        return cls.parse(raw, where=path, folder=path.resolve().parent)

    @classmethod
    def parse(cls, raw: Any, *, where: object, folder: Path | None = None) -> Self:
        """Validate plain data; `where` names its origin and `folder` is the base for relative paths."""
        try:
            return cls.model_validate(raw, context={"folder": folder})
        except ValidationError as error:
            faults = [_fault(entry) for entry in error.errors()]
            raise ConfigError(
                f"{cls.__name__} has {len(faults)} fault{'s' if len(faults) > 1 else ''}",
                where=where,
                got="; ".join(faults),
                expected="keys and values as in site_configs/",
                remedy="mend or remove the keys named above",
            ) from error


def read_yaml(text: str, *, what: str, where: object) -> Any:
    """Return the plain data of a YAML text.

    Args:
        text: of a person.
        what: it is, for the error.
        where: it comes from.

    Raises:
        ConfigError: it is not YAML.
    """
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
        # The last three are how PyYAML itself fails, at 2026-02-30 or at deep nesting.
        raise ConfigError(
            f"{what} is not valid YAML", where=where, got=" ".join(str(error).split()), expected="YAML", remedy="mend the line named above"
        ) from error


def differing_keys(before: Any, after: Any, *, key: str = "") -> list[str]:
    """Return the differences of two plain JSON values as `key: before -> after`, keys joined by dots."""
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after) and all(isinstance(v, dict) for v in before):
        before, after = dict(enumerate(before)), dict(enumerate(after))
    if isinstance(before, dict) and isinstance(after, dict):
        names = dict.fromkeys([*before, *after])
        return [text for name in names for text in differing_keys(before.get(name), after.get(name), key=f"{key}.{name}".lstrip("."))]
    return [] if before == after else [f"{key}: {json.dumps(before)} -> {json.dumps(after)}"]


def _ordered_and_unique(value: tuple[Modality, ...]) -> tuple[Modality, ...]:
    if len(set(value)) != len(value):
        raise ValueError("a modality is named twice")
    return tuple(m for m in MODALITIES if m in value)


HeldModalities = Annotated[tuple[Modality, ...], Field(min_length=1), AfterValidator(_ordered_and_unique)]
"""At least one modality, none twice, brought into the order of MODALITIES."""


def _absolute(path: Path, info: ValidationInfo) -> Path:
    """Resolve a relative path against the configuration's own folder."""
    folder = (info.context or {}).get("folder")
    return path if path.is_absolute() or folder is None else folder / path


ConfigPath = Annotated[Path, AfterValidator(_absolute)]
"""A path in a configuration file, relative to that file's folder."""


def _fault(entry: Any) -> str:
    """Return one pydantic fault as `key: reason (got value)`."""
    key = ".".join(str(part) for part in entry["loc"]) or "(top level)"
    if entry["type"] == "extra_forbidden":
        return f"unknown key '{key}'"
    if entry["type"] == "missing":
        return f"missing key '{key}'"
    return f"{key}: {entry['msg']} (got {entry['input']!r:.80})"
