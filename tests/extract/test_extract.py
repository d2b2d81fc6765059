"""Stage one as a whole: what the store holds is what the images give, whatever happened on the way."""

import copy
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from extract.conftest import breaking, quietly, shards_of
from trees import tree

from tosca_cache.datasets import load_dataset
from tosca_cache.datasets.transforms import View, render
from tosca_cache.errors import DatasetError, ImageError, StoreError
from tosca_cache.extract import engine
from tosca_cache.extract.backbone import Forward
from tosca_cache.extract.fingerprint import ExtractOptions
from tosca_cache.extract.pipeline import Extraction
from tosca_cache.store import Shard, list_stores, open_store

FLOAT32 = ExtractOptions(views=3, store_dtype="float32", batch_size=8, workers=2)


def test_a_store_has_labels_paths_domains_and_opens_each_image_once(shapes, shapes_folder, tiny, tmp_path):
    opened, lock, before = [], threading.Lock(), torch.get_num_threads()

    def opener(split, row):
        with lock:
            opened.append((split, row))
        return shapes.opener(split, row)

    store = quietly(replace(shapes, opener=opener), tiny, tmp_path / "cache", replace(FLOAT32, test_views=2))
    assert len(opened) == len(set(opened)) == 24 and torch.get_num_threads() == before
    assert store.path.parent == tmp_path / "cache" and store.spec.precision == "fp32"
    assert store.features("train").shape == (15, 4, 64) and store.features("test").shape == (9, 3, 64)
    for split in ("train", "test"):
        assert store.paths(split) == shapes.splits[split].paths
        assert np.array_equal(store.labels(split), shapes.splits[split].labels)
        assert (store.view_parameters(split)[:, 1:, 0] > 0).all()
    assert store.class_names == ("class 0", "class 1", "class 2")
    for domain in ("photo", "sketch"):
        shutil.copytree(shapes_folder, tmp_path / "pets" / domain)
    store = quietly(load_dataset(str(tmp_path / "pets")), tiny, tmp_path / "cache", replace(FLOAT32, views=0))
    assert store.domain_names == ("photo", "sketch") and store.features("train").shape == (30, 1, 64)
    assert np.bincount(store.domains("train")).tolist() == [15, 15]


