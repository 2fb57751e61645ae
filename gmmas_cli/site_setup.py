"""Setting up a site: a commented site.yaml and the node's key, both or neither."""

import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from gmmas_runtime.files import write_atomic
from gmmas_runtime.keys import load_certificate, make_node_key
from gmmas_schema.errors import ConfigError
from gmmas_schema.site import SiteConfig

_TEMPLATE = """\
# One hospital node of gmmas-fed. Relative paths are relative to this file. An unknown key is refused by name.

site: {site}                        # what the coordinator calls this site: lower-case letters, digits, hyphens

data:
  root: {root}
  layout: auto                      # auto | brats2021 | brats2023; inferred from the file names
  labels: {labels}                  # CSV with columns patient_id, idh, codeletion; null: no molecular labels
  modalities: {modalities}
  skip_bad_cases: false             # true: leave out cases that fail the quality gate; false: refuse to start until they are mended
  split:                            # patients, never scans, are split; the assignment follows from the seed and never moves
    validation: 0.15
    test: 0.2
    seed: 0

coordinator:
  address: {coordinator}            # outbound TLS; no port is opened to the outside here
  root_certificate: {root_certificate}

node:
  private_key: {private_key}        # never leaves this machine; the coordinator enrols the .pub beside it
  state: state                      # sockets, caches, logs; rights 0700
  runtime_port: {runtime_port}      # on loopback; every node of one machine needs its own
  executor: resident                # resident: only the installed client runs | flower: runs the code the coordinator sends
  threads: {threads}                # CPU threads of the trainer
  device: auto                      # auto | cpu | cuda
"""


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


@dataclass(frozen=True)
class WrittenSite:
    """The files of a new site; `public_key` is what the coordinator gets."""

    config: Path
    public_key: Path


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        public_key = make_node_key(folder / _key_path(answers.site))
        write_atomic(path, text.encode())
    except OSError as error:
        raise ConfigError(
            "the site's folder cannot be written",
            where=error.filename or folder,
            got=error.strerror or type(error).__name__,
            expected="a folder this user may write to",
            remedy="choose another folder",
        ) from error
    return WrittenSite(path, public_key)


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
    return _TEMPLATE.format_map({key: json.dumps(value, ensure_ascii=False) for key, value in values.items()})


def _key_path(site: str) -> str:
    return f"keys/{site}"
