"""Signing a published model, and checking that a model's files are those that were published.

    authority (authority.pem, ten years) -> signing certificate (code signing, P-384) -> manifest.json -> SHA-256 of each file

A hospital or a researcher needs the authority's certificate alone, which every enrolled hospital has. The authority's own key signs
certificates and nothing else, so the key that signs models can lie where models are made. A signature without a known authority says
that nothing was changed since somebody signed, and not who that was.
"""

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gmmas_runtime.files import sha256_file, write_atomic
from gmmas_runtime.keys import load_certificate, load_private_key
from gmmas_runtime.signed_record import read_signed_record, sign_record
from gmmas_schema.errors import GmmasError, TrustError
from gmmas_schema.manifest import MANIFEST_FILE, MODEL_FILES, ModelManifest
from gmmas_schema.printable import printable

_LARGEST_BYTES = 2**20


class Standing(StrEnum):
    """How much is known of a model's origin; in the words that a user is told.

    ABSENT: no manifest. UNSIGNED: the files are those of the manifest, which anybody could have written. SIGNED: somebody signed it, whose
    certificate was not held against an authority. VOUCHED: signed by a coordinator of the given authority.
    """

    ABSENT = "no manifest"
    UNSIGNED = "not signed"
    SIGNED = "signed"
    VOUCHED = "signed by the given authority"


@dataclass(frozen=True)
class Origin:
    """What a model's manifest says of it, after the check.

    Attributes:
        manifest: None where there is none.
        signer: name in the signer's certificate, of which nothing but printable characters is left; empty for an unsigned model.
    """

    standing: Standing
    manifest: ModelManifest | None = None
    signer: str = ""

    @property
    def is_signed(self) -> bool:
        """Whether somebody signed."""
        return self.standing in (Standing.SIGNED, Standing.VOUCHED)


@dataclass(frozen=True)
class Signer:
    """A key that signs models, and its certificate (PEM)."""

    key: ec.EllipticCurvePrivateKey
    certificate: str

    @classmethod
    def load(cls, certificate_path: Path, key_path: Path) -> "Signer":
        """Read both files.

        Raises:
            TrustError: one is missing, damaged, expired, or readable by others.
        """
        certificate, key = load_certificate(certificate_path), load_private_key(key_path)
        if certificate.public_key() != key.public_key():
            raise TrustError(
                "the signing key does not fit its certificate",
                where=key_path,
                got="the key of another certificate",
                expected=f"the key of {certificate_path.name}",
                remedy="restore both files from the same backup, or move both away: new ones are made at the next run",
            )
        return cls(key, certificate.public_bytes(serialization.Encoding.PEM).decode())


def write_manifest(
    folder: Path,
    *,
    model_digest: str,
    run: str = "",
    round: int | None = None,  # noqa: A002 - the field's word
    signer: Signer | None = None,
) -> ModelManifest:
    """Write the manifest of the model in a folder, over all files of MODEL_FILES that are there.

    Args:
        folder: holds the model, which is complete.
        model_digest: of its definition.
        run: identifier of the run that made it.
        round: that made it.
        signer: None writes an unsigned manifest.
    """
    manifest = ModelManifest(
        files={name: sha256_file(folder / name) for name in MODEL_FILES if (folder / name).exists()},
        model_digest=model_digest,
        run=run,
        round=round,
        software=version("gmmas-fed"),
        made_at=time.time(),
        certificate="" if signer is None else signer.certificate,
    )
    record = manifest.model_dump(mode="json")
    unsigned = json.dumps({"record": record, "signature": ""}, sort_keys=True, indent=1).encode()
    write_atomic(folder / MANIFEST_FILE, unsigned if signer is None else sign_record(record, signer.key))
    return manifest


