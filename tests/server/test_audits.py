"""What hospitals hold together, from files that tell no small count."""

import random
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gmmas_data.fingerprints import BANDS, is_same_patient
from gmmas_runtime.enrolment_file import key_sha256, openssh_text
from gmmas_runtime.signed_record import sign_record
from gmmas_schema.audit import AuditAggregate
from gmmas_schema.enrolment import EnrolledKey
from gmmas_schema.errors import TrustError
from gmmas_schema.vocabulary import Layout, Modality
from server.audits import count_shared, overview_of, read_audits, shared_patients
from server.deployment import init_coordinator
from server.folder import CoordinatorFolder
from server.salt import make_salt
from server.site_register import SiteRegister

KEYS = {site: ec.generate_private_key(ec.SECP384R1()) for site in ("north", "south", "west")}
FULL = {
    "cases": 100,
    "with t1": 100,
    "with flair": 80,
    "sequences=t1+flair": 80,
    "sequences=t1": 20,
    "segmentation=positive": 60,
    "segmentation=positive, sequences=t1+flair": 45,
    "segmentation=positive, sequences=t1": 15,
    "idh=positive": 30,
    "idh=negative": 40,
    "idh=positive, sequences=t1+flair": 20,
    "idh=negative, sequences=t1+flair": 40,
    "idh=positive, sequences=t1": None,
    "idh=negative, sequences=t1": None,
}


def aggregate(site: str = "north", counts: dict[str, int | None] | None = None, **changes: object) -> AuditAggregate:
    told = FULL if counts is None else counts
    return AuditAggregate(site=site, layout=Layout.BRATS2021, held=("t1", "flair", "segmentation", "idh"), counts=told).model_copy(
        update=changes
    )


@pytest.fixture
def folder(tmp_path: Path) -> CoordinatorFolder:
    return init_coordinator(tmp_path / "coordinator")


@pytest.fixture
def register(folder: CoordinatorFolder) -> SiteRegister:
    register = SiteRegister(folder)
    for site, key in KEYS.items():
        public = key.public_key()
        register.note(site, EnrolledKey(public_key=openssh_text(public), key_sha256=key_sha256(public), enrolled=datetime.now(UTC)))
    return register


def write(folder: Path, found: AuditAggregate, *, key: ec.EllipticCurvePrivateKey | None = None) -> Path:
    path = folder / f"{found.site}-{random.randrange(10**9)}.json"
    path.write_bytes(sign_record(found.model_dump(mode="json"), key or KEYS[found.site]))
    return path


def test_files_are_read_with_the_key_of_their_site(register: SiteRegister, tmp_path: Path) -> None:
    files = [write(tmp_path, aggregate(site)) for site in ("south", "north")]
    assert [found.site for found in read_audits(files, register)] == ["north", "south"]


def test_a_site_with_a_new_key_may_have_signed_with_the_old_one(register: SiteRegister, tmp_path: Path) -> None:
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    register.note("north", EnrolledKey(public_key=openssh_text(public), key_sha256=key_sha256(public), enrolled=datetime.now(UTC)))
    assert read_audits([write(tmp_path, aggregate())], register)


def test_files_that_cannot_be_trusted_are_refused_with_their_reason(register: SiteRegister, tmp_path: Path) -> None:
    good = write(tmp_path, aggregate())
    changed = tmp_path / "changed.json"
    changed.write_text(good.read_text().replace("100", "101"))
    other = ec.generate_private_key(ec.SECP384R1())
    unknown = write(tmp_path, aggregate("east"), key=other)
    refused = {
        changed: "another key, or a record that was changed",
        write(tmp_path, aggregate("south"), key=KEYS["north"]): "another key",
        unknown: "not known here",
        write(tmp_path, aggregate(counts=FULL | {"idh=positive, sequences=t1": 10})): "a small count told",
        write(tmp_path, aggregate(counts=FULL | {"cases": 0})): "a small count told",
    }
    for path, reason in refused.items():
        with pytest.raises(TrustError, match=reason):
            read_audits([path], register)
    with pytest.raises(TrustError, match="a second aggregate of site north"):
        read_audits([good, write(tmp_path, aggregate(counts=FULL | {"cases": 101}))], register)
    assert read_audits([unknown], register, keys=[other.public_key()])[0].site == "east"


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"record": 1}', b'{"record": {"site": "\\u0000"}}', b'{"record": {"site": "../north"}}']
)
def test_other_files_are_refused(register: SiteRegister, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "file").write_bytes(text)
    with pytest.raises(TrustError, match="gmmas site check --consent"):
        read_audits([tmp_path / "file", tmp_path / "absent"], register)


