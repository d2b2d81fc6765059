"""Making a model without head: ours or any of timm's, with published weights or those of a local file."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from tosca_cache.errors import BackboneError
from tosca_cache.extract.download import weights_within_reach
from tosca_cache.extract.names import LOCAL_TAG, VIT_NANO, VIT_NANO_TAG
from tosca_cache.extract.weights_file import SUFFIXES, load_weights_file
from tosca_cache.text import shortened
from tosca_cache.torchvision_compat import ensure_torchvision

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class BuiltModel:
    """A model with its weights, and the facts about it; see `extract.backbone.Backbone` for the fields."""

    model: nn.Module
    arch: str
    tag: str
    dim: int
    image_size: int
    mean: Triple
    std: Triple
    whole_image: bool


def build_model(arch: str, tag: str, *, weights: Path | None, img_size: int | None) -> BuiltModel:
    """The model of that architecture; with `weights` from that file, otherwise those published under `tag`.

    Raises:
        BackboneError: there is no such model, its weights cannot be had or do not fit, or it cannot take that size.
    """
    built = _nano(weights, img_size) if arch == VIT_NANO else _timm(arch, tag, weights, img_size)
    patch = getattr(getattr(built.model, "patch_embed", None), "patch_size", None)
    sides = patch if isinstance(patch, tuple) else (patch or 1,)
    if any(built.image_size % side for side in sides):
        raise BackboneError(
            f"an image of {built.image_size} pixels cannot be cut into patches of {sides[0]}",
            where="--img-size",
            remedy=f"give a multiple of {sides[0]}",
        )
    if weights is not None:
        load_weights_file(built.model, weights)
    return built


def _nano(weights: Path | None, img_size: int | None) -> BuiltModel:
    from tosca_cache.extract import vit_nano

    size = img_size or vit_nano.IMAGE_SIZE
    return BuiltModel(
        model=_attempt(partial(vit_nano.create_vit_nano, pretrained=weights is None, img_size=size), VIT_NANO),
        arch=VIT_NANO,
        tag=VIT_NANO_TAG if weights is None else LOCAL_TAG,
        dim=vit_nano.DIM,
        image_size=size,
        mean=vit_nano.MEAN,
        std=vit_nano.STD,
        whole_image=vit_nano.CROP_PCT == 1.0,
    )


def _timm(arch: str, tag: str, weights: Path | None, img_size: int | None) -> BuiltModel:
    ensure_torchvision()
    import timm

    name = f"{arch}.{tag}" if tag else arch
    if not timm.is_model(name):
        raise _unknown(name, timm.list_models())
    create = partial(timm.create_model, name, pretrained=weights is None, num_classes=0)
    with nullcontext() if weights is not None else weights_within_reach(name):
        model = _attempt(partial(_create_sized, create, img_size), name)
    config: dict[str, Any] = dict(model.pretrained_cfg)
    published = config.get("tag") or ""
    return BuiltModel(
        model=model,
        arch=arch,
        tag=tag or (published if weights is None else LOCAL_TAG),
        dim=int(getattr(model, "head_hidden_size", None) or model.num_features),
        image_size=img_size or int(config["input_size"][-1]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        whole_image=False,
    )


def _create_sized(create: Callable[..., Any], img_size: int | None) -> Any:
    """Passes the image size on to the models that want to know it; networks of convolutions take any."""
    if img_size is not None:
        try:
            return create(img_size=img_size)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
    return create()


def _attempt(create: Callable[[], Any], name: str) -> Any:
    """Makes the model; a failed download, an unknown tag or an impossible size becomes a `BackboneError`."""
    try:
        return create()
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).strip().splitlines()
        raise BackboneError(
            f"the backbone {name} cannot be made: {reason[0] if reason else type(error).__name__}",
            where="--backbone",
            remedy=f"check the tag and --img-size; without network access, give its weights with --weights FILE "
            f"({', '.join(SUFFIXES)})",
        ) from error


def _unknown(name: str, names: list[str]) -> BackboneError:
    near = difflib.get_close_matches(name.partition(".")[0][:100], [VIT_NANO, *names], n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return BackboneError(
        f"there is no backbone called {shortened(name)!r}",
        where="--backbone",
        remedy=f"{hint}Use {VIT_NANO} or any model of timm (timm.list_models())",
    )
