"""Thumbnails of a store's images, as data URIs for a page; at most so many, and none where the images are not there."""

from __future__ import annotations

import io
from base64 import b64encode
from contextlib import suppress

from tosca_cache.datasets import ImageDataset
from tosca_cache.errors import ToscaError
from tosca_cache.extract.recompute import request_again
from tosca_cache.store import Store

SIDE = 64  # pixels
MOST = 200  # of a page


class Thumbnails:
    """Thumbnails that a page asks for, by key. photos: data URIs of those that could be made.

    Arguments:
        dataset: the images; rows are found by their path.
        most: how many are made; further ones are left out.
    """

    def __init__(self, store: Store, dataset: ImageDataset, most: int = MOST) -> None:
        self.photos: dict[str, str] = {}
        self._store, self._dataset, self._most = store, dataset, most
        self._rows = {s: {path: n for n, path in enumerate(split.paths)} for s, split in dataset.splits.items()}
        self._paths = {split: store.paths(split) for split in self._rows}

    @classmethod
    def of(cls, store: Store, most: int = MOST) -> Thumbnails | None:
        """Those of a store; None if it does not say where its images lie, or if they are not there."""
        try:
            request = request_again(store, {})
            return cls(store, request.load_dataset(str(store.spec.dataset["name"])), most)
        except (ToscaError, OSError):
            return None

    @property
    def left(self) -> int:
        """How many more may be made."""
        return max(0, self._most - len(self.photos))

    def add(self, split: str, row: int, prefix: str = "") -> str:
        """The key of a row's thumbnail, which is made unless there are enough of them or it cannot be read."""
        key = f"{prefix}{self._store.spec.digest()[:8]}-{split}-{row}"
        place = self._rows[split].get(self._paths[split][row])
        if key not in self.photos and len(self.photos) < self._most and place is not None:
            with suppress(ToscaError, OSError):
                self.photos[key] = _data_uri(self._dataset, split, place)
        return key


def _data_uri(dataset: ImageDataset, split: str, row: int) -> str:
    image = dataset.open(split, row).convert("RGB")
    image.thumbnail((SIDE, SIDE))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(data.getvalue()).decode()}"