def test_a_signed_record_of_another_form_is_refused(register: SiteRegister, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(sign_record({"site": "north", "extra": 1}, KEYS["north"]))
    with pytest.raises(TrustError, match="layout: missing"):
        read_audits([path], register)


def test_counts_are_added_up_as_far_as_they_are_told() -> None:
    overview = overview_of([aggregate("north"), aggregate("south")])
    shown = {row: [str(counts[site]) for site in overview.sites] + [str(overview.total(row))] for row, counts in overview.rows.items()}
    assert shown == {
        "cases": ["100", "100", "200"],
        "t1": ["100", "100", "200"],
        "flair": ["80", "80", "160"],
        "segmentation": ["60", "60", "120"],
        "idh": ["70", "70", "140"],
        "t1, segmentation": ["60", "60", "120"],
        "t1, idh": ["≥ 60", "≥ 60", "≥ 120"],
        "flair, segmentation": ["45", "45", "90"],
        "flair, idh": ["60", "60", "120"],
    }


def test_a_withheld_part_makes_the_sum_open_and_what_is_not_held_is_not_zero() -> None:
    poor = aggregate("south", {"cases": None, "with t1": None, "segmentation=positive": None}, held=("t1", "segmentation"))
    overview = overview_of([aggregate("north"), poor])
    assert [str(overview.rows["cases"]["south"]), str(overview.total("cases"))] == ["few", "≥ 100"]
    assert [str(overview.rows["flair"]["south"]), str(overview.total("flair"))] == ["–", "80"]
    assert str(overview.rows["idh"]["south"]) == "–"


def test_rare_sets_of_sequences_are_not_taken_apart() -> None:
    counts = {"cases": 100, "with t1": 100, "sequences=t1": 80, "sequences=other": 20} | {
        "segmentation=positive": 50,
        "segmentation=positive, sequences=t1": 40,
        "segmentation=positive, sequences=other": None,
    }
    overview = overview_of([aggregate(counts=counts, held=("t1", "segmentation"))])
    assert str(overview.total("t1, segmentation")) == "≥ 40"
    assert str(overview.total("segmentation")) == "50"


def bands(seed: int, *, like: tuple[str, ...] | None = None, common: int = 0) -> tuple[str, ...]:
    rng = random.Random(seed)
    fresh = tuple(f"{rng.getrandbits(64):016x}" for _ in range(BANDS))
    return fresh if like is None else (*like[:common], *fresh[common:])


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    one=st.lists(st.lists(st.sampled_from("ab"), min_size=BANDS, max_size=BANDS), max_size=5),
    other=st.lists(st.lists(st.sampled_from("abc"), min_size=BANDS, max_size=BANDS), max_size=5),
)
def test_shared_scans_are_those_that_a_pairwise_comparison_finds(one: list[list[str]], other: list[list[str]]) -> None:
    assert count_shared(one, other) == sum(any(is_same_patient(a, b) for b in other) for a in one)


def test_patients_of_two_sites_are_found_and_few_are_told_as_few() -> None:
    mine = [bands(number) for number in range(30)]
    few = [bands(100 + n, like=mine[n], common=5) for n in range(3)] + [bands(200 + n) for n in range(20)]
    many = [bands(300 + n, like=mine[n], common=4) for n in range(14)]
    north = aggregate("north", fingerprints={Modality.T1: tuple(mine), Modality.FLAIR: tuple(mine)})
    south = aggregate("south", fingerprints={Modality.T1: tuple(few)})
    west = aggregate("west", fingerprints={Modality.T1: tuple(bands(400 + n) for n in range(12)), Modality.FLAIR: tuple(many)})
    found = {one.sites: (one.modality, one.patients, str(one)) for one in shared_patients([north, south, west])}
    assert found == {("north", "south"): (Modality.T1, 3, "1 to 10"), ("north", "west"): (Modality.FLAIR, 14, "14")}


def test_the_salt_is_made_once(folder: CoordinatorFolder) -> None:
    path = make_salt(folder)
    assert len(bytes.fromhex(path.read_text())) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(TrustError, match="has a salt"):
        make_salt(folder)
