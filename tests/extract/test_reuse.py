"""Reuse: a store takes from a finished one what that has, computes the rest, and is what one from scratch would be."""

import os
import shutil
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from extract.conftest import breaking, quietly, watched
from photos import make_image
from PIL import Image
from trees import tree

from tosca_cache.datasets import load_dataset
from tosca_cache.errors import DatasetError, StoreError, ToscaWarning
from tosca_cache.extract.fingerprint import ExtractOptions
from tosca_cache.extract.pipeline import Extraction
from tosca_cache.extract.request import extract_part
from tosca_cache.extract.reuse import deviations
from tosca_cache.store import Part, list_stores
from tosca_cache.store.layout import object_key

OPTIONS = ExtractOptions(views=5, test_views=1, store_dtype="float32", batch_size=8, workers=1)
FEW = replace(OPTIONS, views=2, test_views=0)
ALL_OF_FEW = (24, 15 * 3 + 9)  # rows and views
BATCHES = 1e-5  # relative deviation of float32 features in batches of other sizes; docs/growing.md
TRIED = 8  # images that a source is tried on
LONG_AGO, LATER = (1e9, 1e9), (time.time() + 3600,) * 2  # than any source, however coarse the times of a file system


@pytest.fixture(scope="module")
def made(shapes_folder, tiny, tmp_path_factory):
    """Stores of the pictures: with 2 views, and what is to come out, 5 views and 1 of test; never written to."""
    dataset, root = load_dataset(str(shapes_folder)), tmp_path_factory.mktemp("made")
    return [make(dataset, tiny, root / str(options.views), options) for options in (FEW, OPTIONS)]


@pytest.fixture
def old(shapes):
    """The dataset, whose pictures have lain there for a while."""
    for path in Path(shapes.root).rglob("*.png"):
        os.utime(path, LONG_AGO)
    return shapes


@pytest.fixture
def cache(made, tmp_path):
    """A root with the store that has 2 views."""
    return shutil.copytree(made[0].path.parent, tmp_path / "cache")


def draw(path, size=(50, 40), seed=5):
    """A picture under this path, as old as the others."""
    os.utime(make_image(path, seed, size), LONG_AGO)


