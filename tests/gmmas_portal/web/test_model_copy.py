"""The copy of the model in use."""

from gmmas_portal.web.model_copy import adopt_model, read_papers
from tests.gmmas_portal.web.conftest import PortalUnderTest


def test_a_copy_that_was_interrupted_does_not_stand_in_the_way(site: PortalUnderTest) -> None:
    """Ctrl-C during the first start leaves a half-written folder."""
    folder = site.folder
    copy = folder.model
    copy.rename(copy.with_name(f".unfinished-{copy.name}"))
    assert adopt_model(folder) == read_papers(folder).sha256
    assert [path.name for path in folder.models.iterdir() if path.is_dir()] == [copy.name]
