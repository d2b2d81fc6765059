"""How long an extraction takes and how large its store becomes, before anything is downloaded or written."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from time import perf_counter

import torch

from tosca_cache.devices import one_thread, resolve_device
from tosca_cache.extract.backbone import load_backbone
from tosca_cache.extract.pieces import Kept
from tosca_cache.extract.request import ExtractRequest, default_backbone
from tosca_cache.workers import threads_here

BATCH, TIMED = 8, 5  # views in a batch, and batches of which the fastest counts: the others shared the machine


@dataclass(frozen=True)
class Estimate:
    """images: of both splits. passes: views through the backbone. seconds: of these alone. bytes: of the features."""

    images: int
    passes: int
    seconds: float
    bytes: int


def estimate(request: ExtractRequest, train: int, test: int) -> Estimate:
    """Times a few passes of the backbone, with weights as they are drawn, on pixels of noise.

    Arguments:
        train, test: images.

    Raises `BackboneError` if there is no such model.
    """
    backbone = load_backbone(
        request.backbone or default_backbone(request.dataset),
        img_size=request.img_size,
        device=resolve_device(request.device),
        precision=request.precision,
        untrained=True,
        kept=Kept(request.layers, request.pool),
    )
    forward = backbone.forward(backbone.transform())
    side = backbone.image_size
    pixels = torch.randint(0, 256, (BATCH, side, side, 3), dtype=torch.uint8)
    options = request.options
    alone = backbone.device.type == "cpu"  # there every worker computes on one thread
    with one_thread() if alone else nullcontext():
        each = min(_seconds(forward, pixels) for _ in range(TIMED)) / BATCH
    each /= (options.workers or threads_here()) if alone else 1
    passes = train * (1 + options.views) + test * (1 + options.test_views)
    size = 2 if options.store_dtype == "float16" else 4
    return Estimate(train + test, passes, passes * each, passes * backbone.dim * size)


def _seconds(forward: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor) -> float:
    begun = perf_counter()
    forward(pixels).cpu()
    return perf_counter() - begun
