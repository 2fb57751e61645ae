"""What a site keeps on disk of secure rounds, rights 0600 and no secret: what it has masked and helped to open, and its peers' keys.

The ledger itself is strategies.secure.ledger. Peers' keys are those that the hospitals exchanged, where there is a folder of them, or else
those that the coordinator showed first.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field, ValidationError

from gmmas_runtime.files import make_private_folder, write_atomic
from gmmas_runtime.keys import load_public_key
from gmmas_schema.base import FrozenModel
from gmmas_schema.coordinator import SITE_NAME
from gmmas_schema.errors import ConfigError, ReasonCode, TrustError
from strategies.secure.keys import check_distinct, untrusted

DocumentT = TypeVar("DocumentT", bound=FrozenModel)

LEDGER_FILE: Final = "opened-sums.json"
PEERS_FILE: Final = "peers.json"


class SeenPeers(FrozenModel):
    """Public keys (OpenSSH) of the peers as they were first shown."""

    keys: dict[str, str] = Field(default_factory=dict)


class SecureRecords:
    """Documents in a folder.

    Args:
        folder: None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def read(self, name: str, kind: type[DocumentT]) -> DocumentT:
        """Return a document; an empty one where there is none.

        Raises:
            ConfigError: it is damaged (code TRUST): without it a site would not know what it must not do.
        """
        path = self._folder / name if self._folder is not None else None
        if path is None or not path.exists():
            return kind()
        try:
            return kind.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ConfigError(
                "what this site knows of secure rounds cannot be read",
                where=path,
                got=f"{error.error_count()} faults",
                expected=f"a {kind.__name__}",
                remedy="restore the file from a backup; without it, remove it only if no run goes on",
                code=ReasonCode.TRUST,
            ) from error

    def write(self, name: str, document: FrozenModel) -> None:
        """Keep a document."""
        if self._folder is not None:
            write_atomic(make_private_folder(self._folder) / name, document.model_dump_json().encode())


class KnownPeers:
    """Whose keys a site trusts.

    Args:
        records: keep the keys that were seen first.
        folder: of the keys that the hospitals exchanged, `<site>.pub` each; None trusts what was seen first.
    """

    def __init__(self, records: SecureRecords, folder: Path | None) -> None:
        self._records, self._folder = records, folder
        self._seen = dict(records.read(PEERS_FILE, SeenPeers).keys)

    def trust(self, shown: Mapping[str, str], *, own: str, own_key: ec.EllipticCurvePublicKey) -> dict[str, ec.EllipticCurvePublicKey]:
        """Return the keys that this site trusts of those the coordinator shows: all of them, or the round is refused.

        Args:
            shown: OpenSSH keys by site.
            own: this site's name.
            own_key: its key.

        Raises:
            ProtocolError: a key is another than the one this site knows, stands under two names, or no key of that name is known (code
                TRUST).
        """
        keys = {site: _parse(site, text) for site, text in shown.items()}
        if keys.get(own) != own_key:
            raise untrusted(f"key of {own}", "another key under this site's own name, or none", "the key of this node")
        for site, key in keys.items():
            if site != own:
                self._check(site, key, shown[site])
        check_distinct(keys, where="keys of the peers")
        if self._folder is None:
            # Only now: what came with a key that was refused has not been seen.
            self._seen |= {site: text for site, text in shown.items() if site != own}
            self._records.write(PEERS_FILE, SeenPeers(keys=self._seen))
        return keys

    def _check(self, site: str, key: ec.EllipticCurvePublicKey, text: str) -> None:
        if self._folder is None:
            if self._seen.get(site, text) != text:
                raise untrusted(f"key of {site}", "another key than the one seen first", f"the key in {PEERS_FILE}")
            return
        try:
            known = load_public_key(self._folder / f"{site}.pub")
        except TrustError as error:
            raise untrusted(
                f"key of {site}", "a site that is not among this site's peers", "a .pub file of its name in node.peers"
            ) from error
        if known != key:
            raise untrusted(f"key of {site}", "another key than in node.peers", "the key its hospital gave")


def _parse(site: str, text: str) -> ec.EllipticCurvePublicKey:
    if not re.fullmatch(SITE_NAME, site):
        raise untrusted("keys of the peers", f"the name {site!r:.60}", "the name of a site, which is no path")
    try:
        key = serialization.load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise untrusted(f"key of {site}", "no public key", "a P-384 key in OpenSSH form") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise untrusted(f"key of {site}", "a key of another kind", "a P-384 key in OpenSSH form")
    return key
