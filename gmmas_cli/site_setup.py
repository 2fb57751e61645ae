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
# One hospital node of gmmas-fed. Relative paths are relative to this file; an unknown key is refused by name.

# What the coordinator calls this site: lower-case letters, digits, hyphens.
site: {site}

data:
  # Folder of the cohort, nested or flat. Its scans are only ever read, and never leave this machine.
  root: {root}
  # auto | brats2021 | brats2023. auto infers the convention from the file names, never from voxel values.
  layout: auto
  # CSV with columns patient_id, idh (mutant, wildtype) and codeletion (codeleted, intact), and where known grade (2, 3, 4, lgg, hgg),
  # mgmt (methylated, unmethylated) and subtype (glioblastoma, astrocytoma, oligodendroglioma); null: no such labels.
  labels: {labels}
  # Sequences this site offers; files of others are not opened.
  modalities: {modalities}
  # true: leave out cases that fail the quality gate. false: refuse to start until they are mended.
  skip_bad_cases: false
  # Patients, never scans, are split; who is in which part follows from the seed and the set of patients.
  split: {{validation: 0.15, test: 0.2, seed: 0}}

coordinator:
  # host:port. The node connects outwards over TLS; no port is opened to the outside here.
  address: {coordinator}
  # The coordinator's authority.pem.
  root_certificate: {root_certificate}

node:
  # Proves who this site is. It never leaves this machine; the coordinator enrols the .pub file beside it.
  private_key: {private_key}
  # Sockets, caches and logs, with rights 0700.
  state: state
  # Port on loopback between SuperNode and executor; every node of one machine needs its own.
  runtime_port: {runtime_port}
  # resident: only the software installed here runs. flower: Flower's own executor, which runs what the coordinator sends.
  executor: resident
  # CPU threads of the trainer, and processes that preprocess scans.
  threads: {threads}
  # auto (CUDA where present, else CPU) | cpu | cuda
  device: auto
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
