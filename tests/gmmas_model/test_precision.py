from pathlib import Path

import pytest
import torch

from gmmas_model import precision
from gmmas_model.precision import autocast, native_bf16


def matmul_dtype(choice: str) -> torch.dtype:
    with autocast("cpu", choice):  # type: ignore[arg-type]
        return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


def test_auto_is_bf16_only_where_it_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_cpu_flags", lambda: frozenset({"avx512f", "avx512_bf16"}))
    assert native_bf16("cpu")
    assert matmul_dtype("auto") == torch.bfloat16
    monkeypatch.setattr(precision, "_cpu_flags", lambda: frozenset({"avx512f"}))
    assert not native_bf16("cpu")
    assert matmul_dtype("auto") == torch.float32


def test_a_choice_overrides_the_machine() -> None:
    assert matmul_dtype("bf16") == torch.bfloat16
    assert matmul_dtype("fp32") == torch.float32


@pytest.mark.parametrize(
    ("text", "flag"), [("processor\t: 0\nflags\t\t: fpu amx_bf16 avx2\n", "amx_bf16"), ("Features\t: fp asimd bf16\n", "bf16")]
)
def test_flags_are_read_from_cpuinfo(tmp_path: Path, text: str, flag: str) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert flag in precision._cpu_flags(path)


def test_no_cpuinfo_means_no_flags(tmp_path: Path) -> None:
    assert precision._cpu_flags(tmp_path / "missing") == frozenset()
    (tmp_path / "empty").write_text("")
    assert precision._cpu_flags(tmp_path / "empty") == frozenset()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_answers_by_its_capability() -> None:
    assert native_bf16("cuda") == (torch.cuda.get_device_capability()[0] >= 8)