def test_clean_features_are_those_of_one_plain_pass_and_views_those_of_their_record(shapes, tiny, tmp_path):
    from torchvision.transforms import v2

    resized = (v2.Resize(36, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(32))
    scaled = (v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(tiny.mean, tiny.std))
    plain, store = v2.Compose([*resized, *scaled]), quietly(shapes, tiny, tmp_path, FLOAT32)
    for split in ("train", "test"):
        images = torch.stack([plain(shapes.open(split, row)) for row in range(len(shapes.splits[split]))])
        with torch.inference_mode():
            expected = tiny.model(images).numpy()
        np.testing.assert_allclose(store.features(split, views=0)[:, 0], expected, rtol=1e-5, atol=1e-5)
    transform, parameters = tiny.transform(), store.view_parameters("train")
    forward = tiny.forward(transform)
    for row, view in ((0, 1), (7, 3), (14, 2)):
        pixels = render(transform, shapes.open("train", row), View(*parameters[row, view].tolist()))
        alone = forward(torch.from_numpy(pixels.copy())[None])[0].numpy()
        np.testing.assert_allclose(store.features("train")[row, view], alone, rtol=1e-5, atol=1e-5)
    assert len(np.unique(parameters[:, 1:, 0])) == 15 * 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_workers_do_not_change_a_bit(shapes, tiny, tmp_path, precision):
    how = [(tmp_path / str(n), replace(FLOAT32, workers=n)) for n in (1, 2, 5)]
    found = [tree(quietly(shapes, replace(tiny, precision=precision), *one).path) for one in how]
    assert found[0] == found[1] == found[2]


def test_a_finished_store_is_opened_without_a_forward_pass_and_another_request_is_another(
    shapes, tiny, tmp_path, monkeypatch
):
    changes = ({}, {"views": 2}, {"seed": 1}, {"store_dtype": "float16"}, {"normalise": False}, {"test_views": 1})
    paths = [Extraction(shapes, tiny, tmp_path, replace(FLOAT32, **change)).path for change in changes]
    assert len(set(paths)) == len(changes)
    assert quietly(shapes, tiny, tmp_path, replace(FLOAT32, views=2)).path == paths[1]
    store = quietly(shapes, tiny, tmp_path, FLOAT32)
    first = tree(store.path)
    assert store.path == paths[0]
    monkeypatch.setattr(Forward, "__call__", lambda *args: pytest.fail("the backbone was run again"))
    for restart in (False, True):
        assert tree(quietly(shapes, tiny, tmp_path, replace(FLOAT32, restart=restart)).path) == first


@pytest.fixture(scope="session")
def whole(shapes_folder, tiny, tmp_path_factory):
    """What comes out in shards of 4 rows without an interruption."""
    with shards_of(4):
        return tree(quietly(load_dataset(str(shapes_folder)), tiny, tmp_path_factory.mktemp("whole"), FLOAT32).path)


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of 4 rows, so that a small dataset has several."""
    monkeypatch.setattr("tosca_cache.store.layout.SHARD_ROWS", 4)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("stops", [(0,), (9, 11), (5, 4, 6)])
def test_what_is_done_stays_and_the_end_is_the_same(whole, shapes, tiny, tmp_path, stops):
    done = []
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            quietly(breaking(shapes, stop), tiny, tmp_path / "broken", replace(FLOAT32, workers=1))
        (summary,) = list_stores(tmp_path / "broken")
        assert summary.state == "unfinished"
        done.append(summary.done_rows)
    assert done == sorted(done)
    rest = breaking(shapes, 24 - done[-1])  # opens no image of a shard that is done
    assert tree(quietly(rest, tiny, tmp_path / "broken", FLOAT32).path) == whole


@pytest.mark.usefixtures("small_shards")
def test_the_batch_size_is_kept_unless_another_is_asked_for(shapes, tiny, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        quietly(breaking(shapes, 12), tiny, tmp_path, FLOAT32)
    shutil.copytree(tmp_path, tmp_path / "copy")
    with pytest.raises(StoreError, match=r"numerics.batch_size: begun with 8, now 4"):
        quietly(shapes, tiny, tmp_path, replace(FLOAT32, batch_size=4))
    store = quietly(shapes, tiny, tmp_path, replace(FLOAT32, batch_size=None))
    assert store.manifest.plan.numerics["batch_size"] == 8
    store = quietly(shapes, tiny, tmp_path / "copy", replace(FLOAT32, batch_size=4, restart=True))
    assert store.manifest.plan.numerics["batch_size"] == 4


def test_images_that_cannot_be_read(shapes, tiny, tmp_path):
    """A truncated one in train, an empty one in test; then all of a class."""
    whole, skipping = quietly(shapes, tiny, tmp_path / "whole", FLOAT32), replace(FLOAT32, on_error="skip")
    for path, content in (("train/class 1/002.png", b"\x89PNG\r\n"), ("test/class 0/000.png", b"")):
        Path(shapes.root, path).write_bytes(content)
    with pytest.raises(ImageError, match=r"002\.png"):
        quietly(shapes, tiny, tmp_path / "failed", FLOAT32)
    assert [store.state for store in list_stores(tmp_path / "failed")] == ["unfinished"]
    store = quietly(shapes, tiny, tmp_path / "skipped", skipping)
    (skipped,) = store.manifest.skipped["train"]
    assert skipped.path == "train/class 1/002.png" and "not an image" in skipped.reason
    assert "empty" in store.manifest.skipped["test"][0].reason
    for split, rows in (("train", 14), ("test", 8)):
        kept = [row for row, path in enumerate(whole.paths(split)) if path in store.paths(split)]
        assert len(kept) == rows
        assert np.array_equal(store.features(split), whole.features(split, rows=np.array(kept)))
    for number in range(3):
        Path(shapes.root, f"test/class 2/{number:03d}.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="'class 2'"):
        quietly(shapes, tiny, tmp_path / "cache", skipping)


def test_what_16_bits_cost_is_recorded_and_what_they_cannot_hold_refused(shapes, tiny, tmp_path):
    store = quietly(shapes, replace(tiny, precision="bf16"), tmp_path, FLOAT32)
    assert 0 < store.provenance["relative_error_against_float32"] < 0.02
    assert open_store(store.path).spec.precision == "bf16"
    model = copy.deepcopy(tiny.model)
    model.norm.weight.data.mul_(1e6)
    with pytest.raises(StoreError, match="too large for float16") as raised:
        quietly(shapes, replace(tiny, model=model), tmp_path, replace(FLOAT32, store_dtype="float16"))
    assert "--store-dtype float32" in raised.value.remedy


def test_work_in_flight_is_bounded(shapes, tiny):
    """However many groups there are, and however slow the writer, only a few are begun and not yet collected."""
    buffer, begun, workers = engine.ShardBuffer.empty(Shard("train", 0, 0, 500), 1, 64), 0, 3
    buffer.missing[:] = False

    def groups():
        nonlocal begun
        for row in range(500):
            begun += 1
            yield engine.Group(buffer, row, row + 1)

    transform = tiny.transform()
    renderer = engine.Renderer(shapes, transform, 1)
    for collected, group in enumerate(engine.compute(groups(), renderer, tiny.forward(transform), workers)):
        assert group.start == collected and begun - collected <= workers * engine.AHEAD + 1
    assert begun == 500
