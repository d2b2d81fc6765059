"""Small pictures of noise: alone, in folders, as a backbone takes them, and around a colour that a class is told by."""

import io

import numpy as np
from PIL import Image

COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 60, 200), "yellow": (220, 210, 40)}
COLOURS |= {"cyan": (40, 200, 210), "grey": (128, 128, 128)}


def photo(colour, seed, kind="PNG", size=48, noise=30):
    """The bytes of an image file; colour: a name or RGB; size: of a side, or (height, width)."""
    shape = (size, size, 3) if isinstance(size, int) else (*size, 3)
    pixels = np.array(COLOURS.get(colour, colour)) + np.random.default_rng(seed).normal(0, noise, shape)
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, kind)
    return file.getvalue()


def pixels(count, size, seed=0):
    """Images of noise as a backbone takes them: uint8 [n, size, size, 3]."""
    import torch

    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def paint(folder, names, count=8, seed=0, prefix="", **how):
    """Writes photos, a folder for each colour; returns the folder."""
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            path = folder / name / f"{prefix}{number}.png"
            path.write_bytes(photo(name, [seed, number], **how))
    return folder


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
