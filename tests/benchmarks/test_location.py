import json

from benchmarks import location


def test_the_result_names_the_software_and_whose_tumour_it_was(tmp_path, monkeypatch) -> None:
    row = {"found": True, "centre_error_mm": 2.0, "left_error": 0.01, "lobe_right": True, "voxels_right": 0.9}
    monkeypatch.setattr(location, "judge", lambda *_: [row | {"sequence": str(modality)} for modality in location.SEQUENCES])
    location.main(["--cases", "3", "--out", str(tmp_path / "result.json")])
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["software"]
    assert result["tumour"] == "true mask"
    assert [found["main_lobe_right"] for found in result["summary"]] == [3] * 4
