import base64
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmas_model.weights import RECORD_FILE, TENSORS_FILE
from gmmas_runtime.keys import (
    SIGNING_CERTIFICATE,
    SIGNING_KEY,
    issue_server_certificate,
    issue_signing_certificate,
    make_authority,
)
from gmmas_runtime.manifest import Signer, Standing, check_manifest, write_manifest
from gmmas_runtime.signed_record import sign_record
from gmmas_schema.calibration import CALIBRATION_FILE
from gmmas_schema.errors import TrustError
from gmmas_schema.manifest import MANIFEST_FILE, MODEL_FILES

DIGEST = "ab" * 32


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a signer of models and a TLS server under it."""
    folder = tmp_path_factory.mktemp("federation")
    make_authority(folder / "authority", name="test")
    issue_signing_certificate(folder / "authority", folder / "signing", name="test models")
    issue_server_certificate(folder / "authority", folder / "server", hosts=())
    return folder


@pytest.fixture(scope="module")
def signer(federation: Path) -> Signer:
    return Signer.load(federation / "signing" / SIGNING_CERTIFICATE, federation / "signing" / SIGNING_KEY)


def write_model(folder: Path, *extra: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*MODEL_FILES[:2], *extra):
        (folder / name).write_text(f"contents of {name}")
    return folder


def test_the_covered_files_are_those_that_are_read() -> None:
    assert {TENSORS_FILE, RECORD_FILE, CALIBRATION_FILE} < set(MODEL_FILES)


def test_a_signed_model_is_vouched_for_under_its_authority_alone(federation: Path, signer: Signer, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", CALIBRATION_FILE)
    write_manifest(folder, model_digest=DIGEST, run="r", round=3, signer=signer)
    origin = check_manifest(folder, authority=federation / "authority" / "authority.pem")
    assert (origin.standing, origin.signer, origin.manifest.round) == (Standing.VOUCHED, "test models", 3)
    assert set(origin.manifest.files) == {*MODEL_FILES[:2], CALIBRATION_FILE}
    assert check_manifest(folder).standing is Standing.SIGNED
    make_authority(tmp_path / "other", name="test")  # of the same name, with another key
    with pytest.raises(TrustError, match="not of this authority"):
        check_manifest(folder, authority=tmp_path / "other" / "authority.pem")


def test_a_tls_server_of_the_same_authority_cannot_sign_models(federation: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    write_manifest(
        folder, model_digest=DIGEST, signer=Signer.load(federation / "server" / "server.pem", federation / "server" / "server.key")
    )
    with pytest.raises(TrustError, match="not for signing models"):
        check_manifest(folder, authority=federation / "authority" / "authority.pem")


def test_a_model_without_a_signature_is_read_but_not_under_an_authority(federation: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    authority = federation / "authority" / "authority.pem"
    assert check_manifest(folder).standing is Standing.ABSENT
    with pytest.raises(TrustError, match="no manifest"):
        check_manifest(folder, authority=authority)
    write_manifest(folder, model_digest=DIGEST)
    assert check_manifest(folder).standing is Standing.UNSIGNED
    with pytest.raises(TrustError, match="nobody signed"):
        check_manifest(folder, authority=authority)


@settings(max_examples=25)
@given(st.data())
def test_any_changed_byte_of_any_file_is_found(signer: Signer, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = write_model(tmp_path_factory.mktemp("model"), CALIBRATION_FILE)
    write_manifest(folder, model_digest=DIGEST, signer=signer)
    file = folder / data.draw(st.sampled_from(sorted(path.name for path in folder.iterdir())))
    content = bytearray(file.read_bytes())
    place = int(data.draw(st.floats(0, 1, exclude_max=True)) * len(content))
    before = bytes(content)
    content[place] ^= data.draw(st.integers(1, 255))
    file.write_bytes(bytes(content))
    if file.name == MANIFEST_FILE and _means_the_same(before, bytes(content)):
        return  # white space between the keys means nothing, nor do the bits that pad base64
    with pytest.raises(TrustError):
        check_manifest(folder)


def _means_the_same(one: bytes, other: bytes) -> bool:
    try:
        read = [json.loads(content) for content in (one, other)]
        return read[0]["record"] == read[1]["record"] and len({base64.b64decode(content["signature"]) for content in read}) == 1
    except (ValueError, KeyError, TypeError):
        return False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / CALIBRATION_FILE).write_text("{}"), "calibration.json"),
        (lambda folder: (folder / "model.json").unlink(), "no such file"),
        (lambda folder: (folder / MANIFEST_FILE).write_text("[]"), "cannot be read"),
        (lambda folder: (folder / MANIFEST_FILE).write_text("{}"), "cannot be read"),
        (lambda folder: (folder / MANIFEST_FILE).write_bytes(b"\xff" * 2**21), "more than"),
    ],
)
def test_what_is_added_or_taken_away_is_named(signer: Signer, tmp_path: Path, change, message: str) -> None:
    folder = write_model(tmp_path / "model")
    write_manifest(folder, model_digest=DIGEST, signer=signer)
    change(folder)
    with pytest.raises(TrustError, match=message):
        check_manifest(folder)


def test_a_signature_taken_off_or_from_another_model_is_no_signature(signer: Signer, tmp_path: Path) -> None:
    one, other = write_model(tmp_path / "one"), write_model(tmp_path / "other", CALIBRATION_FILE)
    write_manifest(one, model_digest=DIGEST, signer=signer)
    write_manifest(other, model_digest=DIGEST, signer=signer)
    signed = [json.loads((folder / MANIFEST_FILE).read_text()) for folder in (one, other)]
    for content, message in (
        (signed[0] | {"signature": ""}, "half a signature"),
        (signed[0] | {"signature": signed[1]["signature"]}, "signature of a model is wrong"),
        ({"record": signed[0]["record"] | {"certificate": ""}, "signature": signed[0]["signature"]}, "half a signature"),
    ):
        (one / MANIFEST_FILE).write_text(json.dumps(content))
        with pytest.raises(TrustError, match=message):
            check_manifest(one)


def test_a_file_name_cannot_leave_the_folder(signer: Signer, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    manifest = write_manifest(folder, model_digest=DIGEST, signer=signer).model_dump(mode="json")
    manifest["files"]["../secret"] = DIGEST
    (folder / MANIFEST_FILE).write_bytes(sign_record(manifest, signer.key))
    with pytest.raises(TrustError, match="cannot be read"):
        check_manifest(folder)


def test_a_key_without_its_certificate_signs_nothing(federation: Path, tmp_path: Path) -> None:
    make_authority(tmp_path / "other", name="other")
    issue_signing_certificate(tmp_path / "other", tmp_path / "signing", name="other models")
    with pytest.raises(TrustError, match="does not fit"):
        Signer.load(federation / "signing" / SIGNING_CERTIFICATE, tmp_path / "signing" / SIGNING_KEY)
    with pytest.raises(TrustError, match="never overwritten"):
        issue_signing_certificate(tmp_path / "other", tmp_path / "signing", name="other models")
