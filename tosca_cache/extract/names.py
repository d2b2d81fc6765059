"""What backbones, precisions and options are called, and what options may be; imports no torch by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tosca_cache.config.checks import Kind, accept, one_of

if TYPE_CHECKING:
    import torch

VIT_NANO = "vit_nano"
REFERENCE_BACKBONE = "vit_base_patch16_224_in21k"
HUB = "hf-hub:"  # how the name of somebody's repository begins: hf-hub:OWNER/NAME[@REVISION]
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


def option(default: object, kind: Kind) -> Any:
    """A dataclass field that stands for an option; kind: what it may be, besides None if that is the default."""
    return field(default=default, metadata={"kind": kind})


def check_options(asked: Any) -> None:
    """Raises `ConfigError` for a field of a dataclass that is not of its kind, in the name of the option."""
    for item in fields(asked):
        value, kind = getattr(asked, item.name), item.metadata.get("kind")
        if kind is not None and not (value is None and item.default is None):
            flag = f"--{item.name.replace('_', '-').replace('normalise', 'normalize')}"
            accept(kind, flag, value, flag)


def resolve_name(name: str) -> tuple[str, str]:
    """(architecture, tag) of a name as timm writes it (`arch.tag`), or as the reference does; the tag may be empty.

    A repository says its architecture itself: until then its whole name stands for it.
    """
    if name.startswith(HUB):
        return name, ""
    arch, _, tag = REFERENCE_NAMES.get(name, name).partition(".")
    return arch, tag


def resolve_precision(precision: str, device: torch.device, backbone: str) -> str:
    """`fp32`, `bf16` or `fp16`; `auto` is bf16 where the hardware multiplies in it, otherwise fp32.

    For `vit_nano` `auto` is fp32 everywhere: it is tiny, and the examples under it give the same numbers on every machine.
    """
    accept(one_of(("auto", *PRECISIONS)), "--precision", precision, "--precision")
    if precision != "auto":
        return precision
    return "bf16" if resolve_name(backbone)[0] != VIT_NANO and _has_bf16(device) else "fp32"


def _has_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16 products (not whether torch can emulate them)."""
    if device.type == "cuda":
        import torch

        return torch.cuda.is_bf16_supported(including_emulation=False)
    here = device.type == "cpu" and _CPUINFO.exists()
    return here and not _CPU_FLAGS.isdisjoint(_CPUINFO.read_text(encoding="utf-8", errors="replace").split())
