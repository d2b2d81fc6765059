"""The training photos that are nearest to a photo: rows of the stores that a model was taught from, and their images.

Everything is read-only. An image is only shown if it is the very file that was taught (by its digest, where the model knows
that of the file) and lies in the folder that its store records, links followed; and only as a small JPEG of its pixels.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tosca_cache.datasets.decoding import Decoding
from tosca_cache.datasets.images import open_rgb
from tosca_cache.datasets.lists import is_list
from tosca_cache.errors import DatasetError, StoreError
from tosca_cache.files import read_limited
from tosca_cache.model.card import Step
from tosca_cache.model.classifier import Model
from tosca_cache.model.teaching import TRAIN, byte_digest, step_store
from tosca_cache.store import Store

MOST_ROWS = 100_000  # that are looked through; of more, evenly many of each stretch
SIDE = 160  # pixels of a thumbnail
FILE_BYTES = 64 << 20

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class TrainingPhoto:
    """Where a photo lies. checked: whether `digest` is that of its file, and not that of its row."""

    folder: Path
    path: str
    digest: str
    checked: bool

    @property
    def file(self) -> Path | None:
        """The file, if it is there and within the folder."""
        try:
            folder, found = self.folder.resolve(strict=True), (self.folder / self.path).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            return None
        return found if found.is_relative_to(folder) and found.is_file() else None

    def thumbnail(self, decoding: Decoding) -> bytes | None:
        """A small JPEG of it; None if it is not there any more, or another one."""
        file = self.file
        try:
            data = None if file is None else read_limited(file, FILE_BYTES)
            if data is None or (self.checked and byte_digest(data).tobytes().hex() != self.digest):
                return None
            picture = open_rgb(data, decoding)
        except (OSError, DatasetError):
            return None
        picture.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
        target = io.BytesIO()
        picture.save(target, "JPEG", quality=85)
        return target.getvalue()


@dataclass(frozen=True)
class Neighbour:
    """A training photo beside one that was asked about. similarity: the cosine of their features. photo: its digest, if
    the image is there.
    """

    label: str
    similarity: float
    photo: str | None


@dataclass(frozen=True)
class Nearest:
    """Training photos that can be looked through.

    features: of unit length, [n, d]. labels: their classes, [n]. photos: where they lie, [n]; None where nobody knows.
    key: what they were made from.
    """

    features: FloatArray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    labels: tuple[str, ...] = ()
    photos: tuple[TrainingPhoto | None, ...] = ()
    key: str = ""

    @classmethod
    def of(cls, model: Model, before: Nearest | None = None) -> Nearest:
        """All rows of a model whose stores are still there; `before`, if these are the same rows."""
        key = _key(model)
        if before is not None and before.key == key:
            return before
        parts, labels, photos = [], list[str](), list[TrainingPhoto | None]()
        names = {index: one.name for one in model.card.classes for index in one.indices}
        for step, chosen in _rows(model):
            if (store := step_store(step)) is None:
                continue
            table = model.taught[chosen]
            rows = np.ascontiguousarray(table["rows"])
            try:
                found = store.features(TRAIN, rows=rows, views=0, pieces=model.learner.pieces)[:, 0]
            except (StoreError, OSError, LookupError, ValueError):
                continue
            if found.shape[1] != model.card.dim:
                continue
            parts.append(_unit(found))
            labels += [names[index] for index in table["indices"].tolist()]
            photos += _photos(store, step, rows, table["digests"])
        features = np.concatenate(parts) if parts else np.empty((0, model.card.dim), np.float32)
        return cls(features, tuple(labels), tuple(photos), key)

    def to(self, features: NDArray[np.floating], count: int) -> list[list[Neighbour]]:
        """The nearest `count` of each row [n, d], nearest first."""
        k = min(count, len(self.labels))
        if not k:
            return [[] for _ in features]
        similar = _unit(features) @ self.features.T
        some = np.argpartition(-similar, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(similar, some, 1), axis=1, kind="stable")
        places = np.take_along_axis(some, order, 1)
        return [
            [self._neighbour(place, row[place]) for place in chosen]
            for row, chosen in zip(similar, places.tolist(), strict=True)
        ]

    def photo(self, digest: str) -> TrainingPhoto | None:
        """The photo with a digest."""
        return self._by_digest.get(digest)

    @cached_property
    def _by_digest(self) -> dict[str, TrainingPhoto]:
        return {one.digest: one for one in self.photos if one is not None}

    def _neighbour(self, place: int, similarity: float) -> Neighbour:
        photo = self.photos[place]
        there = photo is not None and photo.file is not None
        return Neighbour(self.labels[place], float(similarity), photo.digest if there and photo else None)


def _rows(model: Model) -> Iterator[tuple[Step, NDArray[np.int64]]]:
    """The rows (places among all that were taught) of every step that has a store."""
    steps = model.taught["steps"]
    known = np.isin(model.taught["indices"], model.columns()) & (model.taught["rows"] >= 0)
    stride = max(1, -(-int(known.sum()) // MOST_ROWS))
    places = np.flatnonzero(known)[::stride]
    for number in np.unique(steps[places]).tolist():
        step = model.card.history[number]
        if step.store is not None:
            yield step, places[steps[places] == number]


def _key(model: Model) -> str:
    """What tells the rows of a model that lie in stores from all others."""
    total = hashlib.sha256()
    for step, chosen in _rows(model):
        total.update(f"{step.store} {step.fingerprint} {step.source}".encode())
        total.update(model.taught[chosen].tobytes())
    return total.hexdigest()


def _photos(
    store: Store, step: Step, rows: NDArray[np.int64], digests: NDArray[np.uint8]
) -> list[TrainingPhoto | None]:
    try:
        folder, paths = _folder(store, step), store.paths(TRAIN)
    except (StoreError, OSError):
        folder = None
    if folder is None:
        return [None] * len(rows)
    checked = step.source != step.store  # taught from photos, not from a store of features
    return [
        TrainingPhoto(folder, paths[row], digest.tobytes().hex(), checked)
        for row, digest in zip(rows.tolist(), digests, strict=True)
    ]


def _folder(store: Store, step: Step) -> Path | None:
    """The folder that a store records for its images, or that a step was taught from if the store's is relative."""
    recorded = store.provenance.get("source")
    data = recorded.get("data") if isinstance(recorded, dict) else None
    if not isinstance(data, str) or not Path(data).is_absolute():
        data = None if step.source == step.store else step.source
    if data is None:
        return None
    return Path(data).parent if is_list(Path(data)) else Path(data)


def _unit(features: NDArray[np.floating]) -> FloatArray:
    rows = np.asarray(features, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
