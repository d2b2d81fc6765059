"""What a report says of a store, as plain JSON values: counts, a map of the features, near duplicates, suspicious rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.extract.thumbnails import Thumbnails
from tosca_cache.store import SPLITS, Store

MOST_POINTS = 3000  # of the map
NEAR = 0.001  # cosine distance below which two images are probably the same
MOST_NEAR, MOST_STRANGE, MANY = 100, 100, 5  # MANY rows with the same features are suspicious
BLOCK = 2048
FloatArray = NDArray[np.float32]


def store_facts(store: Store, images: Thumbnails | None = None) -> dict[str, Any]:
    """Keys: kind, name, about, rows, classes (name, train, test), map, duplicates, constant, skipped, provenance.

    Reads the clean view of all features, of several pieces the last. Raises `StoreError` if the store is damaged.
    """
    clean = {split: store.features(split, views=0, pieces="last")[:, 0].astype(np.float32) for split in SPLITS}
    labels = {split: store.labels(split) for split in SPLITS}
    counts = {split: np.bincount(labels[split], minlength=len(store.class_names)) for split in SPLITS}
    provenance = store.provenance
    return {
        "kind": "store",
        "name": store.path.name,
        "about": dict(store.facts()),
        "rows": {split: store.rows(split) for split in SPLITS},
        "classes": [
            {"name": name, **{split: int(counts[split][c]) for split in SPLITS}}
            for c, name in enumerate(store.class_names)
        ],
        "map": _map(store, clean, labels, images),
        "duplicates": _near(store, clean, labels, images),
        "constant": _constant(store, clean),
        "skipped": [
            {"split": split, "path": row.path, "why": row.reason}
            for split in SPLITS
            for row in store.manifest.skipped[split][:MOST_STRANGE]
        ],
        "precision_error": provenance.get("relative_error_against_float32"),
        "provenance": _provenance(store, provenance),
    }


def _provenance(store: Store, found: dict[str, Any]) -> dict[str, Any]:
    machine = found.get("machine") or {}
    return {
        "fingerprint": store.spec.digest(),
        "tosca_cache": found.get("tosca_cache", ""),
        "begun": found.get("begun", ""),
        "source": ", ".join(f"{k} {v}" for k, v in (found.get("source") or {}).items()),
        "transform": ", ".join(f"{k} {v}" for k, v in store.spec.transform.items()),
        "precision": store.spec.precision,
        "relative error against float32": found.get("relative_error_against_float32", "not measured"),
        "machine": ", ".join(f"{k} {v}" for k, v in machine.items() if k != "libraries"),
        "libraries": ", ".join(f"{k} {v}" for k, v in (machine.get("libraries") or {}).items()),
    }


def _map(
    store: Store, clean: dict[str, FloatArray], labels: dict[str, Any], images: Thumbnails | None
) -> dict[str, Any]:
    """At most `MOST_POINTS` images in two dimensions, evenly taken: x, y, class, split, path, key of the thumbnail."""
    chosen = []
    total = sum(map(len, clean.values()))
    for split in SPLITS:
        count = min(len(clean[split]), max(1, round(MOST_POINTS * len(clean[split]) / max(total, 1))))
        chosen += [(split, int(r)) for r in np.unique(np.linspace(0, len(clean[split]) - 1, count).round().astype(int))]
    chosen = [(split, row) for split, row in chosen if np.isfinite(clean[split][row]).all()]
    if len(chosen) < 3:
        return {"how": "too few images", "points": []}
    at, how = _in_two(np.stack([clean[split][row] for split, row in chosen]))
    paths = {split: store.paths(split) for split in SPLITS}
    every = max(1, len(chosen) // max(1, images.left if images is not None else 1))
    points = []
    for n, ((split, row), (x, y)) in enumerate(zip(chosen, at.tolist(), strict=True)):
        key = images.add(split, row, "map-") if images is not None and n % every == 0 else None
        points.append([x, y, int(labels[split][row]), split, paths[split][row], key])
    return {"how": how, "points": sorted(points, key=lambda point: point[5] is not None)}  # those with a photo on top


def _in_two(x: FloatArray) -> tuple[FloatArray, str]:
    """Two dimensions by UMAP if it is installed, else by PCA of the unit-length features."""
    x = _unit(x)
    try:
        from umap import UMAP
    except ImportError:
        from sklearn.decomposition import PCA

        model = PCA(2, random_state=0)
        at = model.fit_transform(x)
        share = model.explained_variance_ratio_.sum()
        return at, f"the first two principal components, {share:.0%} of the variance"
    return np.asarray(UMAP(random_state=0).fit_transform(x)), "UMAP, where only nearness means something"


def _near(
    store: Store, clean: dict[str, FloatArray], labels: dict[str, Any], images: Thumbnails | None
) -> list[dict[str, Any]]:
    """Test rows whose nearest train row is nearer than `NEAR`, nearest first."""
    train, test = _unit(clean["train"]), _unit(clean["test"])
    if not len(train) or not len(test):
        return []
    best = np.full(len(test), -np.inf, dtype=np.float32)
    where = np.zeros(len(test), dtype=np.int64)
    for start in range(0, len(train), BLOCK):
        cosine = test @ train[start : start + BLOCK].T
        found = cosine.argmax(1)
        value = cosine[np.arange(len(test)), found]
        better = value > best
        best[better], where[better] = value[better], found[better] + start
    near = [row for row in np.argsort(-best, kind="stable")[:MOST_NEAR].tolist() if 1 - best[row] < NEAR]
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
                "distance": max(0.0, float(1 - best[row])),
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
        for row in range(len(x)):
            if not np.isfinite(x[row]).all():
                continue  # skipped: listed by the store
            if not x[row].any():
                found.append({"split": split, "path": paths[row], "why": "all features are zero"})
            elif (same := int(counts[inverse[row]])) >= MANY:
                found.append({"split": split, "path": paths[row], "why": f"the same features as {same - 1} others"})
    return found[:MOST_STRANGE]


def _unit(x: FloatArray) -> FloatArray:
    x = np.nan_to_num(x)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))
