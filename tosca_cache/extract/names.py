"""What backbones and precisions are called: the reference's names, ours, and timm's; imports no torch by itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from tosca_cache.errors import UsageError

if TYPE_CHECKING:
    import torch

VIT_NANO = "vit_nano"
REFERENCE_BACKBONE = "vit_base_patch16_224_in21k"
LOCAL_TAG = "local"  # the tag of weights from a file, for a model that was named without one

# methods.md 18.4. The bare `vit_base_patch16_224` means other weights in timm >= 0.8 than in the reference's timm 0.6.12.
REFERENCE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "vit_base_patch16_224_in21k": "vit_base_patch16_224.augreg_in21k",
        "vit_base_patch16_224": "vit_base_patch16_224.augreg_in21k_ft_in1k",
        VIT_NANO: f"{VIT_NANO}.glyphs_v1",
    }
)
PRECISIONS: Mapping[str, str] = MappingProxyType({"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"})
_CPU_FLAGS = frozenset(("avx512_bf16", "amx_bf16", "bf16"))  # x86, x86 with AMX, Arm
_CPUINFO = Path("/proc/cpuinfo")


def resolve_name(name: str) -> tuple[str, str]:
    """(architecture, tag) of a name as timm writes it (`arch.tag`), or as the reference does; the tag may be empty."""
    arch, _, tag = REFERENCE_NAMES.get(name, name).partition(".")
    return arch, tag


def resolve_precision(precision: str, device: torch.device, backbone: str) -> str:
    """`fp32`, `bf16` or `fp16`; `auto` is bf16 where the hardware multiplies in it, otherwise fp32.

    For `vit_nano` `auto` is fp32 everywhere: it is tiny, and the examples under it give the same numbers on every machine.
    """
    if precision not in ("auto", *PRECISIONS):
        raise UsageError(
            f"there is no precision {precision!r}",
            where="--precision",
            remedy=f"use one of auto, {', '.join(PRECISIONS)}",
        )
    if precision != "auto":
        return precision
    return "bf16" if resolve_name(backbone)[0] != VIT_NANO and _has_bf16(device) else "fp32"


def _has_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16 products (not whether torch can emulate them)."""
    if device.type == "cuda":
        import torch

        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not _CPUINFO.exists():
        return False
    for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            return not _CPU_FLAGS.isdisjoint(value.split())
    return False
