"""Setting up a site: a commented site.yaml, the node's key and the enrolment file, all of them or none."""

import json
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from gmmas_cli.site_template import SITE_TEMPLATE
from gmmas_runtime.enrolment_file import SUFFIX, write_enrolment
from gmmas_runtime.files import write_atomic
from gmmas_runtime.keys import load_certificate, load_node_key, make_node_key
from gmmas_schema.errors import ConfigError
from gmmas_schema.site import SiteConfig


@dataclass(frozen=True)
class SiteAnswers:
    """What `gmmas site init` was told."""

    site: str
    data: Path
    labels: Path | None
    modalities: tuple[str, ...]
    coordinator: str
    root_certificate: Path
    runtime_port: int
    threads: int
    contact: str = ""


@dataclass(frozen=True)
class WrittenSite:
    """The files of a new site; `enrolment` is what the coordinator gets."""

    config: Path
    public_key: Path
    enrolment: Path


def write_site(folder: Path, answers: SiteAnswers) -> WrittenSite:
    """Make the node's key and write site.yaml into a folder; nothing is written if an answer is wrong.

    Raises:
        ConfigError: an answer does not fit, or the folder holds a site.yaml or cannot be written to.
        TrustError: the coordinator's certificate is missing or wrong, or there is a key already.
    """
    path = folder / "site.yaml"
    if path.exists():
        raise ConfigError(
            "this folder holds a site already",
            where=path,
            got="an existing site.yaml",
            expected="none",
            remedy="edit it, or choose another folder",
        )
    text = _write_text(answers)
    SiteConfig.parse(yaml.safe_load(text), where="the answers to gmmas site init", folder=folder)
    load_certificate(answers.root_certificate)
    if not answers.contact.isprintable() or len(answers.contact) > 200:
        raise _wrong_contact(answers.contact)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        public_key = make_node_key(folder / _key_path(answers.site))
        enrolment = write_enrolment_file(folder / _key_path(answers.site), site=answers.site, contact=answers.contact)
        write_atomic(path, text.encode())
    except OSError as error:
        raise ConfigError(
            "the site's folder cannot be written",
            where=error.filename or folder,
            got=error.strerror or type(error).__name__,
            expected="a folder this user may write to",
            remedy="choose another folder",
        ) from error
    return WrittenSite(path, public_key, enrolment)


def write_enrolment_file(private_key: Path, *, site: str, contact: str = "") -> Path:
    """Write a site's enrolment file beside its key; returns its path.

    Raises:
        ConfigError: the contact is not one line of text.
        TrustError: the key cannot be read.
    """
    path = private_key.with_name(f"{site}{SUFFIX}")
    try:
        write_enrolment(path, site=site, key=load_node_key(private_key), contact=contact)
    except ValidationError as error:
        raise _wrong_contact(contact) from error
    return path


def _wrong_contact(contact: str) -> ConfigError:
    return ConfigError(
        "the contact cannot be taken",
        where="--contact",
        got=f"{contact!r:.80}",
        expected="one line of at most 200 printable characters",
        remedy="name a person or a desk, with a telephone number",
    )


def _write_text(answers: SiteAnswers) -> str:
    # JSON strings and lists are YAML.
    values = {
        "site": answers.site,
        "root": str(answers.data.absolute()),
        "labels": str(answers.labels.absolute()) if answers.labels else None,
        "modalities": list(answers.modalities),
        "coordinator": answers.coordinator,
        "root_certificate": str(answers.root_certificate.absolute()),
        "private_key": _key_path(answers.site),
        "runtime_port": answers.runtime_port,
        "threads": answers.threads,
    }
    return SITE_TEMPLATE.format_map({key: json.dumps(value, ensure_ascii=False) for key, value in values.items()})


def _key_path(site: str) -> str:
    return f"keys/{site}"
