"""`vit_nano`: the small vision transformer that ships with this package, for 32-pixel images, as a model of timm.

timm's VisionTransformer with 6 blocks of width 192 on 8-pixel patches; the feature is the class token after the final
norm. Pretrained by tools/pretrain_vit_nano.py on rendered letters (its header says on what, how, and how good it is).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tosca_cache.torchvision_compat import ensure_torchvision

ensure_torchvision()

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model  # noqa: E402
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn  # noqa: E402

DIM = 192
IMAGE_SIZE = 32
MEAN = STD = (0.5, 0.5, 0.5)
WEIGHTS = Path(__file__).with_name("weights") / "vit_nano.safetensors"  # in float16

default_cfgs = generate_default_cfgs(
    {
        "vit_nano.glyphs_v1": {
            "file": str(WEIGHTS),
            "input_size": (3, IMAGE_SIZE, IMAGE_SIZE),
            "num_classes": 0,
            "mean": MEAN,
            "std": STD,
            "crop_pct": 1.0,
            "classifier": "head",
        }
    }
)


def _in_float32(state: dict[str, torch.Tensor], model: VisionTransformer) -> Any:
    """The position embedding is resampled after the cast."""
    return checkpoint_filter_fn({name: tensor.float() for name, tensor in state.items()}, model)


@register_model
def vit_nano(pretrained: bool = False, **given: Any) -> Any:
    """The model as `timm.create_model` makes it."""
    size = {"img_size": IMAGE_SIZE, "patch_size": 8, "embed_dim": DIM, "depth": 6, "num_heads": 3}
    return build_model_with_cfg(
        VisionTransformer, "vit_nano", pretrained, pretrained_filter_fn=_in_float32, **(size | given)
    )


def create_vit_nano(pretrained: bool = True, img_size: int = IMAGE_SIZE) -> torch.nn.Module:
    """The backbone in evaluation mode, float32: [n, 3, S, S] -> features [n, 192]; img_size: a multiple of 8."""
    model: torch.nn.Module = vit_nano(pretrained, img_size=img_size, num_classes=0)
    return model.eval()
