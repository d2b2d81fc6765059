"""What a report says of a store, as plain JSON values: counts, a map of the features, near duplicates, suspicious rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.extract.recompute import Thumbnails
from tosca_cache.feature_map import MapPoint, clean_features, feature_map
from tosca_cache.runs.report_facts import precision_warnings
from tosca_cache.store import SPLITS, Store

NEAR = 0.001  # cosine distance below which two images are probably the same
MOST_NEAR, MOST_STRANGE, MANY = 100, 100, 5  # MANY rows with the same features are suspicious
FloatArray = NDArray[np.float32]


def store_facts(store: Store, images: Thumbnails | None = None) -> dict[str, Any]:
    """Keys: kind, name, about, rows, classes (name, train, test), map, duplicates, constant, skipped, provenance.

    Reads the clean view of all features, of several pieces the last. Raises `StoreError` if the store is damaged.
    """
    clean = clean_features(store)
    labels = {split: store.labels(split) for split in SPLITS}
    counts = {split: np.bincount(labels[split], minlength=len(store.class_names)) for split in SPLITS}
    return {
        "kind": "store",
        "name": store.path.name,
        "about": dict(store.facts()),
        "rows": {split: store.rows(split) for split in SPLITS},
        "classes": [
            {"name": name, **{split: int(counts[split][c]) for split in SPLITS}}
            for c, name in enumerate(store.class_names)
        ],
        "map": map_facts(store, images, clean)[0],
        "duplicates": _near(store, clean, labels, images),
        "constant": _constant(store, clean),
        "skipped": [
            {"split": split, "path": row.path, "why": row.reason}
            for split in SPLITS
            for row in store.manifest.skipped[split][:MOST_STRANGE]
        ],
        "warnings": precision_warnings(store),
        "provenance": dict(store.provenance) | {"store": {"path": str(store.path), "fingerprint": store.spec.digest()}},
        "transform": store.spec.transform,
    }


def map_facts(
    store: Store, images: Thumbnails | None, clean: dict[str, FloatArray] | None = None
) -> tuple[dict[str, Any], list[MapPoint]]:
    """The images on the map: how (in words), classes (their names), points (x, y, class, split, path, key of thumbnail)."""
    how, found = feature_map(store, clean)
    every = max(1, len(found) // max(1, images.left if images is not None else 1))
    labels, paths = ({split: get(split) for split in SPLITS} for get in (store.labels, store.paths))
    points = []
    for n, (x, y, split, row) in enumerate(found):
        key = images.add(split, row, "map-") if images is not None and n % every == 0 else None
        points.append([x, y, int(labels[split][row]), split, paths[split][row], key])
    return {"how": how, "classes": list(store.class_names), "points": points}, found


def _near(
    store: Store, clean: dict[str, FloatArray], labels: dict[str, Any], images: Thumbnails | None
) -> list[dict[str, Any]]:
    """Test rows whose nearest train row is nearer than `NEAR`, nearest first."""
    if not len(clean["train"]) or not len(clean["test"]):
        return []
    from sklearn import config_context
    from sklearn.metrics import pairwise_distances_argmin_min

    with config_context(working_memory=64):  # MiB of distances at a time
        test, train = np.nan_to_num(clean["test"]), np.nan_to_num(clean["train"])
        where, distance = pairwise_distances_argmin_min(test, train, metric="cosine")
    near = [row for row in np.argsort(distance, kind="stable")[:MOST_NEAR].tolist() if distance[row] < NEAR]
    paths = {split: store.paths(split) for split in SPLITS}
    facts = []
    for row in near:
        other = int(where[row])
        keys = (
            {f"{s}_key": images.add(s, r) for s, r in (("test", row), ("train", other))} if images is not None else {}
        )
        facts.append(
            {
                "test": paths["test"][row],
                "train": paths["train"][other],
                "distance": float(distance[row]),
                "test_class": store.class_names[int(labels["test"][row])],
                "train_class": store.class_names[int(labels["train"][other])],
                **keys,
            }
        )
    return facts


def _constant(store: Store, clean: dict[str, FloatArray]) -> list[dict[str, Any]]:
    """Rows without direction, and rows that share their exact features with at least `MANY` - 1 others of the split."""
    found = []
    for split in SPLITS:
        x, paths = clean[split], store.paths(split)
        _, inverse, counts = np.unique(x, axis=0, return_inverse=True, return_counts=True)
        same, empty = counts[inverse], np.abs(x).max(1, initial=0) == 0
        for row in np.flatnonzero(np.isfinite(x).all(1) & (empty | (same >= MANY))):  # skipped ones are not finite
            why = "all features are zero" if empty[row] else f"the same features as {same[row] - 1} others"
            found.append({"split": split, "path": paths[row], "why": why})
    return found[:MOST_STRANGE]
