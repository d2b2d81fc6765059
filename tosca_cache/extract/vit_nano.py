"""`vit_nano`: the small vision transformer that ships with this package, for 32-pixel images.

timm's VisionTransformer with 6 blocks of width 192 on 8-pixel patches; the feature is the class token after the final
norm. Pretrained by tools/pretrain_vit_nano.py on rendered letters (its header says on what, how, and how good it is).
"""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable

import torch
from safetensors.torch import load

from tosca_cache.torchvision_compat import ensure_torchvision

NAME = "vit_nano"
TAG = "vit_nano.glyphs_v1"
DIM = 192
IMAGE_SIZE = 32
MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)
CROP_PCT = 1.0

_WEIGHTS_FILE = "vit_nano.safetensors"


def create_vit_nano(pretrained: bool = True, img_size: int = IMAGE_SIZE) -> torch.nn.Module:
    """The backbone in evaluation mode, float32: [n, 3, S, S] -> features [n, 192].

    Arguments:
        pretrained: load the weights of this package; otherwise random ones from torch's global generator.
        img_size: a multiple of 8; the position embedding is resampled when it is not 32.
    """
    ensure_torchvision()
    from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

    model = VisionTransformer(
        img_size=img_size, patch_size=8, embed_dim=DIM, depth=6, num_heads=3, num_classes=0, global_pool="token"
    )
    if pretrained:
        model.load_state_dict(checkpoint_filter_fn(load_weights(), model))
    return model.eval()


def load_weights() -> dict[str, torch.Tensor]:
    """The shipped state dict, cast from float16 to float32."""
    return {name: tensor.float() for name, tensor in load(weights_path().read_bytes()).items()}


def weights_path() -> Traversable:
    """The weights file inside the package."""
    return resources.files("tosca_cache.extract").joinpath("weights", _WEIGHTS_FILE)
