"""Which arithmetic the backbone computes in."""

from __future__ import annotations

from pathlib import Path

import torch

from tosca_cache.errors import UsageError
from tosca_cache.extract.names import VIT_NANO, resolve_name

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CHOICES = ("auto", *DTYPES)
_CPU_FLAGS = frozenset(("avx512_bf16", "amx_bf16", "bf16"))  # x86, x86 with AMX, Arm
_CPUINFO = Path("/proc/cpuinfo")


def resolve_precision(precision: str, device: torch.device, backbone: str) -> str:
    """`fp32`, `bf16` or `fp16`; `auto` is bf16 where the hardware multiplies in it, otherwise fp32.

    For `vit_nano` `auto` is fp32 everywhere: it is tiny, and the examples under it give the same numbers on every machine.
    """
    if precision not in CHOICES:
        raise UsageError(
            f"there is no precision {precision!r}", where="--precision", remedy=f"use one of {', '.join(CHOICES)}"
        )
    if precision != "auto":
        return precision
    if resolve_name(backbone)[0] == VIT_NANO:
        return "fp32"
    return "bf16" if has_bf16(device) else "fp32"


def has_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16 products (not whether torch can emulate them)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and not _CPU_FLAGS.isdisjoint(_cpu_flags())


def _cpu_flags() -> set[str]:
    """The features of the first core as Linux lists them; none elsewhere."""
    if not _CPUINFO.exists():
        return set()
    for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            return set(value.split())
    return set()
