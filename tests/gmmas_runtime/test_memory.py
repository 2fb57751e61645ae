import psutil

from gmmas_runtime.memory import peak_memory_mib


def test_the_peak_is_in_mib_and_never_falls() -> None:
    before = peak_memory_mib()
    block = bytearray(64 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    resident_mib = psutil.Process().memory_info().rss / 2**20
    del block
    assert peak_memory_mib() >= max(before, 0.95 * resident_mib)
    assert peak_memory_mib() < 100 * resident_mib
