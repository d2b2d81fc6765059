"""The training photos that are nearest to a photo: rows of the stores that a model was taught from, and their images.

An image is only shown if it is the very file that was taught, by its digest, and only as a small JPEG of its pixels.
"""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tosca_cache.datasets.decoding import Decoding, open_rgb
from tosca_cache.datasets.lists import is_list
from tosca_cache.errors import DatasetError, StoreError
from tosca_cache.feature_map import unit_length
from tosca_cache.files import read_limited
from tosca_cache.model.classifier import Model
from tosca_cache.model.serve.schemas import Neighbour
from tosca_cache.model.teaching import TRAIN, digests_of
from tosca_cache.store import open_store

MOST_ROWS = 100_000  # that are looked through; of more, evenly many of each stretch
SIDE = 160  # pixels of a thumbnail
FILE_BYTES = 64 << 20


@dataclass(frozen=True)
class Nearest:
    """Training rows. features: of unit length, [n, d]. labels, digests: of each. photos: files by their digests.

    key: what they were made from.
    """

    features: NDArray[np.float32]
    labels: list[str]
    digests: list[str]
    photos: dict[str, Path]
    key: bytes

    @classmethod
    def of(cls, model: Model, before: Nearest | None = None) -> Nearest:
        """All rows of a model whose stores are still there; `before`, if these are the same rows."""
        taught = model.taught[np.isin(model.taught["indices"], model.columns()) & (model.taught["rows"] >= 0)]
        taught = taught[:: max(1, -(-len(taught) // MOST_ROWS))]
        steps = {number: model.card.history[number] for number in np.unique(taught["steps"]).tolist()}
        key = repr(steps).encode() + taught.tobytes()
        if before is not None and before.key == key:
            return before
        found = cls(np.empty((0, model.card.dim), np.float32), [], [], {}, key)
        names, features = {index: one.name for one in model.card.classes for index in one.indices}, [found.features]
        for number, step in steps.items():
            table = taught[taught["steps"] == number]
            with suppress(StoreError, OSError, LookupError, ValueError):  # it may be damaged, or gone by now
                store = open_store(str(step.store))
                if store.spec.digest() != step.fingerprint:
                    continue
                rows, paths = np.ascontiguousarray(table["rows"]), store.paths(TRAIN)
                clean = store.features(TRAIN, rows=rows, views=0, pieces=model.learner.pieces)[:, 0]
                features.append(unit_length(clean.astype(np.float32)))
                digests = [one.tobytes().hex() for one in table["digests"]]
                found.labels.extend(names[index] for index in table["indices"].tolist())
                found.digests.extend(digests)
                if step.source is not None and step.source != step.store:  # taught from photos
                    folder = Path(step.source).parent if is_list(Path(step.source)) else Path(step.source)
                    files = (folder / paths[row] for row in rows.tolist())
                    found.photos.update(zip(digests, files, strict=True))
        return cls(np.concatenate(features), found.labels, found.digests, found.photos, key)

    def to(self, features: NDArray[np.floating], count: int) -> list[list[Neighbour]]:
        """The nearest `count` of each row [n, d], nearest first."""
        k = min(count, len(self.labels))
        if not k:
            return [[] for _ in features]
        similar = unit_length(features.astype(np.float32)) @ self.features.T
        some = np.argpartition(-similar, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(similar, some, 1), axis=1, kind="stable")
        places = np.take_along_axis(some, order, 1).tolist()
        return [[self._at(n, row[n]) for n in chosen] for row, chosen in zip(similar, places, strict=True)]

    def _at(self, row: int, similarity: float) -> Neighbour:
        digest = self.digests[row]
        photo = f"photos/{digest}" if digest in self.photos and self.photos[digest].is_file() else None
        return Neighbour(label=self.labels[row], similarity=float(similarity), photo=photo)

    def thumbnail(self, digest: str, decoding: Decoding) -> bytes | None:
        """A small JPEG of a photo; None if it is not there any more, or another one."""
        target = io.BytesIO()
        try:
            data = read_limited(self.photos[digest], FILE_BYTES)
            if digests_of([data]).tobytes().hex() != digest:
                return None
            picture = open_rgb(data, decoding)
        except (KeyError, OSError, DatasetError):
            return None
        picture.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
        picture.save(target, "JPEG", quality=85)
        return target.getvalue()
