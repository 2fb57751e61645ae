"""Whose keys a site trusts, and what it keeps of that."""

import pytest

from client.secure_records import PEERS_FILE, KnownPeers, SecureRecords
from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.secure import PhaseRequest
from strategies.secure_letters import write_phase
from tests.client.secure_rounds import (
    Round,
    ask,
    make_sites,
    openssh,
)
from tests.strategies.secure.attempts import IDENTITIES


@pytest.mark.parametrize("text", ["", "ssh-ed25519 AAAA", "ecdsa-sha2-nistp384 AAAA"])
def test_what_is_no_key_is_refused(tmp_path, text):
    led = Round(make_sites(tmp_path))
    led.identities["birch"] = text
    with pytest.raises(ProtocolError) as caught:
        ask(led.sites["ash"], 1, led.roster, identities=led.identities)
    assert caught.value.code is ReasonCode.TRUST


def write_peers(folder, **keys):
    folder.mkdir()
    for site, key in keys.items():
        (folder / f"{site}.pub").write_text(key + "\n")
    return folder


def test_only_peers_that_the_hospitals_exchanged_are_trusted(tmp_path):
    peers = write_peers(tmp_path / "peers", birch=openssh("birch"), cedar=openssh("cedar"))
    Round(make_sites(tmp_path, ash=peers)).share()
    assert not (tmp_path / "ash" / PEERS_FILE).exists()


@pytest.mark.parametrize(
    ("known", "match"), [({}, "not among this site's peers"), ({"cedar": "dogwood"}, "another key than in node.peers")]
)
def test_a_site_that_the_coordinator_slipped_in_is_refused(tmp_path, known, match):
    peers = write_peers(tmp_path / "peers", birch=openssh("birch"), **{site: openssh(key) for site, key in known.items()})
    led = Round(make_sites(tmp_path, ash=peers))
    with pytest.raises(ProtocolError, match=match):
        ask(led.sites["ash"], 1, led.roster, identities=led.identities)


PATHS = ("x/birch", "../peers/birch", "./birch", "birch/", "/birch", "Birch", "birch.", "", "b" * 32)


@pytest.mark.parametrize("name", PATHS)
def test_a_name_that_is_a_path_is_no_second_name_of_a_peer(tmp_path, name):
    """ash is shown three sites, two of which are birch, which helps the coordinator: ash would be alone with it in every sum."""
    folder = write_peers(tmp_path / "peers", birch=openssh("birch"))
    shown = {"ash": openssh("ash"), "birch": openssh("birch"), name: openssh("birch")}
    for peers in (folder, None):
        with pytest.raises(ProtocolError) as caught:
            KnownPeers(SecureRecords(None), peers).trust(shown, own="ash", own_key=IDENTITIES["ash"])
        assert caught.value.code is ReasonCode.TRUST
    led = Round(make_sites(tmp_path, ash=folder))
    request = PhaseRequest.model_construct(run="run", round=1, attempt=led.attempt, phase=1, identities=shown)
    with pytest.raises(ProtocolError, match="cannot be read"):
        led.sites["ash"].answer(write_phase(request, led.roster))


@pytest.mark.parametrize("known", [True, False])
def test_one_key_under_two_names_is_one_peer(tmp_path, known):
    folder = write_peers(tmp_path / "peers", birch=openssh("birch"), pine=openssh("birch")) if known else None
    peers = KnownPeers(SecureRecords(tmp_path), folder)
    shown = {"ash": openssh("ash"), "birch": openssh("birch"), "pine": openssh("birch")}
    with pytest.raises(ProtocolError, match="one key under two names, birch and pine"):
        peers.trust(shown, own="ash", own_key=IDENTITIES["ash"])
    with pytest.raises(ProtocolError, match=r"one key under two names, ash and pine|another key than in node\.peers"):
        peers.trust(shown | {"pine": openssh("ash")}, own="ash", own_key=IDENTITIES["ash"])
    assert not (tmp_path / PEERS_FILE).exists()


def test_what_came_with_a_key_that_was_refused_has_not_been_seen(tmp_path):
    """A stranger's key, shown for a hospital that is new here together with a false one for a hospital that is known."""
    peers = KnownPeers(SecureRecords(tmp_path), None)
    own = {"own": "ash", "own_key": IDENTITIES["ash"]}
    peers.trust({"ash": openssh("ash"), "birch": openssh("birch")}, **own)
    with pytest.raises(ProtocolError, match="seen first"):
        peers.trust({"ash": openssh("ash"), "cedar": openssh("elm"), "birch": openssh("elm")}, **own)
    again = KnownPeers(SecureRecords(tmp_path), None)
    shown = {site: openssh(site) for site in ("ash", "birch", "cedar")}
    for known in (peers, again):
        assert known.trust(shown, **own) == {site: IDENTITIES[site] for site in shown}
