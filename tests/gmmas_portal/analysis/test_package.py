import subprocess
import sys

import pytest

import gmmas_portal.analysis


def test_every_exported_name_is_there_and_no_other() -> None:
    assert all(getattr(gmmas_portal.analysis, name) is not None for name in gmmas_portal.analysis.__all__)
    assert sorted(name for names in gmmas_portal.analysis._MODULES.values() for name in names) == sorted(gmmas_portal.analysis.__all__)
    with pytest.raises(AttributeError, match="predict"):
        _ = gmmas_portal.analysis.predict


def test_reading_an_analysis_loads_no_torch() -> None:
    code = (
        "import sys; from gmmas_portal.analysis import CaseContext, read_record;"
        " from gmmas_portal.exports import record_json; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
