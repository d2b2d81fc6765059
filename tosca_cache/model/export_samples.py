"""What an exported graph is checked on: photos or features, and what the model itself says of them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import DatasetError, ModelError, StoreError, UsageError
from tosca_cache.model.classifier import Model
from tosca_cache.model.encoder import Encoder
from tosca_cache.model.inputs import photo_paths
from tosca_cache.model.teaching import check_store
from tosca_cache.store import Store, open_store

FloatArray = NDArray[np.floating[Any]]
PHOTOS, ROWS = 64, 1024  # the most that are tried
LIMIT, LIMIT_HALF = 1e-4, 1e-3


@dataclass(frozen=True)
class Sample:
    """Rows to check a graph on.

    inputs: of the graph, [n, ...] float32. expected: the model's probabilities, [n, C]. limit: how far they may differ.
    rounding: how far `expected` is from what the model says in its own precision, if the graph has another one.
    """

    inputs: FloatArray
    expected: FloatArray
    limit: float
    rounding: float | None = None


def photo_sample(model: Model, encoder: Encoder, photos: Path | None) -> Sample:
    """Photos of a folder (or list), or some of those that the model has learned; raises `ModelError` if there are none.

    encoder: in the precision of the graph.
    """
    paths = [Path(path) for path in _spread(_photos(model, photos), PHOTOS)]
    encoded = encoder.encode(paths)
    read = [place for place in range(len(paths)) if place not in encoded.errors]
    if not read:
        raise ModelError("no photo can be read", where=photos or model.path, remedy="give others: --photos DIR")
    paths = [paths[place] for place in read]
    pixels = encoder.pixels(paths).float().div_(255).permute(0, 3, 1, 2)
    expected, rounding = model.probabilities(encoded.features[read]), None
    own = model.card.backbone
    if own is not None and own.precision != encoder.card.precision:
        features = Encoder(own, encoder.dtype, encoder.device, weights=encoder.weights).encode(paths).features
        rounding = float(np.abs(model.probabilities(features) - expected).max())
    limit = LIMIT if encoder.card.precision == "fp32" else LIMIT_HALF
    return Sample(np.ascontiguousarray(pixels.numpy()), expected, limit, rounding)


def feature_sample(model: Model, encoder: Encoder | None, photos: Path | None, store: Path | None) -> Sample:
    """Rows of a store, features of photos (with an encoder), or some of those that the model has learned."""
    if store is not None:
        opened = open_store(store)
        check_store(model, opened)
        features = _rows(opened)
    elif encoder is not None:
        encoded = encoder.encode([Path(path) for path in _spread(_photos(model, photos), PHOTOS)])
        features = np.delete(encoded.features, list(encoded.errors), 0)
        if not len(features):
            raise ModelError("no photo can be read", where=photos, remedy="give others: --photos DIR")
    else:
        features = _learned_rows(model)
    rows = np.ascontiguousarray(features, np.float32)
    return Sample(rows, model.probabilities(rows), LIMIT)


def _photos(model: Model, photos: Path | None) -> list[str]:
    sources = [step.source for step in reversed(model.card.history) if step.what == "learn" and step.source]
    for source in [str(photos)] if photos is not None else sources:
        try:
            if Path(source).exists() and (found := list(photo_paths([source], io.StringIO()))):
                return found
        except (DatasetError, UsageError):
            if photos is not None:
                raise
    if photos is not None:
        raise UsageError("there are no photos here", where=photos, remedy="give a folder with photos: --photos DIR")
    raise ModelError(
        "the photos that the model has learned are no longer where they were, so the graph cannot be checked",
        where=model.path,
        remedy="give some photos: --photos DIR",
    )


def _learned_rows(model: Model) -> FloatArray:
    for step in reversed(model.card.history):
        try:
            if step.store is not None and (opened := open_store(step.store)).spec.digest() == step.fingerprint:
                return _rows(opened)
        except StoreError:
            continue
    if model.held_out is not None and len(model.held_out.features):
        return _spread(model.held_out.features, ROWS)
    raise ModelError(
        "the features that the model has learned are no longer there, so the graph cannot be checked",
        where=model.path,
        remedy="give some: --store STORE, or --photos DIR",
    )


def _rows(store: Store) -> FloatArray:
    rows = np.arange(len(store.paths("train")))
    return store.features("train", rows=_spread(rows, ROWS), views=0)[:, 0]


def _spread(items: Any, most: int) -> Any:
    """At most so many of the items, evenly spread over them."""
    if len(items) <= most:
        return items
    places = np.linspace(0, len(items) - 1, most).astype(int)
    return items[places] if isinstance(items, np.ndarray) else [items[place] for place in places]
