import json

from benchmarks.wire import main


def test_int8_takes_26_percent_of_fp32_and_top_k_an_eighth(tmp_path) -> None:
    out = tmp_path / "wire.json"
    main(["--networks", "small", "--out", str(out)])
    found = json.loads(out.read_text())["small"]
    assert found["fp32"]["bytes_up"] > 4 * found["fp32"]["parameters"]
    assert found["fp16 down"]["down_share"] < 0.51
    assert 0.25 < found["int8 up"]["up_share"] <= 0.26
    assert found["int8 up, top 30 %"]["up_share"] <= 1 / 8
    assert found["int8 up"]["bytes_of_an_evaluation_of_a_model_that_is_held"] < 2000
