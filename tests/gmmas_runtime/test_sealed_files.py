import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_runtime import sealed_files
from gmmas_runtime.sealed_files import (
    KEY_BYTES,
    MAGIC,
    PLAIN,
    KeyRing,
    Seal,
    SealedFile,
    is_sealed,
    key_id,
    open_bytes,
    rotate_key,
    seal_bytes,
)
from gmmas_schema.errors import TrustError

RING = KeyRing((b"k" * KEY_BYTES,))


@pytest.fixture
def seal(tmp_path):
    rotate_key(tmp_path / "keys" / "seal.key", [])
    return Seal(tmp_path / "keys" / "seal.key")


@given(data=st.binary(max_size=300), context=st.text(max_size=40))
def test_what_was_sealed_opens_in_its_own_context_only(data, context):
    sealed = seal_bytes(data, ring=RING, context=context)
    assert open_bytes(sealed, ring=RING, context=context, where="file") == data
    assert sealed != seal_bytes(data, ring=RING, context=context), "a nonce is used once"
    with pytest.raises(TrustError, match="stands in the place of another"):
        open_bytes(sealed, ring=RING, context=context + "x", where="file")


@given(data=st.binary(min_size=1, max_size=60), place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_every_changed_bit_is_noticed(data, place, bit):
    sealed = bytearray(seal_bytes(data, ring=RING, context="c"))
    sealed[place % len(sealed)] ^= 1 << bit
    with pytest.raises(TrustError):
        open_bytes(bytes(sealed), ring=RING, context="c", where="file")


@given(data=st.binary(max_size=60), length=st.integers(0, 120))
def test_a_cut_file_is_refused(data, length):
    sealed = seal_bytes(data, ring=RING, context="c")
    with pytest.raises(TrustError):
        open_bytes(sealed[: min(length, len(sealed) - 1)], ring=RING, context="c", where="file")


def test_the_key_file_is_made_for_its_owner_alone_and_tells_nothing_in_the_sealed_file(tmp_path, seal):
    assert stat.S_IMODE(seal.key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(seal.key_file.parent.stat().st_mode) == 0o700
    seal.write(tmp_path / "a", b"a patient's brain", context="c")
    raw = (tmp_path / "a").read_bytes()
    assert raw.startswith(MAGIC)
    assert b"patient" not in raw
    assert KeyRing.read(seal.key_file).keys[0] not in raw
    assert seal.read(tmp_path / "a", context="c") == b"a patient's brain"


def test_plain_files_lie_plain_and_a_sealed_one_says_what_it_wants(tmp_path, seal):
    PLAIN.write(tmp_path / "a", b"x", context="c")
    assert (tmp_path / "a").read_bytes() == b"x" == PLAIN.read(tmp_path / "a", context="c")
    with pytest.raises(TrustError, match="a file is not encrypted"):
        seal.read(tmp_path / "a", context="c")
    seal.write(tmp_path / "a", b"x", context="c")
    with pytest.raises(TrustError, match="no key file is named"):
        PLAIN.read(tmp_path / "a", context="c")


def test_a_missing_a_wrong_and_an_open_key_file_are_explained(tmp_path, seal):
    seal.write(tmp_path / "a", b"x", context="c")
    seal.key_file.rename(tmp_path / "copy")
    with pytest.raises(TrustError, match="is missing"):
        seal.read(tmp_path / "a", context="c")
    with pytest.raises(TrustError, match="is missing"):
        rotate_key(seal.key_file, [SealedFile(tmp_path / "a", "c")])
    rotate_key(seal.key_file, [])
    with pytest.raises(TrustError, match="encrypted with another key"):
        seal.read(tmp_path / "a", context="c")
    (tmp_path / "copy").chmod(0o644)
    with pytest.raises(TrustError):
        Seal(tmp_path / "copy").read(tmp_path / "a", context="c")
    for text in ("", "# nothing\n", "abc\n", "zz" * 32, "\x00"):
        (tmp_path / "odd").write_text(text)
        (tmp_path / "odd").chmod(0o600)
        with pytest.raises(TrustError, match="cannot be read"):
            KeyRing.read(tmp_path / "odd")


def make_files(tmp_path, seal, count=4):
    files = [SealedFile(tmp_path / f"f{number}", f"file {number}") for number in range(count)]
    for number, file in enumerate(files):
        (seal if number else PLAIN).write(file.path, b"content %d" % number, context=file.context)
    return files


def test_a_rotation_seals_all_anew_adopts_plain_files_and_forgets_the_old_key(tmp_path, seal):
    files = [*make_files(tmp_path, seal), SealedFile(tmp_path / "gone", "gone")]
    old, progress = KeyRing.read(seal.key_file), []
    done = rotate_key(seal.key_file, files, on_progress=lambda *step: progress.append(step))
    ring = KeyRing.read(seal.key_file)
    assert len(ring.keys) == 1
    assert ring.keys != old.keys
    assert (done.sealed, done.untouched, done.key) == (4, 0, key_id(ring.keys[0]).hex())
    assert progress[-1] == (4, 4)
    for number, file in enumerate(files[:4]):
        assert is_sealed(file.path)
        assert seal.read(file.path, context=file.context) == b"content %d" % number


def test_a_key_in_a_vault_that_a_link_leads_to_stays_there(tmp_path, seal):
    link = tmp_path / "link.key"
    link.symlink_to(seal.key_file)
    files = make_files(tmp_path, Seal(link))
    before = KeyRing.read(seal.key_file).keys
    rotate_key(link, files)
    assert link.is_symlink()
    assert KeyRing.read(seal.key_file).keys != before
    assert Seal(link).read(files[1].path, context=files[1].context) == b"content 1"


@pytest.mark.parametrize("after", range(6))
def test_a_rotation_broken_off_anywhere_leaves_all_readable_and_goes_on(tmp_path, seal, monkeypatch, after):
    files = make_files(tmp_path, seal)
    files[0:1] = []
    write, writes = sealed_files.write_atomic, []

    def write_some(*arguments, **options):
        if len(writes) == after:
            raise KeyboardInterrupt
        writes.append(1)
        write(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(sealed_files, "write_atomic", write_some)
        if after < 5:
            with pytest.raises(KeyboardInterrupt):
                rotate_key(seal.key_file, files)
        else:
            rotate_key(seal.key_file, files)
    for number, file in enumerate(files, start=1):
        assert seal.read(file.path, context=file.context) == b"content %d" % number
    made = KeyRing.read(seal.key_file).keys[0]
    rotate_key(seal.key_file, files)
    assert len(KeyRing.read(seal.key_file).keys) == 1
    assert (KeyRing.read(seal.key_file).keys[0] == made) is (0 < after < 5), "the key it had made is the one it goes on with"


def test_a_file_put_in_the_place_of_another_stops_a_rotation_and_the_old_key_stays(tmp_path, seal):
    files = make_files(tmp_path, seal)
    files[2].path.replace(files[3].path)
    before = KeyRing.read(seal.key_file).keys
    with pytest.raises(TrustError, match="in the place of another"):
        rotate_key(seal.key_file, files)
    assert KeyRing.read(seal.key_file).keys[1:] == before
    assert seal.read(files[1].path, context=files[1].context) == b"content 1"
