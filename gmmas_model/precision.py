"""bf16 where the device multiplies it natively, fp32 elsewhere: emulated bf16 is slower than fp32.

On CUDA devices fp32 is what torch makes of it: by default their convolutions round what they multiply to TF32 where there is such hardware.
"""

import functools
import re
from pathlib import Path
from typing import Literal

import torch

_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "avx10_1", "bf16"})
"""Names in /proc/cpuinfo: AVX512-BF16, AMX and AVX10 on x86, BF16 on Arm."""


def native_bf16(device: torch.device | str) -> bool:
    """Return whether the device has bf16 multiply-accumulate instructions."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return kind == "cpu" and bool(_CPU_FLAGS & _cpu_flags())


def autocast(device: torch.device | str, precision: Literal["auto", "bf16", "fp32"]) -> torch.autocast:
    """Return a context in which convolutions and matrix products run in bf16 (`bf16`, or `auto` where it is native) or in fp32."""
    enabled = precision == "bf16" or (precision == "auto" and native_bf16(device))
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=enabled)


@functools.cache
def _cpu_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the first core's instruction sets; empty where the system does not list them."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(match.group(1).split()) if match else frozenset()
