"""Lessons of synthetic classes for models, and photos of noisy colours."""

import numpy as np
from PIL import Image

from tosca_cache.model.records import Lesson
from tosca_cache.model.teaching import row_digests

DIM, SETTINGS = 12, {"epochs": 2, "batch_size": 8, "mlp_ratio": 2, "se_ratio": 2}
MEANS = 2 * np.random.default_rng(5).normal(size=(8, DIM))

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (40, 40, 200), "yellow": (220, 210, 40)}
COLOURS["grey"] = (128,) * 3


def paint(folder, colours, count=8, seed=0, size=(40, 40), noise=25, prefix="photo-"):
    """Writes photos of noisy colours, a folder each; returns the folder."""
    generator = np.random.default_rng(seed)
    for name in colours:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = np.clip(np.array(COLOURS[name]) + generator.normal(0, noise, (*size, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{prefix}{number}.png")
    return folder


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
