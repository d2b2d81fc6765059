"""3 classes of small pictures that have lain there for a while, and stores of them that are made once."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from growing_help import FEW, OPTIONS, draw, make, small_and_quick

from tosca_cache.datasets import load_dataset
from tosca_cache.extract.backbone import Forward


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """See `growing_help.small_and_quick`."""
    small_and_quick(monkeypatch)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """3 classes of 5 train and 3 test images; never changed."""
    folder, random = tmp_path_factory.mktemp("pictures") / "shapes", np.random.default_rng(0)
    for split, images in (("train", 5), ("test", 3)):
        for number in range(3 * images):
            size = tuple(random.integers(30, 60, 2).tolist())
            draw(folder / split / f"class {number // images}" / f"{number % images:03d}.png", size, number + images)
    return folder


@pytest.fixture(scope="session")
def few(pictures, tiny, tmp_path_factory):
    """A store of them with 2 views; never written to."""
    with pytest.MonkeyPatch.context() as patch:
        small_and_quick(patch)
        return make(load_dataset(str(pictures)), tiny, tmp_path_factory.mktemp("few"), FEW)


@pytest.fixture(scope="session")
def scratch(pictures, tiny, tmp_path_factory):
    """What is to come out: 5 views, and 1 of test, computed from scratch."""
    with pytest.MonkeyPatch.context() as patch:
        small_and_quick(patch)
        return make(load_dataset(str(pictures)), tiny, tmp_path_factory.mktemp("scratch"), OPTIONS)


@pytest.fixture
def old(pictures, tmp_path):
    """The dataset of a copy of the pictures."""
    return load_dataset(str(shutil.copytree(pictures, tmp_path / "shapes")))


@pytest.fixture
def cache(few, tmp_path):
    """A root with a store that has 2 views."""
    shutil.copytree(few.path, tmp_path / "cache" / few.path.name)
    return tmp_path / "cache"


@pytest.fixture
def watched(monkeypatch):
    """Counts images that are opened and views that go through the backbone, without those of the error against float32."""
    seen = {"opened": [], "computed": 0}
    monkeypatch.setattr("tosca_cache.extract.pipeline.probe_pixels", lambda *args: torch.empty(0))
    forward = Forward.__call__

    def counting(self, pixels):
        seen["computed"] += len(pixels)
        return forward(self, pixels)

    def watch(dataset):
        seen["computed"] = 0

        def opener(split, row):
            seen["opened"].append(dataset.splits[split].paths[row])
            return dataset.opener(split, row)

        return replace(dataset, opener=opener), seen

    monkeypatch.setattr(Forward, "__call__", counting)
    return watch
