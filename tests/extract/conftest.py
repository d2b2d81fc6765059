"""A tiny vision transformer of timm with random weights, and small folders of pictures."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from disk_waits import without_waiting
from photos import make_image

from tosca_cache.datasets import load_dataset
from tosca_cache.extract.backbone import load_backbone
from tosca_cache.extract.pipeline import Extraction

TINY = "test_vit"  # 64 wide, 160 pixels, patches of 16


@pytest.fixture(scope="module", autouse=True)
def small_shards():
    """Shards of 4 rows, so that a small dataset has several; and nothing waits for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        without_waiting(patch)
        patch.setattr("tosca_cache.store.layout.SHARD_ROWS", 4)
        yield


@pytest.fixture(scope="session")
def tiny(tiny_weights):
    """The tiny backbone at 32 pixels, in float32."""
    return load_backbone(TINY, weights=tiny_weights, img_size=32, precision="fp32")


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory):
    """Pictures of 3 classes, 5 of train and 3 of test each; never changed."""
    root, random = tmp_path_factory.mktemp("pictures") / "shapes", np.random.default_rng(0)
    for split, count in (("train", 5), ("test", 3)):
        for number in range(3 * count):
            path = root / split / f"class {number % 3}" / f"{number // 3:03d}.png"
            make_image(path, [count, number], random.integers(30, 60, 2))
    return root


@pytest.fixture
def shapes(shapes_folder, tmp_path):
    """The dataset of a copy of them."""
    return load_dataset(str(shutil.copytree(shapes_folder, tmp_path / "shapes")))


def quietly(dataset, backbone, root, options, **source):
    """The store."""
    return Extraction(dataset, backbone, root, options, source).run(show_progress=False)


def watched(dataset):
    """The dataset, and the paths of the images that are opened."""
    opened = []

    def opener(split, row):
        opened.append(dataset.splits[split].paths[row])
        return dataset.opener(split, row)

    return replace(dataset, opener=opener), opened


def breaking(dataset, after):
    """The dataset, but Ctrl-C comes when its image number `after` is opened."""
    left = iter(range(after))

    def opener(split, row):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return dataset.opener(split, row)

    return replace(dataset, opener=opener)
