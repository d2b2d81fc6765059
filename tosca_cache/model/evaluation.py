"""A model against photos whose classes are known: accuracy, calibration, what is mistaken for what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import UsageError
from tosca_cache.model.classifier import Model
from tosca_cache.model.held_out import calibration_error
from tosca_cache.model.novelty import LIMIT

FloatArray = NDArray[np.floating[Any]]
WORST = 10


def evaluate_model(
    model: Model, features: FloatArray, names: Sequence[str], paths: Sequence[str], *, worst: int = WORST
) -> dict[str, Any]:
    """Accuracies (percent) on clean features [n, d] of photos whose classes are known, as plain JSON values.

    Photos of classes that the model does not know count for novelty alone. Keys: images, accuracy, mean_class_accuracy,
    calibration_error, unknown (images, found as novel in percent), false_alarms (percent), classes (name -> images,
    accuracy), confusions (true, answered, images), worst_photos (path, true, answered, probability of the true class).

    Raises `UsageError` if the model knows none of the classes.
    """
    place = {name: number for number, name in enumerate(model.class_names)}
    known = np.array([name in place for name in names], bool)
    if not known.any():
        raise UsageError(
            "the model knows none of the classes of these photos",
            where=paths[0] if paths else None,
            remedy="teach it these classes, or give photos of classes that it knows (classes.txt)",
        )
    probability, novelty = model.probabilities(features), model.novelty.of(features)
    targets = np.array([place.get(name, -1) for name in names])[known]
    answered, top = probability[known].argmax(1), probability[known].max(1)
    right = answered == targets
    true = probability[known][np.arange(len(targets)), targets]
    strange = novelty > LIMIT
    classes = {
        model.class_names[c]: {"images": int((targets == c).sum()), "accuracy": 100 * float(right[targets == c].mean())}
        for c in np.unique(targets)
    }
    order = np.argsort(true, kind="stable")[:worst]
    return {
        "images": len(targets),
        "accuracy": 100 * float(right.mean()),
        "mean_class_accuracy": float(np.mean([one["accuracy"] for one in classes.values()])),
        "calibration_error": calibration_error(top, right),
        "false_alarms": 100 * float(strange[known].mean()),
        "unknown": {
            "images": int((~known).sum()),
            "found": 100 * float(strange[~known].mean()) if (~known).any() else None,
        },
        "classes": classes,
        "confusions": _confusions(model.class_names, targets[~right], answered[~right]),
        "worst_photos": [
            [paths[row], names[row], model.class_names[answered[i]], float(true[i])]
            for row, i in zip(np.flatnonzero(known)[order].tolist(), order.tolist(), strict=True)
        ],
    }


def _confusions(names: Sequence[str], true: NDArray[np.int64], answered: NDArray[np.int64]) -> list[list[Any]]:
    pairs, counts = np.unique(np.stack([true, answered], 1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [[names[pairs[i][0]], names[pairs[i][1]], int(counts[i])] for i in order]
