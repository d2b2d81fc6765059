"""What backbones are called: the reference's names, ours, and timm's; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

VIT_NANO = "vit_nano"
VIT_NANO_TAG = "glyphs_v1"
REFERENCE_BACKBONE = "vit_base_patch16_224_in21k"
LOCAL_TAG = "local"  # the tag of weights from a file, for a model that was named without one

# methods.md 18.4. The bare `vit_base_patch16_224` means other weights in timm >= 0.8 than in the reference's timm 0.6.12.
REFERENCE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "vit_base_patch16_224_in21k": "vit_base_patch16_224.augreg_in21k",
        "vit_base_patch16_224": "vit_base_patch16_224.augreg_in21k_ft_in1k",
        VIT_NANO: f"{VIT_NANO}.{VIT_NANO_TAG}",
    }
)


def resolve_name(name: str) -> tuple[str, str]:
    """(architecture, tag) of a name as timm writes it (`arch.tag`), or as the reference does; the tag may be empty."""
    arch, _, tag = REFERENCE_NAMES.get(name, name).partition(".")
    return arch, tag
