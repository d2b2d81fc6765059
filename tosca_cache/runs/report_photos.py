"""What a report adds to a run where its store is at hand: reference curves, photos of confused pairs, unlikely labels."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tosca_cache.closed_form.pool import OpinionPool
from tosca_cache.config import resolve
from tosca_cache.evaluate.summary import to_json
from tosca_cache.extract.recompute import Thumbnails
from tosca_cache.feature_map import unit_length
from tosca_cache.learners.tosca import Tosca
from tosca_cache.runs.experiment import make_stream, pool_accuracies
from tosca_cache.runs.report_facts import confused_rows, read_predictions
from tosca_cache.runs.route import Stored, stored_seeds
from tosca_cache.runs.store_facts import map_facts
from tosca_cache.store import SPLITS, Store
from tosca_cache.tasks import Rows, load_splits, memory_for_features

FOLDS = 5
MOST_PAIRS, PHOTOS_A_PAIR, MOST_SUSPECTS = 12, 4, 100
UNLIKELY = 0.1  # probability of its own label below which a train photo is shown
FloatArray = NDArray[np.float64]


def reference_curves(run: Path, store: Store) -> dict[str, Any]:
    """Accuracy after each task of the class means, the pool, and (of TOSCA) the true task's module; mean and spread."""
    config = resolve(config=run / "config.toml").config
    splits = load_splits(store, config.incremental, most=memory_for_features())
    found: dict[str, list[list[float]]] = {}
    for seed in config.seeds:
        stream = make_stream(config, splits, store.class_names, seed, store.domain_names)
        pool, tests, curves = OpinionPool(), list[Rows](), []
        for task in stream:
            pool.fit(task)
            tests.append(stream.test(task.number))
            curves.append(pool_accuracies(pool, stream, tests))
        for name in ("nearest_class_mean", "pool"):
            found.setdefault(name, []).append([curve[name] for curve in curves])
    if config.method == Tosca.name:
        found["oracle"] = [_oracle(stored) for stored in stored_seeds(run, store.path)]
    return to_json(
        {
            name: {
                "mean": np.mean(curves, axis=0),
                "spread": np.std(curves, axis=0, ddof=1) if len(curves) > 1 else None,
            }
            for name, curves in found.items()
        }
    )


def _oracle(stored: Stored) -> list[float]:
    """Accuracy of the true task's module after each task: a class's prototype stays as it is once its task is learned."""
    tasks = stored.outputs.task_classes
    curve = []
    logits = [stored.outputs.logits(t)[torch.from_numpy(stored.tasks == t)] for t in range(len(tasks))]
    for t, block in enumerate(tasks):
        right = [
            (stored.reported(one[:, : block.stop].argmax(1)) == stored.labels[stored.tasks == m])
            for m, one in enumerate(logits[: t + 1])
        ]
        curve.append(100 * float(np.concatenate(right).mean()))
    return curve


def task_map(metrics: Mapping[str, Any], store: Store) -> dict[str, Any] | None:
    """`map_facts` of the store, and the task (from 0) of each point in the run's first seed; None if it is not recorded.

    Keys besides: seed, task_of.
    """
    seed, first = next(iter(metrics["seeds"].items()))
    of_domains = bool(first.get("domains"))
    tasks = [[name] for name in first["domains"]] if of_domains else first.get("tasks") or []
    names = store.domain_names if of_domains else store.class_names
    task_of = {name: t for t, group in enumerate(tasks) for name in group}
    if len(task_of) != len(names) or not task_of.keys() >= set(names):
        return None  # names that occur twice, or another store
    facts, found = map_facts(store, None)
    values = {split: store.domains(split) if of_domains else store.labels(split) for split in SPLITS}
    return facts | {"seed": seed, "task_of": [task_of[names[int(values[p.split][p.row])]] for p in found]}


