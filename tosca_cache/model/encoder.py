"""Photos into features: the backbone of a model, and files that are opened, prepared and taken through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from tosca_cache.datasets.base import ImageDataset, Split
from tosca_cache.datasets.decoding import MAX_PIXELS, Decoding, open_rgb, to_rgb
from tosca_cache.errors import ImageError, ModelError
from tosca_cache.extract.backbone import Backbone, Forward, load_backbone
from tosca_cache.extract.engine import Group, Renderer, ShardBuffer, compute, plan_groups
from tosca_cache.extract.fingerprint import default_batch_size
from tosca_cache.extract.pieces import Kept
from tosca_cache.model.card import BackboneCard
from tosca_cache.store import Shard
from tosca_cache.workers import threads_here

FloatArray = NDArray[np.floating[Any]]
Photo: TypeAlias = "Path | bytes | Image"
AT_ONCE = 1024  # photos that are opened as one list
SPLIT = "test"


@dataclass(frozen=True)
class Encoded:
    """Features of some photos, [n, d]; zeros for those that cannot be read. errors: their places, and why."""

    features: FloatArray
    errors: dict[int, str]


@dataclass
class Encoder:
    """What turns photos into features as a model has learned them.

    card: which backbone, and how. weights: the file that they lie in now. max_pixels: of a photo that is decoded.
    """

    card: BackboneCard
    device: Any = None
    weights: Path | None = None
    max_pixels: int = MAX_PIXELS
    _backbone: Backbone | None = field(default=None, repr=False)

    @property
    def backbone(self) -> Backbone:
        """The backbone, loaded when it is first asked for.

        Raises `ModelError` if weights or transform are not those that the model has learned under, and what loading raises.
        """
        if self._backbone is None:
            card = self.card
            recorded = None if card.weights is None else Path(card.weights)
            found = load_backbone(
                card.loaded_as,
                weights=self.weights or recorded,
                img_size=card.image_size,
                device=self.device,
                precision=card.precision,
                with_base=card.with_base,
                kept=Kept(card.layers, card.pool),
            )
            if found.weights_digest != card.weights_digest:
                raise ModelError(
                    "these are not the weights that the model has learned under",
                    where=self.weights or recorded or card.name,
                    remedy="give the file with the right ones: --weights FILE",
                )
            if card.transform and found.transform(card.normalise).to_dict() != card.transform:
                raise ModelError(
                    "this version of timm or tosca_cache prepares photos in another way than the model has learned",
                    where=card.name,
                    remedy="use the versions that the model was made with, or learn it again",
                )
            self._backbone = found
        return self._backbone

    def encode(self, photos: Sequence[Photo], on_progress: Callable[[int], None] = lambda n: None) -> Encoded:
        """Features of photos (files, bytes of files, or images), [n, d]; one that cannot be read costs no other."""
        features, errors = [np.zeros((0, self.backbone.dim), np.float32)], dict[int, str]()
        for start in range(0, len(photos), AT_ONCE):
            buffer = self._computed(photos[start : start + AT_ONCE], 0, 0, on_progress)
            features.append(buffer.features[:, 0])
            errors |= {start + place: why for place, why in buffer.skipped.items()}
        return Encoded(np.concatenate(features), errors)

    def features(self, photos: Sequence[Photo]) -> FloatArray:
        """Features of photos, [n, d]; raises `ImageError` for one that cannot be read."""
        return self.with_views(photos, 0, 0)[:, 0]

    def with_views(self, photos: Sequence[Photo], views: int, seed: int) -> FloatArray:
        """Features of photos and of random views of each, [n, 1+V, d]; raises `ImageError` for one that cannot be read."""
        buffer = self._computed(photos, views, seed)
        for place, why in buffer.skipped.items():
            photo = photos[place]
            where = str(photo)[:200] if isinstance(photo, Path) else f"photo {place + 1}"
            raise ImageError(f"a photo cannot be read: {why}", where=where, remedy="leave it out")
        return buffer.features

    def _computed(
        self, photos: Sequence[Photo], views: int, seed: int, on_progress: Callable[[int], None] = lambda n: None
    ) -> ShardBuffer:
        """The clean view of photos and so many others; zeros for photos that cannot be read."""
        renderer = Renderer(
            _dataset(photos, self.decoding), self.backbone.transform(self.card.normalise), seed=seed, skip=True
        )
        buffer = ShardBuffer.empty(Shard(SPLIT, 0, 0, len(photos)), 1 + views, self.backbone.dim)
        groups = plan_groups([buffer], self._batch(len(photos)))
        with closing(compute(groups, renderer, self._forward, threads_here())) as computed:
            for group in computed:
                on_progress(group.stop - group.start)
        buffer.features[list(buffer.skipped)] = 0
        return buffer

    def pixels(self, photos: Sequence[Photo]) -> Tensor:
        """What the backbone sees of photos, [n, S, S, 3] bytes; raises `ImageError` for one that cannot be read."""
        dataset, buffer = _dataset(photos, self.decoding), ShardBuffer.empty(Shard(SPLIT, 0, 0, len(photos)), 1, 0)
        renderer = Renderer(dataset, self.backbone.transform(self.card.normalise), seed=0)
        return renderer(Group(buffer, 0, len(photos)))

    @property
    def decoding(self) -> Decoding:
        """How files are decoded."""
        how: dict[str, Any] = dict(self.card.decoding)
        return Decoding(**how, max_pixels=self.max_pixels)

    @cached_property
    def _forward(self) -> Forward:
        return self.backbone.forward(self.backbone.transform(self.card.normalise))

    def _batch(self, photos: int) -> int:
        """Photos of one pass: on a CPU a core's share, if there are few."""
        most = default_batch_size(self.backbone)
        if self.backbone.device.type != "cpu":
            return most
        return max(1, min(most, -(-photos // (threads_here()))))


def _dataset(photos: Sequence[Photo], decoding: Decoding) -> ImageDataset:
    names = tuple(str(photo) if isinstance(photo, Path) else str(number) for number, photo in enumerate(photos))
    nothing = np.zeros(len(photos), dtype=np.int64)

    def open_photo(split: str, row: int) -> Image:
        photo = photos[row]
        return to_rgb(photo, decoding) if isinstance(photo, Image) else open_rgb(photo, decoding)

    splits = {SPLIT: Split(names, nothing, nothing)}
    return ImageDataset("photos", ("",), ("",), splits, open_photo)
