"""A folder of small pictures whose classes are patterns, and backbones that were adapted on it."""

import numpy as np
import pytest
from commands import tosca
from PIL import Image

CLASSES = ("checks", "columns", "dots", "rows", "slope", "spot")
TRAIN, TEST = 8, 3
# Two classes first, of seed 1; a few steps that change something.
STREAM = ("--increment", 2, "--seed", 1)
QUICK = ("--epochs", 3, "--batch-size", 4, "--lr", 0.05, "--scale", 10, "--workers", 1)


def draw(generator, name):
    y, x = np.mgrid[:32, :32]
    pattern = {
        "checks": (x // 4 + y // 4) % 2,
        "columns": x // 4 % 2,
        "rows": y // 4 % 2,
        "slope": x / 31,
        "dots": (x % 8 < 3) & (y % 8 < 3),
        "spot": (x - 16) ** 2 + (y - 16) ** 2 < 64,
    }[name]
    pixels = 60 + 120 * np.stack([pattern] * 3, -1) + generator.normal(scale=25, size=(32, 32, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def patterns(tmp_path_factory):
    """The folder."""
    root, generator = tmp_path_factory.mktemp("pictures") / "patterns", np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("test", TEST)):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                draw(generator, name).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def adapt(patterns):
    """Adapts vit_nano on the first task of the patterns: (out, further words) -> the new folder, or what was said."""

    def run(out, *words, dataset=patterns, fails=False):
        asked = ("adapt", "--dataset", dataset, "--backbone", "vit_nano", "--out", out, *STREAM, *QUICK, *words)
        result = tosca(*asked)
        assert bool(result.exit_code) == fails, result.output
        return result if fails else out / result.stdout.strip().rpartition("/")[2]

    return run


@pytest.fixture(scope="session")
def adapted(adapt, tmp_path_factory):
    """A backbone with adapters."""
    return adapt(tmp_path_factory.mktemp("adapted"))


@pytest.fixture(scope="session")
def stores(patterns, adapted, tmp_path_factory):
    """A root with the frozen store of the patterns, the adapted one, and the one of both side by side."""
    root = tmp_path_factory.mktemp("stores")
    asked = ("extract", "--dataset", patterns, "--root", root, "--views", 1, "--store-dtype", "float32")
    tosca(*asked, "--backbone", "vit_nano", code=0)
    tosca(*asked, "--backbone", adapted, code=0)
    tosca(*asked, "--backbone", adapted, "--with-base", code=0)
    return root
