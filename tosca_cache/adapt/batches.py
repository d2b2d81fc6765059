"""Batches of pixels: images opened and cropped by threads, one batch ahead of what is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tosca_cache.adapt.first_task import TRAIN
from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.transforms import Pixels, TransformSpec, clean_view, draw_view, open_image, render, view_seed

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class ImageBatches:
    """Images of the train split under one transform.

    Every epoch sees another random crop and flip of each image, drawn by (seed, image, epoch) alone.
    """

    dataset: ImageDataset
    transform: TransformSpec
    seed: int
    pool: ThreadPoolExecutor

    def of(self, batches: Sequence[IntArray], epoch: int) -> Iterator[torch.Tensor]:
        """Bytes [n, S, S, 3] of the rows of each batch in turn; `epoch` from 1, or 0 for the clean view.

        Raises `ImageError` for the first image that cannot be read.
        """
        coming: list[Future[Pixels]] = []
        for number, batch in enumerate(batches):
            now = coming or self._begin(batch, epoch)
            coming = self._begin(batches[number + 1], epoch) if number + 1 < len(batches) else []
            yield torch.from_numpy(np.stack([future.result() for future in now]))

    def _begin(self, batch: IntArray, epoch: int) -> list[Future[Pixels]]:
        return [self.pool.submit(self._render, row, epoch) for row in batch.tolist()]

    def _render(self, row: int, epoch: int) -> Pixels:
        image = open_image(self.transform, self.dataset, TRAIN, row)
        width, height = image.size
        if epoch == 0:
            return render(self.transform, image, clean_view(height, width))
        seed = view_seed(self.seed, "adapt", self.dataset.splits[TRAIN].paths[row], epoch)
        return render(self.transform, image, draw_view(self.transform, seed, height, width))
