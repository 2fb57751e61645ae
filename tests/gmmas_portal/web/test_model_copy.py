"""The copy of the model in use."""

import shutil
from pathlib import Path

import pytest

from gmmas_portal.web.deployment import prepare_portal
from gmmas_portal.web.model_copy import adopt_model, read_papers
from gmmas_portal.web.settings import PortalFolder
from gmmas_portal.web.tasks import Workshop
from gmmas_runtime.keys import AUTHORITY_CERTIFICATE, SIGNING_CERTIFICATE, SIGNING_KEY, issue_signing_certificate, make_authority
from gmmas_runtime.manifest import Signer, Standing, write_manifest
from gmmas_schema.errors import GmmasError, TrustError
from tests.gmmas_portal.web.conftest import PortalUnderTest


def test_a_copy_that_was_interrupted_does_not_stand_in_the_way(site: PortalUnderTest) -> None:
    """Ctrl-C during the first start leaves a half-written folder."""
    folder = site.folder
    copy = folder.model
    copy.rename(copy.with_name(f".unfinished-{copy.name}"))
    assert adopt_model(folder) == read_papers(folder).sha256
    assert [path.name for path in folder.models.iterdir() if path.is_dir()] == [copy.name]


def test_an_authority_that_is_named_later_holds_for_the_model_in_use(site: PortalUnderTest, tmp_path: Path) -> None:
    with pytest.raises(TrustError):
        prepare_portal(site.folder.path, authority=str(tmp_path / "authority.pem"))
    assert PortalFolder.open(site.folder.path).config == site.folder.config


@pytest.mark.parametrize("named", [True, False])
def test_a_record_tells_a_signature_only_of_the_authority_that_was_named(site: PortalUnderTest, tmp_path: Path, named: bool) -> None:
    make_authority(tmp_path / "authority", name="test")
    issue_signing_certificate(tmp_path / "authority", tmp_path / "signing", name="test models")
    model = shutil.copytree(site.folder.model, tmp_path / "model")
    signer = Signer.load(tmp_path / "signing" / SIGNING_CERTIFICATE, tmp_path / "signing" / SIGNING_KEY)
    write_manifest(model, model_digest="d" * 64, signer=signer)
    authority = tmp_path / "authority" / AUTHORITY_CERTIFICATE
    folder = prepare_portal(site.folder.path, model=str(model), authority=str(authority) if named else None)
    authority.unlink()  # what was named may go: the platform keeps its own copy
    workshop = Workshop(folder, site.desk.cases, site.desk.audit)
    assert workshop.model.describe().signed is named
    assert read_papers(folder).origin.standing is (Standing.VOUCHED if named else Standing.SIGNED)


def test_a_model_that_is_refused_leaves_the_configuration_as_it_was(site: PortalUnderTest, tmp_path: Path) -> None:
    with pytest.raises(GmmasError):
        prepare_portal(site.folder.path, model=str(tmp_path / "nowhere"))
    assert PortalFolder.open(site.folder.path).config == site.folder.config
    assert prepare_portal(site.folder.path, institution="St. Other").config.institution == "St. Other"
    assert PortalFolder.open(site.folder.path).config.institution == "St. Other"
