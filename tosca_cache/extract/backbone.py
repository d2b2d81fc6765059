"""A frozen backbone: which model, which weights, and its forward pass on bytes of pixels."""

from __future__ import annotations

import copy
import difflib
import hashlib
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tosca_cache.datasets.transforms import TransformSpec
from tosca_cache.errors import BackboneError, UsageError
from tosca_cache.extract import tuning
from tosca_cache.extract.adapted import AGAIN, PARTS, Adaptation, is_adapted, read_card, read_parts
from tosca_cache.extract.names import HUB, LOCAL_TAG, PRECISIONS, VIT_NANO, resolve_name, resolve_precision
from tosca_cache.extract.pieces import Kept, KeptFeatures
from tosca_cache.extract.weights import SUFFIXES, backbone_errors, load_weights_file, weights_within_reach
from tosca_cache.text import shortened
from tosca_cache.torchvision_compat import ensure_torchvision

__all__ = ["Backbone", "load_backbone"]

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Backbone:
    """A frozen model without head, and what it says it is.

    model: in evaluation mode, float32, on `device`: [n, 3, S, S] -> features [n, d] after the final norm ([CLS] for
        token pooling, the pooled feature otherwise).
    name, tag: architecture and weights (timm's `arch.tag`).
    weights_digest: SHA-256 of the weights in the model; see `digest`.
    dim, image_size: d, of all pieces together, and S.
    mean, std: what the weights were trained with.
    whole_image: the clean view is the whole image, not the reference's crop of 224 out of 256.
    device, precision: where and in which arithmetic `forward` computes.
    adapted: the modules inside it that were trained on a first task; None if it is frozen as published. Its digest is then
        that of the weights with the modules, and its tag names them.
    kept: what `forward` gives of a view; `model` gives its own feature all the same. widths: of the pieces.
    """

    model: nn.Module
    name: str
    tag: str
    weights_digest: str
    dim: int
    image_size: int
    mean: Triple
    std: Triple
    whole_image: bool
    device: torch.device
    precision: str
    adapted: Adaptation | None = field(default=None, kw_only=True)
    kept: Kept = field(default=Kept(), kw_only=True)
    widths: tuple[int, ...] = field(default=(), kw_only=True)

    def keeping(self, kept: Kept) -> Backbone:
        """The same, of which `forward` gives other pieces; raises `UsageError` for those that it has not."""
        if kept.plain:
            return self
        widths = kept.widths(self.model, self.image_size)
        return replace(self, kept=kept, widths=widths, dim=sum(widths))

    def transform(self, normalise: bool = True) -> TransformSpec:
        """The reference's transforms at this backbone's size; without `normalise`, inputs in [0, 1] as published."""
        fields = {"normalize": "timm", "mean": self.mean, "std": self.std} if normalise else {}
        return TransformSpec.reference(self.image_size, whole_image=self.whole_image, **fields)

    def forward(self, transform: TransformSpec, precision: str | None = None) -> Forward:
        """The forward pass on bytes, with the weights held in `precision` (default: this backbone's own)."""
        dtype = getattr(torch, PRECISIONS[precision or self.precision])
        model = self.model
        if dtype != torch.float32:
            model = copy.deepcopy(model).to(dtype)
            if self.device.type == "cpu":
                _attend_without_fusion(model)
        if not self.kept.plain:
            model = KeptFeatures(model, self.kept).eval()
        return Forward(model, transform, self.device, dtype, self.dim)


