"""The images of a store in two dimensions, by their features: UMAP where it is installed, else principal components."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tosca_cache import plots
from tosca_cache.errors import UsageError

SPLITS = ("train", "test")
MOST_POINTS = 3000
FloatArray = NDArray[np.float32]


class MapPoint(NamedTuple):
    """One image: where it is, and which row of which split."""

    x: float
    y: float
    split: str
    row: int


def feature_map(store: Any, clean: dict[str, FloatArray] | None = None) -> tuple[str, list[MapPoint]]:
    """How the map was made, in words, and at most `MOST_POINTS` images, evenly taken; without rows of NaN or infinity.

    Arguments:
        clean: features [n, d] of the clean view by split, if they were read already.
    """
    clean = clean or clean_features(store)
    total, chosen = sum(map(len, clean.values())), list[tuple[str, int]]()
    for split in SPLITS:
        count = min(len(clean[split]), max(1, round(MOST_POINTS * len(clean[split]) / max(total, 1))))
        rows = np.unique(np.linspace(0, max(len(clean[split]) - 1, 0), count).round().astype(int))
        chosen += [(split, int(r)) for r in rows if np.isfinite(clean[split][r]).all()]
    if len(chosen) < 3:
        return "too few images", []
    at, how = _in_two(unit_length(np.stack([clean[split][row] for split, row in chosen])))
    return how, [MapPoint(x, y, split, row) for (split, row), (x, y) in zip(chosen, at.tolist(), strict=True)]


def clean_features(store: Any) -> dict[str, FloatArray]:
    """Features of the clean view of every image by split, of several pieces the last, [n, d]."""
    return {split: store.features(split, views=0, pieces="last")[:, 0].astype(np.float32) for split in SPLITS}


def unit_length(x: FloatArray) -> FloatArray:
    """Rows [n, d] of length 1; rows without direction are zeros."""
    x = np.nan_to_num(x)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))


def _in_two(x: FloatArray) -> tuple[NDArray[Any], str]:
    try:
        from umap import UMAP
    except ImportError:
        from sklearn.decomposition import PCA

        model = PCA(2, random_state=0)
        at = model.fit_transform(x)
        share = model.explained_variance_ratio_.sum()
        return at, f"the first two principal components, {share:.0%} of the variance"
    return np.asarray(UMAP(random_state=0).fit_transform(x)), "UMAP, where only nearness means something"


def chart(store: Any, by: str) -> Any:
    """The map as an Altair chart, coloured by `class`, `domain` or `split`; raises `UsageError` for another word."""
    plots.needed("altair", "plot()")  # before the features are read
    if by not in ("class", "domain", "split"):
        raise UsageError(f"a map is not coloured by {by!r}", where="by", remedy="use class, domain or split")
    how, found = feature_map(store)
    labels, domains, paths = ({s: get(s) for s in SPLITS} for get in (store.labels, store.domains, store.paths))
    rows = [
        {"x": x, "y": y, "class": store.class_names[int(labels[s][r])], "image": paths[s][r], "split": s}
        | {"domain": store.domain_names[int(domains[s][r])] if len(store.domain_names) > 1 else ""}
        for x, y, s, r in sorted(found, key=lambda point: int(labels[point.split][point.row]))
    ]
    return plots.chart(rows, f"map of the features: {how}", "point", "x:Q", "y:Q", f"{by}:N")
