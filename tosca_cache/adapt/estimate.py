"""How long an adaptation takes at most, before anything is downloaded or written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import torch

from tosca_cache.adapt.first_task import FirstTask
from tosca_cache.adapt.request import AdaptRequest
from tosca_cache.adapt.training import Training
from tosca_cache.datasets.base import IntArray
from tosca_cache.devices import resolve_device
from tosca_cache.extract.backbone import load_backbone
from tosca_cache.extract.request import default_backbone
from tosca_cache.extract.tuning import settings_of
from tosca_cache.workers import threads_here

STEPS = 3  # of which the fastest counts: the others shared the machine
LARGE, FEW = 10_000_000, 4  # a step of a model with so many parameters is timed with a few images


@dataclass(frozen=True)
class Noise:
    """Batches of pixels that are noise. side: of an image."""

    side: int

    def of(self, batches: Sequence[IntArray], epoch: int) -> Iterator[torch.Tensor]:
        """Bytes [n, S, S, 3] for each batch in turn."""
        for batch in batches:
            yield torch.randint(0, 256, (len(batch), self.side, self.side, 3), dtype=torch.uint8)


def estimate(request: AdaptRequest, images: int) -> float:
    """Seconds of all epochs: a few steps, forward and backward, with weights as they are drawn, on pixels of noise.

    Reading the images is not in it, and held-out ones count as if they were trained on.

    Arguments:
        images: train images of the first task.

    Raises `BackboneError` if there is no such model, or no modules can be put inside it.
    """
    source, options = request.source, request.training
    backbone = load_backbone(
        source.backbone or default_backbone(source.dataset),
        img_size=source.img_size,
        device=resolve_device(source.device),
        precision="fp32",
        untrained=True,
    )
    if sum(parameter.numel() for parameter in backbone.model.parameters()) >= LARGE:
        options = replace(options, batch_size=min(FEW, options.batch_size))
    rows, none = np.arange(STEPS * options.batch_size), np.empty(0, np.int64)
    task = FirstTask(("a", "b"), ("a", "b"), rows, rows % 2, none, none)
    forward, settings = backbone.forward(backbone.transform(), "fp32"), settings_of(request.kind, request.size)
    training = Training(forward, request.kind, settings, task, options, request.protocol.seed)
    before, stamps = torch.get_num_threads(), [perf_counter()]
    torch.set_num_threads(request.workers or threads_here())
    try:
        training.run_epoch(Noise(backbone.image_size), lambda _: stamps.append(perf_counter()))
    finally:
        torch.set_num_threads(before)
    return options.epochs * images * float(np.diff(stamps).min()) / options.batch_size
