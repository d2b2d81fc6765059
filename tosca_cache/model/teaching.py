"""What a model is taught and tested with: photos through the cache of features, and rows of a store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.catalogue import load_files
from tosca_cache.datasets.decoding import PUBLISHED, Decoding
from tosca_cache.errors import DatasetError, FingerprintMismatch
from tosca_cache.extract.backbone import Backbone
from tosca_cache.extract.pieces import Kept
from tosca_cache.model.card import BackboneCard
from tosca_cache.model.classifier import Model
from tosca_cache.model.records import DIGEST, Lesson
from tosca_cache.store import Store
from tosca_cache.store.manifest import MANIFEST

Digests = NDArray[np.uint8]
FloatArray = NDArray[np.floating[Any]]
TRAIN = "train"
_READERS = 8  # files that are read at once


def list_photos(path: Path, split: str, decoding: Mapping[str, Any] | None = None) -> tuple[ImageDataset, Digests]:
    """The photos of a folder of classes, or of a list, as train rows, and what tells them apart, [n, 16] bytes.

    split: which ones count where there are several.

    Raises `DatasetError` if there are none, or a file cannot be read.
    """
    if (path / MANIFEST).is_file() and (path / "zarr.json").is_file():
        raise DatasetError("this is a feature store, not photos", where=path, remedy="give it as the store: --store")
    dataset = load_files(path, only=split, decoding=Decoding(**(decoding or {})))
    files = [Path(dataset.where(TRAIN, row)) for row in range(len(dataset.splits[TRAIN]))]
    if not files:
        raise DatasetError(
            f"there are no {split} photos", where=path, remedy="give a folder with a folder for each class"
        )
    try:
        with ThreadPoolExecutor(_READERS) as pool:
            found = list(pool.map(lambda file: digests_of([file.read_bytes()]), files))
    except OSError as error:
        problem, remedy = f"a photo cannot be read: {error.strerror}", "replace or remove the file"
        raise DatasetError(problem, where=error.filename, remedy=remedy) from error
    return dataset, np.concatenate(found)


def store_lesson(store: Store, split: str = "train", *, pieces: str = "last") -> Lesson:
    """The rows of one split of a store. pieces: of its features, as the learner uses them (`Learner.pieces`)."""
    features = store.features(split, pieces=pieces)
    return Lesson(
        features=features,
        names=[store.class_names[label] for label in store.labels(split).tolist()],
        digests=row_digests(features[:, 0]),
        source=str(store.path.absolute()),
        store=str(store.path.absolute()),
        fingerprint=store.spec.digest(),
        rows=np.arange(len(features), dtype=np.int64),
    )


def digests_of(items: Iterable[bytes]) -> Digests:
    """What tells photos (bytes of their files) or rows apart, [n, 16]."""
    found = b"".join(hashlib.sha256(item).digest()[:DIGEST] for item in items)
    return np.frombuffer(found, np.uint8).reshape(-1, DIGEST)


def row_digests(features: FloatArray) -> Digests:
    """What tells rows [n, d] apart, [n, 16]."""
    return digests_of(np.ascontiguousarray(row).tobytes() for row in features)


def backbone_card(backbone: Backbone, weights: Path | None, *, normalise: bool, decoding: Decoding) -> BackboneCard:
    """The card of a loaded backbone."""
    return BackboneCard(
        name=backbone.name,
        tag=backbone.tag,
        weights_digest=backbone.weights_digest,
        weights=None if weights is None else str(weights.absolute()),
        image_size=backbone.image_size,
        precision=backbone.precision,
        normalise=normalise,
        transform=backbone.transform(normalise).to_dict(),
        decoding=decoding.to_dict(),
        adapted=None if backbone.adapted is None else str(backbone.adapted.path.absolute()),
        with_base=backbone.adapted is not None and backbone.adapted.with_base,
        layers=backbone.kept.layers,
        pool=backbone.kept.pool,
    )


def store_backbone(store: Store, *, pieces: str = "last") -> BackboneCard | None:
    """The card of the backbone that made such pieces of a store's features; None for imported ones."""
    spec = store.spec
    if spec.imported:
        return None
    found = store.provenance.get("source")
    recorded = found if isinstance(found, dict) else {}
    weights, adapted = recorded.get("weights"), spec.adapted
    kept = Kept.recorded([name for name, _ in spec.pieces])
    return BackboneCard(
        name=spec.backbone["name"],
        tag=spec.backbone["tag"],
        weights_digest=spec.backbone["weights_digest"],
        weights=weights if isinstance(weights, str) and weights != "published" else None,
        image_size=spec.transform["image_size"],
        precision=spec.precision,
        normalise=spec.transform.get("normalize") == "timm",
        transform={key: value for key, value in spec.transform.items() if key not in PUBLISHED.to_dict()},
        decoding=Decoding.recorded_in(spec.transform).to_dict(),
        adapted=None if adapted is None else str(recorded.get("adapted")),
        with_base=bool(adapted and adapted.get("with_base")),
        layers=kept.layers if pieces == "all" else 1,
        pool=kept.pool,
    )


def check_store(model: Model, store: Store) -> None:
    """Raises `FingerprintMismatch` unless the features of a store are of the kind that a model has learned."""
    pieces = model.learner.pieces
    mine, theirs, columns = model.card.backbone, store_backbone(store, pieces=pieces), store.spec.columns(pieces)
    pairs: list[tuple[str, Any, Any]] = [
        ("dim", model.card.dim, columns.stop - columns.start),
        ("views", model.card.views, store.views("train") - 1),
    ]
    if mine is not None and theirs is not None:
        fields = ("name", "weights_digest", "precision", "transform", "decoding", "layers", "pool")
        pairs += [(name, getattr(mine, name), getattr(theirs, name)) for name in fields]
    wrong = [f"{name}: the model has {a!r}, the store {b!r}" for name, a, b in pairs if a != b]
    if wrong:
        raise FingerprintMismatch(
            "the features of the store are not of the kind that the model has learned: " + "; ".join(wrong),
            where=store.path,
            remedy="extract the images as the model's card says, or learn another model",
        )
