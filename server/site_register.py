"""What the coordinator keeps of the hospitals beside Flower's list of keys: whose key it is, since when, whom to call.

    sites/<name>.json     every key the site was enrolled with, the newest last (gmmas_schema.enrolment.SiteHistory)

A site that gets a new key keeps its name, so everything that is told by name (events, ledger, metrics) goes on.
"""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from gmmas_runtime.enrolment_file import parse_public_key
from gmmas_runtime.files import make_private_folder, write_atomic
from gmmas_schema.enrolment import EnrolledKey, SiteHistory
from gmmas_schema.errors import TrustError
from server.folder import CoordinatorFolder


class SiteRegister:
    """The hospitals of one coordinator."""

    def __init__(self, folder: CoordinatorFolder) -> None:
        self._folder = folder.path / "sites"

    def note(self, site: str, key: EnrolledKey) -> None:
        """Add the key of an enrolment to its site's history; one that is there is not doubled."""
        known = self.history(site)
        if all(other.key_sha256 != key.key_sha256 for other in known.keys):
            make_private_folder(self._folder)
            write_atomic(self._path(site), SiteHistory(site=site, keys=(*known.keys, key)).model_dump_json(indent=1).encode())

    def history(self, site: str) -> SiteHistory:
        """Return a site's history, an empty one where nothing is known.

        Raises:
            TrustError: the file is damaged.
        """
        path = self._path(site)
        try:
            return SiteHistory.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return SiteHistory(site=site)
        except ValidationError as error:
            raise TrustError(
                "what is known of a hospital cannot be read",
                where=path,
                got=f"{error.error_count()} faults",
                expected="the file as `gmmas server enrol` wrote it",
                remedy="restore it from a backup, or remove it: the enrolled keys themselves are in Flower's database",
            ) from error

    def sites(self) -> tuple[str, ...]:
        """Return the names of all sites that are known."""
        return tuple(sorted(path.stem for path in self._folder.glob("*.json")))

    def keys(self, site: str) -> tuple[ec.EllipticCurvePublicKey, ...]:
        """Return every key a site was enrolled with, the newest first."""
        return tuple(parse_public_key(key.public_key) for key in reversed(self.history(site).keys))

    def find(self, key_sha256: str) -> EnrolledKey | None:
        """Return what is known of a key."""
        every = (key for site in self.sites() for key in self.history(site).keys)
        return next((key for key in every if key.key_sha256 == key_sha256), None)

    def _path(self, site: str) -> Path:
        return self._folder / f"{Path(site).name}.json"