class Forward:
    """Bytes of pixels -> features. Weights are held in the precision of the arithmetic, not cast in every layer."""

    def __init__(
        self, model: nn.Module, transform: TransformSpec, device: torch.device, dtype: torch.dtype, dim: int
    ) -> None:
        self.model = model
        self.device = device
        self.dtype = dtype
        self.dim = dim
        self._mean = torch.tensor(transform.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(transform.std, device=device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """[n, S, S, 3] bytes, on any device -> [n, d] float32, on the backbone's device."""
        features = self.model(self.prepare(pixels))
        if features.shape != (len(pixels), self.dim):
            raise BackboneError(
                f"the backbone gives {list(features.shape)} for {len(pixels)} images instead of one feature of "
                f"{self.dim} numbers each",
                remedy="choose a backbone that pools its features",
            )
        return features.float()

    def prepare(self, pixels: torch.Tensor) -> torch.Tensor:
        """[n, S, S, 3] bytes -> [n, 3, S, S] in the precision: (x / 255 - mean) / std in float32, then rounded once.

        Bytes are put into planes first: that moves the fewest bytes, and all else then runs over contiguous memory.
        """
        planes = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).contiguous()
        return planes.float().div_(255).sub_(self._mean).div_(self._std).to(self.dtype)


def _attend_without_fusion(model: nn.Module) -> None:
    """Let attention be two batched products and a softmax: in 16 bits on a CPU three times as fast as torch's fused kernel.

    Measured with torch 2.13, AVX-512, 257 tokens, 6 heads: 0.6 ms an image and layer instead of 1.8; ViT-S/14 as a whole
    gains a quarter. `fused_attn` is timm's own switch.
    """
    for module in model.modules():
        if isinstance(getattr(module, "fused_attn", None), bool):
            setattr(module, "fused_attn", False)  # noqa: B010 nn.Module's attributes are typed as tensors


def load_backbone(
    name: str,
    *,
    weights: Path | None = None,
    img_size: int | None = None,
    device: torch.device | None = None,
    precision: str = "auto",
    untrained: bool = False,
    with_base: bool = False,
    kept: Kept = Kept(),
) -> Backbone:
    """A frozen backbone by its name.

    Arguments:
        name: `vit_nano`, any model of timm (`arch` or `arch.tag`), a repository of one (`hf-hub:OWNER/NAME[@REVISION]`), a
            name of the reference (`extract.names`), or the folder of an adapted backbone, whose base and image size are
            those of its card.
        weights: a local file (safetensors, or a torch checkpoint of tensors only) instead of timm's download.
        img_size: side S of the input in pixels; the model's own by default. Position embeddings are resampled.
        device: the CPU by default.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        untrained: leave the weights as they are drawn, to measure by: nothing is downloaded or read.
        with_base: features of the frozen backbone before those of the adapted one, 2 d numbers.
        kept: what is kept of a view besides its own feature, or instead of it.

    Raises:
        BackboneError: there is no such model, its weights cannot be had or do not fit, or it cannot take that size.
        UsageError: there is no such precision, `with_base` for a backbone that is not adapted, or it has not what is to be
            kept.
    """
    device = device or torch.device("cpu")
    if is_adapted(name):
        return _load_adapted(Path(name), weights, img_size, device, precision, with_base=with_base).keeping(kept)
    if with_base:
        raise UsageError(
            f"{shortened(name)!r} is no adapted backbone, so there is no base beside it",
            where="--with-base",
            remedy="give --backbone the folder that `tosca adapt` has made",
        )
    precision, (arch, tag) = resolve_precision(precision, device, name), resolve_name(name)
    file = Path(os.devnull) if untrained else weights  # with a file of weights, none are downloaded
    model, built = _create(arch, tag, file, img_size)
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    sides = patch if isinstance(patch, tuple) else (patch or 1,)
    if any(built["image_size"] % side for side in sides):
        raise BackboneError(
            f"an image of {built['image_size']} pixels cannot be cut into patches of {sides[0]}",
            where="--img-size",
            remedy=f"give a multiple of {sides[0]}",
        )
    if weights is not None and not untrained:
        load_weights_file(model, weights)
    model = model.eval().requires_grad_(False).float()
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # PyTorch's default, with which float32 convolutions are no float32
    found = Backbone(model.to(device), weights_digest=digest(model), device=device, precision=precision, **built)
    return found.keeping(kept)


def _load_adapted(
    path: Path, weights: Path | None, img_size: int | None, device: torch.device, precision: str, *, with_base: bool
) -> Backbone:
    """The base of an adapted backbone with its modules inside; their random start plays no part."""
    card = read_card(path)
    base = card.base
    if img_size not in (None, base.image_size):
        raise UsageError(
            f"this backbone was adapted at {base.image_size} pixels, not {img_size}",
            where="--img-size",
            remedy="leave it out, or adapt at that size",
        )
    recorded = None if base.weights is None else Path(base.weights)
    found = load_backbone(
        base.name if base.tag in ("", LOCAL_TAG) else f"{base.name}.{base.tag}",
        weights=weights or recorded,
        img_size=base.image_size,
        device=device,
        precision=precision,
    )
    if found.weights_digest != base.weights_digest:
        raise BackboneError(
            "these are not the weights that the backbone was adapted from",
            where=weights or recorded or base.name,
            remedy="give the file with the right ones: --weights FILE",
        )
    model = copy.deepcopy(found.model)
    with torch.random.fork_rng(devices=[]):
        trained = tuning.insert(model, card.kind, card.settings)
    if wrong := tuning.put_tensors(model, trained, read_parts(path, card)):
        raise BackboneError(f"the modules do not fit this backbone: {wrong[0]}", where=path / PARTS, remedy=AGAIN)
    model = model.eval().requires_grad_(False)
    if with_base:
        model = tuning.SideBySide(found.model, model).eval()
    adapted = Adaptation(card, path, with_base)
    dim = found.dim * (2 if with_base else 1)
    return replace(found, model=model, tag=adapted.tag, weights_digest=digest(model), dim=dim, adapted=adapted)


def digest(model: nn.Module) -> str:
    """SHA-256 over the state dict, sorted by name: name, dtype, shape and bytes of every tensor."""
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()


def _create(arch: str, tag: str, weights: Path | None, img_size: int | None) -> tuple[nn.Module, dict[str, Any]]:
    """A model of timm and the fields of `Backbone` that describe it; without its weights if there is a file of others."""
    ensure_torchvision()
    import timm

    import tosca_cache.extract.vit_nano  # noqa: F401 which is a model of timm from then on

    if weights is not None and arch == VIT_NANO:
        tag = ""  # which is that of its own weights
    name = f"{arch}.{tag}" if tag else arch
    if not (timm.is_model(name) or name.startswith(HUB)):
        near = difflib.get_close_matches(arch[:100], timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise BackboneError(
            f"there is no backbone called {shortened(name)!r}",
            where="--backbone",
            remedy=f"{hint}Use {VIT_NANO} or any model of timm",
        )
    remedy = (
        f"check the tag and --img-size; without network, give its weights with --weights FILE ({', '.join(SUFFIXES)})"
    )
    create = partial(timm.create_model, name, pretrained=weights is None, num_classes=0)
    making = backbone_errors(f"the backbone {name} cannot be made", "--backbone", remedy)
    with nullcontext() if weights is not None or arch == VIT_NANO else weights_within_reach(name), making:
        model = _create_sized(create, img_size)
    config: dict[str, Any] = dict(model.pretrained_cfg)
    return model, {
        "name": str(config["architecture"]) if name.startswith(HUB) else arch,
        "tag": tag or ((config.get("tag") or "") if weights is None else LOCAL_TAG),
        "dim": int(getattr(model, "head_hidden_size", None) or model.num_features),
        "image_size": img_size or int(config["input_size"][-1]),
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
        "whole_image": arch == VIT_NANO,
    }


def _create_sized(create: Callable[..., Any], img_size: int | None) -> Any:
    """Passes the image size on to the models that want to know it; networks of convolutions take any."""
    if img_size is not None:
        try:
            return create(img_size=img_size)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
    return create()
