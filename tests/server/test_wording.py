from server.wording import format_bytes, format_clock, format_metrics, format_seconds


def test_formats() -> None:
    assert [format_seconds(s) for s in (0.4, 59.6, 185, 7805)] == ["0 s", "1 min 00 s", "3 min 05 s", "2 h 10 min"]
    assert [format_clock(s) for s in (5, 185, 7805)] == ["0:05", "3:05", "2:10:05"]
    assert [format_bytes(b) for b in (999, 1500, 12_345_678, 2e9)] == ["999 B", "1.5 kB", "12.3 MB", "2 GB"]
    assert format_metrics({"dice_et": 0.25, "auc_codeletion": 1.0, "loss_idh": 3.0}) == "Dice ET 0.250  AUC 1p/19q 1.000"