def make(dataset, backbone, root, options=OPTIONS):
    """The store, and no warning on the way."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ToscaWarning)
        return quietly(dataset, backbone, root, options)


def assert_same(grown, scratch):
    """The same fingerprint, rows, labels and views; nearly the same features."""
    for name in ("spec", "class_names", "domain_names"):
        assert getattr(grown, name) == getattr(scratch, name)
    for split in ("train", "test"):
        assert grown.paths(split) == scratch.paths(split)
        for array in ("labels", "domains", "view_parameters"):
            assert np.array_equal(getattr(grown, array)(split), getattr(scratch, array)(split))
        assert deviations(grown.features(split), scratch.features(split)).max(initial=0) <= BATCHES


def reused(store):
    """(rows, views) that were taken from another store."""
    return [(entry["rows"], entry["views"]) for entry in store.provenance.get("reused", [])]


def source_of(dataset, backbone, root):
    """The fingerprint of the store that something is taken from."""
    with Extraction(dataset, backbone, root, OPTIONS).open_writer() as writer:
        return writer.numerics.get("reused")


def test_more_views_or_fewer(old, tiny, made, cache, tmp_path):
    few, scratch = made
    dataset, opened = watched(old)
    grown = make(dataset, tiny, cache)
    assert_same(grown, scratch)
    assert np.array_equal(grown.features("train", views=slice(0, 3)), few.features("train"))
    assert len(opened) == 15 + 9 + TRIED, "each image once, and more for trying the source"
    entry = {"store": few.spec.digest(), "rows": 24, "views": 15 * 3 + 9}
    assert grown.provenance["reused"] == [entry] and grown.manifest.plan.numerics["reused"] == [entry["store"]]
    opened.clear()
    less = make(dataset, tiny, shutil.copytree(scratch.path.parent, tmp_path / "all"), FEW)
    assert len(opened) == TRIED, "fewer views need no image"
    assert np.array_equal(less.features("train"), scratch.features("train", views=[0, 1, 2]))
    assert_same(less, few)
    embedded = make(replace(old, root=None), tiny, shutil.copytree(few.path.parent, tmp_path / "embedded"))
    assert reused(embedded) == [ALL_OF_FEW], "whose images are no files that could change"
    alone = make(old, tiny, shutil.copytree(few.path.parent, tmp_path / "alone"), replace(OPTIONS, reuse=False))
    assert reused(alone) == [] and np.array_equal(alone.features("train"), scratch.features("train"))


def test_new_classes_shift_the_labels_and_old_ones_go(old, tiny, tmp_path):
    make(old, tiny, tmp_path / "cache")
    for split, number in (("train", 0), ("train", 1), ("test", 0)):
        draw(Path(old.root, split, "a new class", f"{number}.png"), seed=number)
        draw(Path(old.root, split, "class 1", f"new {number}.png"), seed=number)
        shutil.rmtree(Path(old.root, split, "class 0"), ignore_errors=True)
    dataset, opened = watched(load_dataset(old.root))
    grown = make(dataset, tiny, tmp_path / "cache")
    assert grown.class_names == ("a new class", "class 1", "class 2")
    assert reused(grown) == [(16, 10 * 6 + 6 * 2)]
    assert sum("new" in path for path in opened) == 6 and len(opened) == 6 + TRIED
    assert_same(grown, make(load_dataset(old.root), tiny, tmp_path / "scratch"))


def test_of_several_the_one_that_gives_the_most(old, tiny, made, cache):
    make(old, tiny, cache, replace(OPTIONS, views=1))
    assert make(old, tiny, cache).manifest.plan.numerics["reused"] == [made[0].spec.digest()]
    assert reused(make(old, tiny, cache, replace(OPTIONS, views=6))) == [(24, 15 * 6 + 9 * 2)]


def test_another_backbone_transform_precision_dtype_seed_or_device_gives_nothing(
    old, tiny, made, tmp_path, monkeypatch
):
    one, root = replace(FEW, views=0), tmp_path / "others"
    for backbone in (replace(tiny, weights_digest="0" * 64), replace(tiny, precision="bf16")):
        make(old, backbone, root, one)
    for change in ({"store_dtype": "float16"}, {"normalise": False}, {"seed": 7}):
        make(old, tiny, root, replace(one, **change))
    with monkeypatch.context() as patch:
        facts = {"batch_size": 8, "torch": "2", "device": "NVIDIA H200"}
        patch.setattr("tosca_cache.extract.pipeline.numerics", lambda *args: dict(facts))
        make(old, tiny, root, one)
    assert len(list_stores(root)) == 6 and source_of(old, tiny, root) is None
    make(old, tiny, tmp_path / "batch", replace(FEW, batch_size=24))  # changes the last bits only, and is no hindrance
    grown = make(old, tiny, tmp_path / "batch")
    assert reused(grown) == [ALL_OF_FEW]
    assert_same(grown, made[1])


def test_a_source_that_does_not_agree_on_trial_gives_nothing(old, tiny, tmp_path):
    """Other pictures in a folder of the same name."""
    elsewhere = shutil.copytree(old.root, tmp_path / "elsewhere" / "shapes")
    for number, path in enumerate(sorted(elsewhere.rglob("*.png"))):
        draw(path, Image.open(path).size, seed=100 + number)
    make(load_dataset(str(elsewhere)), tiny, tmp_path / "pictures", FEW)
    with pytest.warns(ToscaWarning, match="nothing is taken from shapes--.*8 images that were tried, 8 have other"):
        assert source_of(old, tiny, tmp_path / "pictures") is None


def test_images_that_are_newer_or_larger_than_when_the_source_was_made_or_unreadable(
    old, tiny, cache, tmp_path, monkeypatch
):
    path, other = (Path(old.root, "train/class 1", name) for name in ("002.png", "001.png"))
    with monkeypatch.context() as patch:
        patch.setattr("tosca_cache.extract.pipeline.source_agrees", lambda *args: True)  # a trial that does not notice
        draw(path, (200, 100))
        with pytest.raises(DatasetError, match="another size") as refused:
            make(old, tiny, cache)
        assert refused.value.where == str(path) and "touch" in refused.value.remedy
    os.utime(path, LATER)
    other.write_bytes(b"")
    os.utime(other, LONG_AGO)
    skipping = replace(OPTIONS, on_error="skip")
    grown = make(old, tiny, cache, skipping)
    assert grown.rows("train") == 14 and reused(grown) == [(22, 13 * 3 + 9)], "with views missing, none of it is there"
    assert_same(grown, make(old, tiny, tmp_path / "scratch", skipping))
    shutil.rmtree(grown.path)
    for path in Path(old.root).rglob("*.png"):
        os.utime(path, LATER)
    assert source_of(old, tiny, cache) is None


@pytest.mark.parametrize("array", ["features", "views", "paths", "gone"])
def test_a_damaged_source_is_said_with_what_to_do(old, tiny, made, cache, array):
    name = made[0].path.name
    file = cache / name / object_key("train", "labels" if array == "gone" else array, 1)
    data = bytearray(file.read_bytes())
    data[len(data) // 4] ^= 1
    file.unlink() if array == "gone" else file.write_bytes(data)
    with pytest.raises(StoreError, match="damaged") as said:
        make(old, tiny, cache)
    assert f"{name} --repair" in said.value.remedy and "remove it" in said.value.remedy
    shutil.rmtree(cache / name)
    shutil.copytree(made[0].path, cache / name)
    assert reused(make(old, tiny, cache)) == [ALL_OF_FEW], "mended, the same command goes on"


def interrupted(dataset, backbone, root, after=7):
    """The unfinished store that Ctrl-C leaves."""
    with pytest.raises(KeyboardInterrupt):
        make(breaking(dataset, after + TRIED), backbone, root)
    (state,) = [store for store in list_stores(root) if store.state == "unfinished"]
    assert 0 < state.done_rows < 24
    return state


def test_gone_on_with_the_end_is_the_same_alone_or_in_parts(old, tiny, cache, tmp_path, capsys):
    again, parts = (Extraction(old, tiny, shutil.copytree(cache, tmp_path / name), OPTIONS) for name in ("a", "b"))
    whole = make(old, tiny, cache)
    for after in (6, 1):
        interrupted(old, tiny, again.root, after)
    make(old, tiny, again.root, replace(OPTIONS, views=4))  # appears later, and is not asked
    for part in ("1/5", "2/3", "1/3", "3/3"):
        extract_part(replace(parts), Part.parse(part))  # each like a process of its own
    assert ": 12 views; left to compute: 12 views" in capsys.readouterr().err
    for store in (make(old, tiny, again.root), replace(parts).run(show_progress=False)):
        assert tree(store.path) == tree(whole.path)
        assert store.provenance["reused"] == whole.provenance["reused"]


def test_the_source_goes_before_all_is_taken(old, tiny, made, cache, capsys):
    (source,), state = list_stores(cache), interrupted(old, tiny, cache)
    shutil.rmtree(source.path)
    grown = Extraction(old, tiny, cache, OPTIONS).run()
    assert f"the store {source.spec.digest()[:10]}, from which some were taken" in capsys.readouterr().err
    assert_same(grown, made[1])
    taken = {"store": source.spec.digest(), "rows": state.done_rows, "views": state.done_rows * 3}
    assert grown.provenance["reused"] == [taken]
