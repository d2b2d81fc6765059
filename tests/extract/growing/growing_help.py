"""What the tests of growing share: pictures under paths, making stores, and comparing them."""

import os
import warnings
from pathlib import Path

import numpy as np
from disk_waits import without_waiting
from PIL import Image

from tosca_cache.errors import ToscaWarning
from tosca_cache.extract.options import ExtractOptions
from tosca_cache.extract.pipeline import extract
from tosca_cache.extract.probe import deviations

OPTIONS = ExtractOptions(views=5, test_views=1, store_dtype="float32", batch_size=8, workers=1)
FEW = ExtractOptions(views=2, test_views=0, store_dtype="float32", batch_size=8, workers=1)
TOLERANCE = 1e-5  # relative, of float32 features in batches of other sizes; docs/growing.md
TRIED = 8  # images that a source is tried on


def small_and_quick(monkeypatch):
    """Shards of 5 rows, 3 of train and 2 of test; no waiting for the disk, and no measuring of other sizes of batches."""
    without_waiting(monkeypatch)
    monkeypatch.setattr("tosca_cache.extract.pipeline.batch_deviation", lambda *args: None)
    monkeypatch.setattr("tosca_cache.store.layout.SHARD_ROWS", 5)


def aged(dataset):
    """The dataset, whose pictures have lain there for a while."""
    for path in Path(dataset.root).rglob("*.png"):
        os.utime(path, (1e9, 1e9))
    return dataset


def draw(path, size=(40, 50), seed=5):
    """A picture under this path, as old as the others."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    os.utime(path, (1e9, 1e9))


def make(dataset, backbone, root, options=OPTIONS):
    """The store, and no warning on the way."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ToscaWarning)
        return extract(dataset, backbone, root, options, show_progress=False)


def contents(store):
    """Every file of a store but its provenance."""
    found = (path for path in store.path.rglob("*") if path.is_file() and path.name != "provenance.json")
    return {path.relative_to(store.path): path.read_bytes() for path in found}


def assert_same(grown, scratch):
    """The same fingerprint, rows, labels and views; features within the tolerance."""
    assert (grown.spec, grown.class_names, grown.domain_names) == (
        scratch.spec,
        scratch.class_names,
        scratch.domain_names,
    )
    for split in ("train", "test"):
        assert grown.paths(split) == scratch.paths(split)
        for array in ("labels", "domains", "view_parameters"):
            assert np.array_equal(getattr(grown, array)(split), getattr(scratch, array)(split))
        assert deviations(grown.features(split), scratch.features(split)).max(initial=0) <= TOLERANCE


def reused(store):
    """(rows, views) from each store that something was taken from."""
    return [(entry["rows"], entry["views"]) for entry in store.provenance.get("reused", [])]