def run_photos(run: Path, store: Store, images: Thumbnails | None, seeds: Sequence[str]) -> dict[str, Any]:
    """confused: photos of the most confused pairs of all seeds, each with the nearest train photo of the wrong class;
    suspects: train photos whose own label is unlikely. Photos themselves are in `images`."""
    found = [p for seed in seeds if (p := read_predictions(run / f"seed-{seed}" / "predictions.npz")) is not None]
    pairs = [] if images is None else confused_rows(found)[:MOST_PAIRS]
    confused = [_pair(store, images, c, other, rows) for (c, other), rows in pairs if images is not None]
    return {"confused": confused, "suspects": unlikely_labels(store, images)}


def _pair(store: Store, images: Thumbnails, c: int, other: int, counts: Counter[int]) -> dict[str, Any]:
    test, train = store.paths("test"), store.paths("train")
    rows = np.sort(sorted(counts, key=lambda row: (-counts[row], row))[:PHOTOS_A_PAIR])
    others, near = np.flatnonzero(store.labels("train") == other), None
    if len(others):
        asked, there = (unit_length(_clean(store, *which)) for which in (("test", rows), ("train", others)))
        near = (asked @ there.T).argmax(1)
    photos = []
    for n, r in enumerate(rows.tolist()):
        photos.append({"key": images.add("test", r), "caption": f"test: {test[r]}"})
        if near is not None:
            nearest = int(others[near[n]])
            caption = f"nearest of {store.class_names[other]}: {train[nearest]}"
            photos.append({"key": images.add("train", nearest), "caption": caption})
    return {"true": store.class_names[c], "answered": store.class_names[other], "photos": photos}


def _clean(store: Store, split: str, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
    """Features of the clean view of some rows (rising), or of all, [n, d]."""
    return store.features(split, rows=rows, views=0, pieces="last")[:, 0].astype(np.float32)


def unlikely_labels(store: Store, images: Thumbnails | None) -> list[dict[str, Any]]:
    """Train photos whose own label has a probability below `UNLIKELY` by an LDA fitted on the other folds, worst first."""
    probability = held_out_probabilities(store)
    if probability is None:
        return []
    labels, paths = store.labels("train"), store.paths("train")
    own = probability[np.arange(len(labels)), labels]
    worst = np.argsort(own, kind="stable")[:MOST_SUSPECTS]
    found = []
    for row in worst[own[worst] < UNLIKELY].tolist():
        instead = int(probability[row].argmax())
        key = images.add("train", row) if images is not None else None
        found.append(
            {
                "path": paths[row],
                "label": store.class_names[int(labels[row])],
                "probability": float(own[row]),
                "instead": store.class_names[instead],
                "key": key,
            }
        )
    return found


def held_out_probabilities(store: Store) -> FloatArray | None:
    """Probability of every class for every train row, [n, C], by an LDA fitted without the row's fold; None if too few."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    labels = store.labels("train")
    x = _clean(store, "train").astype(np.float64)
    kept = np.isfinite(x).all(1)
    classes, counts = np.unique(labels[kept], return_counts=True)
    if len(classes) < 2 or counts.max() < FOLDS:
        return None
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes with fewer rows than folds
        found = cross_val_predict(lda, x[kept], labels[kept], cv=folds, method="predict_log_proba")
    scores = np.full((len(labels), len(store.class_names)), -np.inf)
    scores[np.ix_(kept, classes)] = np.where(found > np.finfo(found.dtype).min, found, -np.inf)
    return _calibrated(scores, labels)


def _calibrated(scores: FloatArray, labels: NDArray[np.int64]) -> FloatArray:
    """Probabilities of log-probabilities [n, C] that are too sure, at the temperature of greatest likelihood.

    Rows whose class nobody has scored (the fold held all of its rows) are left alone: their own probability is 1.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    own = np.isfinite(scores[np.arange(len(labels)), labels])
    known, targets = scores[own], labels[own, None]

    def surprise(octave: float) -> float:
        return -float(np.take_along_axis(log_softmax(known / 2**octave, axis=1), targets, 1).sum())

    found = np.ones_like(scores)
    found[own] = np.exp(log_softmax(known / 2 ** minimize_scalar(surprise, bounds=(-1, 8)).x, axis=1))
    return found