def check_manifest(folder: Path, *, authority: Path | None = None, ignore: Collection[str] = ()) -> Origin:
    """Check a model's files against its manifest, and the manifest against its signature.

    Args:
        folder: of the model.
        authority: certificate of the coordinator's authority. With it, nothing but a signature under it will do.
        ignore: files that are about to be made anew, and may be missing or damaged.

    Raises:
        TrustError: a file is missing, changed or not named; the manifest is damaged or its signature is wrong; or an authority is given and
            the model is not signed under it.
    """
    path = folder / MANIFEST_FILE
    if not path.exists():
        if authority is not None:
            raise _not_vouched(path, "no manifest")
        return Origin(Standing.ABSENT)
    manifest, signature = _read(path)
    _check_files(folder, manifest, ignore)
    if not manifest.certificate or not signature:
        if authority is not None or manifest.certificate or signature:
            raise _not_vouched(path, "half a signature" if manifest.certificate or signature else "a manifest that nobody signed")
        return Origin(Standing.UNSIGNED, manifest)
    certificate = _check_signature(path, manifest)
    if authority is not None:
        _check_issued(certificate, authority, manifest, path)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    signer = str(names[0].value) if names else certificate.subject.rfc4514_string()
    # Anybody may sign under any name: a line break in it would put words of theirs below the answer.
    signer = printable(signer)
    return Origin(Standing.SIGNED if authority is None else Standing.VOUCHED, manifest, signer)


def _read(path: Path) -> tuple[ModelManifest, str]:
    """Return the record and the signature of a manifest, neither of them checked."""
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ValueError(f"more than {_LARGEST_BYTES} bytes")
        content: Any = json.loads(path.read_bytes())
        if not isinstance(content, Mapping) or not isinstance(content.get("signature"), str):
            raise TypeError("no record with a signature")
        return ModelManifest.parse(content.get("record"), where=path), content["signature"]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        got = error.got if isinstance(error, GmmasError) else f"{type(error).__name__}: {error}"
        raise TrustError(
            "the manifest of a model cannot be read",
            where=path,
            got=f"{got:.300}",
            expected="manifest.json as the coordinator wrote it",
            remedy="copy the model's folder again from its origin",
        ) from error


def _check_files(folder: Path, manifest: ModelManifest, ignore: Collection[str]) -> None:
    """Refuse a folder whose files are not exactly those of the manifest, as far as they are read."""
    for name in dict.fromkeys(name for name in (*manifest.files, *MODEL_FILES) if name not in ignore):
        file, expected = folder / name, manifest.files.get(name)
        found = sha256_file(file) if file.is_file() else None
        if found != expected:
            raise TrustError(
                "a model is not the one that was published",
                where=file,
                got="no such file" if found is None else f"SHA-256 {found[:12]}",
                expected="no such file" if expected is None else f"SHA-256 {expected[:12]} ({MANIFEST_FILE})",
                remedy="copy the whole folder again from its origin; if the change is yours, write the model anew with"
                " `gmmas export --format weights`, which gives it a manifest of its own",
            )


def _check_signature(path: Path, manifest: ModelManifest) -> x509.Certificate:
    """Return the signer's certificate, once its key has been found to have signed the manifest."""
    try:
        certificate = x509.load_pem_x509_certificate(manifest.certificate.encode())
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise TypeError("the certificate's key is not on an elliptic curve")
        read_signed_record(path, key)
    except (ValueError, TypeError) as error:  # a TrustError is one
        raise TrustError(
            "the signature of a model is wrong",
            where=path,
            got="a manifest that was changed after it was signed, or a signature of another key",
            expected="the manifest as the coordinator signed it",
            remedy="copy the model's folder again from its origin",
        ) from error
    return certificate


def _check_issued(certificate: x509.Certificate, authority: Path, manifest: ModelManifest, path: Path) -> None:
    """Refuse a signer whom the authority did not make one, or who signed outside the time of the certificate."""
    root = load_certificate(authority)
    try:
        certificate.verify_directly_issued_by(root)
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        signs_models = ExtendedKeyUsageOID.CODE_SIGNING in usage
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
        raise _not_vouched(path, f"a signer of {certificate.issuer.rfc4514_string()}, not of this authority") from error
    if not signs_models:
        raise _not_vouched(path, "a certificate that is not for signing models")
    if not certificate.not_valid_before_utc.timestamp() <= manifest.made_at <= certificate.not_valid_after_utc.timestamp():
        raise _not_vouched(path, "a signature from outside the time of its certificate")


def _not_vouched(path: Path, got: str) -> TrustError:
    return TrustError(
        "nobody of the given authority vouches for this model",
        where=path,
        got=got,
        expected="a manifest signed by a coordinator whose certificate the authority issued",
        remedy="give the authority.pem of the coordinator that made the model, or ask there for the model again",
    )
