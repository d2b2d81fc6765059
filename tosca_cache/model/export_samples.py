"""What an exported graph is checked on: photos or features, and what the model itself says of them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import DatasetError, ModelError, UsageError
from tosca_cache.model.classifier import Model
from tosca_cache.model.encoder import Encoder
from tosca_cache.model.inputs import photo_paths
from tosca_cache.model.teaching import step_store
from tosca_cache.store import Store, open_store

FloatArray = NDArray[np.floating[Any]]
PHOTOS, ROWS = 64, 1024  # the most that are tried
LIMIT, LIMIT_HALF = 1e-4, 1e-3
LAST_BITS = 5e-6  # relative: what float32 leaves open after the layers of a backbone


@dataclass(frozen=True)
class Sample:
    """Rows to check a graph on.

    inputs: of the graph, [n, ...] float32. expected: the model's probabilities, [n, C]. limit: how far they may differ.
    between: how far they may differ besides, [n], where features lie between two numbers of float16; see `_between`.
    rounding: how far `expected` is from what the model says in its own precision, if the graph has another one.
    """

    inputs: FloatArray
    expected: FloatArray
    between: FloatArray
    limit: float
    rounding: float | None = None


def photo_sample(model: Model, encoder: Encoder, photos: Path | None) -> Sample:
    """Photos of a folder (or list), or some of those that the model has learned; raises `ModelError` if there are none.

    encoder: in the precision of the graph.
    """
    paths = [Path(path) for path in _spread(_photos(model, photos), PHOTOS)]
    exact = Encoder(encoder.card, "float32", encoder.device, weights=encoder.weights, _backbone=encoder.backbone)
    encoded = exact.encode(paths)  # the model itself rounds what it is asked about
    read = [place for place in range(len(paths)) if place not in encoded.errors]
    if not read:
        raise ModelError("no photo can be read", where=photos or model.path, remedy="give others: --photos DIR")
    paths = [paths[place] for place in read]
    pixels = encoder.pixels(paths).float().div_(255).permute(0, 3, 1, 2)
    features, rounding = encoded.features[read], None
    expected = model.probabilities(features)
    own = model.card.backbone
    if own is not None and own.precision != encoder.card.precision:
        theirs = Encoder(own, encoder.dtype, encoder.device, weights=encoder.weights).encode(paths).features
        rounding = float(np.abs(model.probabilities(theirs) - expected).max())
    limit = LIMIT if encoder.card.precision == "fp32" else LIMIT_HALF
    inputs = np.ascontiguousarray(pixels.numpy())
    return Sample(inputs, expected, _between(model, features, expected), limit, rounding)


def feature_sample(model: Model, store: Path | None) -> Sample:
    """Rows of a store, of whichever backbone, or some of those that the model has learned."""
    features = _learned_rows(model) if store is None else _rows(open_store(store), model.learner.pieces)
    rows = np.ascontiguousarray(features.astype(model.card.dtype), np.float32)
    return Sample(rows, model.probabilities(rows), np.zeros(len(rows)), LIMIT)


def _between(model: Model, features: FloatArray, expected: FloatArray) -> FloatArray:
    """How far probabilities of features [n, d] may move by how they are rounded to float16, [n]; 0 if they are not.

    A feature in the middle between two numbers of float16, but for the last bits of float32, may become either.
    """
    found = np.zeros(len(features))
    if model.card.dtype != "float16":
        return found
    rounded = features.astype(np.float16)
    other = np.nextafter(rounded, np.where(features > rounded, np.inf, -np.inf).astype(np.float16))
    middle = (rounded.astype(np.float64) + other.astype(np.float64)) / 2
    size = np.sqrt(np.square(features, dtype=np.float64).mean(1, keepdims=True))
    rows, places = np.nonzero(np.abs(features - middle) < LAST_BITS * size)
    if len(rows):
        moved = rounded[rows].astype(np.float32)
        moved[np.arange(len(rows)), places] = other[rows, places]
        np.add.at(found, rows, np.abs(model.probabilities(moved) - expected[rows]).max(1))
    return found


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
        if (store := step_store(step)) is not None:
            return _rows(store, model.learner.pieces)
    if model.held_out is not None and len(model.held_out.features):
        return _spread(model.held_out.features, ROWS)
    raise ModelError(
        "the features that the model has learned are no longer there, so the graph cannot be checked",
        where=model.path,
        remedy="give some: --store STORE",
    )


def _rows(store: Store, pieces: str) -> FloatArray:
    rows = np.arange(len(store.paths("train")))
    return store.features("train", rows=_spread(rows, ROWS), views=0, pieces=pieces)[:, 0]


def _spread(items: Any, most: int) -> Any:
    """At most so many of the items, evenly spread over them."""
    if len(items) <= most:
        return items
    places = np.linspace(0, len(items) - 1, most).astype(int)
    return items[places] if isinstance(items, np.ndarray) else [items[place] for place in places]
