"""Lessons of synthetic classes for models."""

import numpy as np

from tosca_cache.model.records import Lesson
from tosca_cache.model.teaching import row_digests

DIM, SETTINGS = 12, {"epochs": 2, "batch_size": 8, "mlp_ratio": 2, "se_ratio": 2}
MEANS = 2 * np.random.default_rng(5).normal(size=(8, DIM))


def rows(classes, count=10, views=2, seed=0):
    """Features [n, 1+views, d] of some classes and the class of each row."""
    generator = np.random.default_rng([seed, *classes])
    labels = np.repeat(list(classes), count)
    noise = generator.normal(size=(len(labels), 1 + views, DIM))
    return (MEANS[labels][:, None] + 0.6 * noise).astype(np.float32), [f"class {label}" for label in labels]


def lesson(classes, count=10, views=2, seed=0):
    features, names = rows(classes, count, views, seed)
    return Lesson(features, names, row_digests(features[:, 0]))


def together(*lessons):
    """One lesson of the rows of several."""
    return Lesson(
        np.concatenate([one.features for one in lessons]),
        [name for one in lessons for name in one.names],
        np.concatenate([one.digests for one in lessons]),
    )
