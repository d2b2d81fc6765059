"""Small pictures in folders, for tests of what can be odd about those."""

import numpy as np
from PIL import Image


def make_image(path, seed=0, size=(12, 10)):
    """Writes a picture of random pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def make_splits(folder, classes=("a", "b"), count=2):
    """Writes `count` different pictures a class into train and into test."""
    for number, split in enumerate(("train", "test")):
        for label, name in enumerate(classes):
            for image in range(count):
                make_image(folder / split / name / f"{image}.png", 1000 * number + 100 * label + image)
    return folder
