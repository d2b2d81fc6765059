"""The training photos that are nearest to a photo: rows of the stores that a model was taught from, and their images.

Everything is read-only. An image is only shown if it is the very file that was taught (by its digest) and lies in the
folder that it was taught from, links followed; and only as a small JPEG of its pixels.
"""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tosca_cache.datasets.decoding import Decoding, open_rgb
from tosca_cache.datasets.lists import is_list
from tosca_cache.errors import DatasetError, StoreError
from tosca_cache.files import read_limited
from tosca_cache.model.classifier import Model
from tosca_cache.model.serve.schemas import Neighbour
from tosca_cache.model.teaching import TRAIN, digests_of
from tosca_cache.store import open_store

MOST_ROWS = 100_000  # that are looked through; of more, evenly many of each stretch
SIDE = 160  # pixels of a thumbnail
FILE_BYTES = 64 << 20

FloatArray = NDArray[np.float32]


Place = tuple[Path, str]  # of a photo that was taught: a folder, and the path below it


def photo_file(place: Place) -> Path | None:
    """The file of a photo, if it is there and within its folder."""
    try:
        folder, found = place[0].resolve(strict=True), place[0].joinpath(place[1]).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return None
    return found if found.is_relative_to(folder) and found.is_file() else None


@dataclass(frozen=True)
class Nearest:
    """Training photos that can be looked through.

    features: of unit length, [n, d]. labels: their classes, [n]. digests: of their files, [n]; empty where there is none.
    photos: by their digests. key: what they were made from.
    """

    features: FloatArray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    labels: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    photos: dict[str, Place] = field(default_factory=dict)
    key: bytes = b""

    @classmethod
    def of(cls, model: Model, before: Nearest | None = None) -> Nearest:
        """All rows of a model whose stores are still there; `before`, if these are the same rows."""
        taught = model.taught[np.isin(model.taught["indices"], model.columns()) & (model.taught["rows"] >= 0)]
        taught = taught[:: max(1, -(-len(taught) // MOST_ROWS))]
        steps = {number: model.card.history[number] for number in np.unique(taught["steps"]).tolist()}
        key = repr([(step.store, step.fingerprint) for step in steps.values()]).encode() + taught.tobytes()
        if before is not None and before.key == key:
            return before
        features, labels, digests, photos = [], list[str](), list[str](), dict[str, Place]()
        names = {index: one.name for one in model.card.classes for index in one.indices}
        for number, step in steps.items():
            table = taught[taught["steps"] == number]
            rows = np.ascontiguousarray(table["rows"])
            with suppress(StoreError, OSError, LookupError, ValueError):  # it may be damaged, or gone by now
                store = open_store(str(step.store))
                if store.spec.digest() != step.fingerprint:
                    continue
                some, paths = store.features(TRAIN, rows=rows, views=0, pieces=model.learner.pieces), store.paths(TRAIN)
                features.append(_unit(some[:, 0]))
                labels += [names[index] for index in table["indices"].tolist()]
                mine = [one.tobytes().hex() for one in table["digests"]]
                if step.source is None or step.source == step.store:  # taught from rows, not from photos
                    digests += [""] * len(mine)
                    continue
                folder = Path(step.source).parent if is_list(Path(step.source)) else Path(step.source)
                digests += mine
                found = zip(rows.tolist(), mine, strict=True)
                photos |= {digest: (folder, paths[row]) for row, digest in found}
        together = np.concatenate(features) if features else np.empty((0, model.card.dim), np.float32)
        return cls(together, tuple(labels), tuple(digests), photos, key)

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

    def thumbnail(self, digest: str, decoding: Decoding) -> bytes | None:
        """A small JPEG of a photo; None if it is not there any more, or another one."""
        file, target = photo_file(self.photos[digest]) if digest in self.photos else None, io.BytesIO()
        try:
            data = None if file is None else read_limited(file, FILE_BYTES)
            if data is None or digests_of([data]).tobytes().hex() != digest:
                return None
            picture = open_rgb(data, decoding)
        except (OSError, DatasetError):
            return None
        picture.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
        picture.save(target, "JPEG", quality=85)
        return target.getvalue()

    def _neighbour(self, place: int, similarity: float) -> Neighbour:
        digest = self.digests[place]
        photo = f"photos/{digest}" if digest in self.photos and photo_file(self.photos[digest]) else None
        return Neighbour(label=self.labels[place], similarity=float(similarity), photo=photo)


def _unit(features: NDArray[np.floating]) -> FloatArray:
    rows = np.asarray(features, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
