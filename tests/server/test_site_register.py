"""Whose key it is, since when, whom to call."""

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gmmas_runtime.enrolment_file import key_sha256, openssh_text
from gmmas_schema.enrolment import EnrolledKey
from gmmas_schema.errors import TrustError
from server.deployment import init_coordinator
from server.site_register import SiteRegister

KEYS = [ec.generate_private_key(ec.SECP384R1()).public_key() for _ in range(2)]


def enrolled(number: int) -> EnrolledKey:
    return EnrolledKey(
        public_key=openssh_text(KEYS[number]), key_sha256=key_sha256(KEYS[number]), enrolled=datetime.now(UTC), contact=f"desk {number}"
    )


@pytest.fixture
def register(tmp_path: Path) -> SiteRegister:
    return SiteRegister(init_coordinator(tmp_path / "coordinator"))


def test_a_site_keeps_its_name_over_new_keys(register: SiteRegister, tmp_path: Path) -> None:
    assert register.sites() == ()
    register.note("north", enrolled(0))
    register.note("north", enrolled(1))
    register.note("north", enrolled(1))
    assert register.sites() == ("north",)
    assert register.keys("north") == (KEYS[1], KEYS[0])
    found = register.find(key_sha256(KEYS[0]))
    assert found is not None
    assert found.contact == "desk 0"
    assert register.find("0" * 64) is None
    assert register.history("south").keys == ()
    folder = tmp_path / "coordinator" / "sites"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "north.json").stat().st_mode) == 0o600


def test_a_damaged_history_is_named(register: SiteRegister, tmp_path: Path) -> None:
    register.note("north", enrolled(0))
    (tmp_path / "coordinator" / "sites" / "north.json").write_text("{")
    with pytest.raises(TrustError, match=r"north\.json"):
        register.history("north")
