"""A platform with an account of each role, one analysed case of one patient, and no processes."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from argon2 import PasswordHasher
from fastapi import FastAPI

from gmmas_model.weights import Weights, save_weights
from gmmas_portal.analysis.files import MONTAGE_FILE, SEGMENTATION_FILE, UNCERTAINTY_FILE
from gmmas_portal.web.accounts import Role
from gmmas_portal.web.app import make_app
from gmmas_portal.web.desk import Desk
from gmmas_portal.web.model_copy import adopt_model
from gmmas_portal.web.settings import PortalConfig, PortalFolder
from gmmas_schema.case_record import CaseRecord
from gmmas_schema.vocabulary import Modality
from tests.gmmas_portal.sample_case import make_record
from tests.server.dashboard.conftest import Browser

HASHER: Final = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD: Final = "a horse in the rain"
PATIENT: Final = "P-0001"
NAMES: Final = {Role.CLINICIAN: "dr.one", Role.ADMIN: "admin", Role.PATIENT: "patient-one"}
PORT: Final = 9094
COOKIE: Final = f"gmmas_portal_{PORT}"
ADDRESS: Final = f"http://127.0.0.1:{PORT}"
CASE: Final = Path(__file__).parents[2] / "data" / "BraTS2021_00006"


@dataclass
class PortalUnderTest:
    """A platform without a server: requests reach the application directly."""

    folder: PortalFolder
    app: FastAPI
    portal: BlockingPortal
    key: str

    @property
    def desk(self) -> Desk:
        desk: Desk = self.app.state.desk
        return desk

    def client(self, role: Role | None = None, *, name: str = "") -> Browser:
        """Return a browser with a session; without a role, a stranger."""
        client = Browser(self.app, self.portal, base_url=ADDRESS)
        if role is not None:
            client.cookies.set(COOKIE, self.desk.accounts.open_session(self.desk.accounts.account(name or NAMES[role])))
        return client

    def csrf(self, client: Browser) -> str:
        """Return the secret of this browser's forms."""
        session = self.desk.accounts.session(client.cookies[COOKIE], longest_s=1e6, idle_s=1e6)
        assert session is not None
        return session.csrf

    def post(self, client: Browser, path: str, **fields: str) -> Any:
        """Send a form with its secret."""
        return client.post(path, data={"csrf": self.csrf(client), **fields})


def add_case(desk: Desk, *, patient: str = PATIENT, record: CaseRecord | None = None, scanned_on: str = "2026-03-01") -> str:
    """Add a case with one version, as the worker leaves it; maps are copies of one small file."""
    key = desk.cases.add(created_by=NAMES[Role.CLINICIAN], scanned_on=scanned_on)
    images = desk.folder.cases / key / "images"
    images.mkdir(parents=True)
    for modality in (Modality.T1, Modality.T1CE, Modality.FLAIR):
        shutil.copyfile(CASE / f"BraTS2021_00006_{modality}.nii.gz", images / f"{modality}.nii.gz")
    relative = {m: str((images / f"{m}.nii.gz").relative_to(desk.folder.path)) for m in (Modality.T1, Modality.T1CE, Modality.FLAIR)}
    desk.cases.place(key, name=desk.cases.next_name(patient), patient=patient, images=relative)
    version = desk.folder.version(key, 1)
    version.mkdir(parents=True)
    for name in (SEGMENTATION_FILE, UNCERTAINTY_FILE):
        shutil.copyfile(CASE / "BraTS2021_00006_seg.nii.gz", version / name)
    (version / MONTAGE_FILE).write_bytes(PNG)
    desk.cases.add_version(key, record or make_record(), author="model", reason="first analysis")
    return key


@pytest.fixture(scope="session")
def model_source(portal_weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of random weights."""
    folder: Path = tmp_path_factory.mktemp("weights")
    save_weights(folder, portal_weights.tensors, portal_weights.definition)
    return folder


@pytest.fixture
def site(tmp_path: Path, model_source: Path) -> Iterator[PortalUnderTest]:
    folder = PortalFolder.make(tmp_path / "portal", PortalConfig(model=str(model_source), institution="St. Test", port=PORT))
    adopt_model(folder)
    app = make_app(folder, hasher=HASHER)
    desk: Desk = app.state.desk
    for role, name in NAMES.items():
        desk.accounts.add(name, role, patient=PATIENT if role is Role.PATIENT else "")
    key = add_case(desk)
    with start_blocking_portal() as portal:
        yield PortalUnderTest(folder, app, portal, key)


PNG: Final = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63606060000000040001f61738550000000049454e44ae426082"
)
"""One black pixel."""
