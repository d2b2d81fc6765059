"""Stage one as a whole: what the store holds is what the images give, whatever happened on the way and whoever made it."""

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from extract.conftest import breaking, quietly, watched
from trees import tree

from tosca_cache.datasets import load_dataset
from tosca_cache.datasets.transforms import View, render
from tosca_cache.errors import DatasetError, ImageError, StoreError
from tosca_cache.extract import engine
from tosca_cache.extract.backbone import Forward
from tosca_cache.extract.fingerprint import ExtractOptions
from tosca_cache.extract.pipeline import Extraction
from tosca_cache.extract.request import extract_part
from tosca_cache.store import Part, Shard, list_stores, open_store

FLOAT32 = ExtractOptions(views=3, store_dtype="float32", batch_size=8, workers=2)


@pytest.fixture(scope="module")
def whole(shapes_folder, tiny, tmp_path_factory):
    """What one process makes without an interruption: 4 train shards of 4 rows, and 3 test shards."""
    return quietly(load_dataset(str(shapes_folder)), tiny, tmp_path_factory.mktemp("whole"), FLOAT32)


def test_a_store_has_every_row_and_opens_each_image_once(shapes_folder, tiny, tmp_path):
    for domain in ("photo", "sketch"):
        shutil.copytree(shapes_folder, tmp_path / "pets" / domain)
    (dataset, opened), threads = watched(load_dataset(str(tmp_path / "pets"))), torch.get_num_threads()
    store = quietly(dataset, tiny, tmp_path / "cache", replace(FLOAT32, test_views=2))
    assert len(opened) == len(set(opened)) == 48 and torch.get_num_threads() == threads
    assert store.path.parent == tmp_path / "cache" and store.spec.precision == "fp32"
    assert store.features("train").shape == (30, 4, 64) and store.features("test").shape == (18, 3, 64)
    assert (store.class_names, store.domain_names) == (dataset.class_names, ("photo", "sketch"))
    for split, rows in dataset.splits.items():
        assert store.paths(split) == rows.paths
        assert np.array_equal(store.labels(split), rows.labels) and np.array_equal(store.domains(split), rows.domains)
        assert (store.view_parameters(split)[:, 1:, 0] > 0).all()


def test_clean_features_are_those_of_one_plain_pass_and_views_those_of_their_record(whole, shapes, tiny):
    from torchvision.transforms import v2

    resized = (v2.Resize(36, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(32))
    scaled = (v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(tiny.mean, tiny.std))
    plain, transform, parameters = v2.Compose([*resized, *scaled]), tiny.transform(), whole.view_parameters("train")
    for split in ("train", "test"):
        images = torch.stack([plain(shapes.open(split, row)) for row in range(len(shapes.splits[split]))])
        with torch.inference_mode():
            expected = tiny.model(images).numpy()
        np.testing.assert_allclose(whole.features(split, views=0)[:, 0], expected, rtol=1e-5, atol=1e-5)
    for row, view in ((0, 1), (7, 3), (14, 2)):
        pixels = render(transform, shapes.open("train", row), View(*parameters[row, view].tolist()))
        alone = tiny.forward(transform)(torch.from_numpy(pixels.copy())[None])[0].numpy()
        np.testing.assert_allclose(whole.features("train")[row, view], alone, rtol=1e-5, atol=1e-5)
    assert len(np.unique(parameters[:, 1:, 0])) == 15 * 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_workers_do_not_change_a_bit(shapes, tiny, tmp_path, precision):
    how = [(tmp_path / str(n), replace(FLOAT32, workers=n)) for n in (1, 2, 5)]
    found = [tree(quietly(shapes, replace(tiny, precision=precision), *one).path) for one in how]
    assert found[0] == found[1] == found[2]


def test_a_finished_store_is_opened_without_a_forward_pass_and_another_request_is_another(
    whole, shapes, tiny, monkeypatch
):
    changes = ({}, {"views": 2}, {"seed": 1}, {"store_dtype": "float16"}, {"normalise": False}, {"test_views": 1})
    root, files = whole.path.parent, tree(whole.path)
    paths = [Extraction(shapes, tiny, root, replace(FLOAT32, **change)).path for change in changes]
    assert len(set(paths)) == len(changes) and paths[0] == whole.path
    monkeypatch.setattr(Forward, "__call__", lambda *args: pytest.fail("the backbone was run again"))
    for restart in (False, True):
        assert tree(quietly(shapes, tiny, root, replace(FLOAT32, restart=restart)).path) == files


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
    assert tree(quietly(rest, tiny, tmp_path / "broken", FLOAT32).path) == tree(whole.path)


def test_a_finished_shard_is_not_made_again_by_parts_or_by_one_process(whole, shapes, tiny, tmp_path, monkeypatch):
    def make(extraction, *parts):
        for part in parts:
            extract_part(extraction, Part.parse(part), show_progress=False)

    parts = Extraction(shapes, tiny, tmp_path / "parts", replace(FLOAT32, workers=1))
    with pytest.raises(KeyboardInterrupt):
        make(replace(parts, dataset=breaking(shapes, 9)), "1/2")
    (begun,) = list_stores(parts.root)
    assert begun.done_rows == 8
    shutil.copytree(parts.root, tmp_path / "alone")  # gone on with by one process, which makes what is left alone
    assert tree(quietly(breaking(shapes, 24 - 8), tiny, tmp_path / "alone", FLOAT32).path) == tree(whole.path)
    make(
        replace(parts, options=replace(FLOAT32, batch_size=None)), "2/2", "1/2"
    )  # keeps the batch size that was recorded
    monkeypatch.setattr("torch.__version__", "1.0")  # a login node may have another than the nodes that computed
    monkeypatch.setattr(Forward, "__call__", lambda *args: pytest.fail("the backbone was run again"))
    make(parts, "1/2", "3/5")
    assert tree(parts.run(show_progress=False).path) == tree(whole.path)
    with pytest.raises(StoreError, match="finished"):
        make(parts, "1/2")


def test_images_that_cannot_be_read(whole, shapes, tiny, tmp_path):
    """A truncated one in train, an empty one in test; then all of a class."""
    skipping = replace(FLOAT32, on_error="skip")
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
    buffer, begun, transform = engine.ShardBuffer.empty(Shard("train", 0, 0, 500), 1, 64), [], tiny.transform()
    buffer.missing[:] = False
    groups = (begun.append(row) or engine.Group(buffer, row, row + 1) for row in range(500))
    computed = engine.compute(groups, engine.Renderer(shapes, transform, 1), tiny.forward(transform), 3)
    for collected, group in enumerate(computed):
        assert group.start == collected and len(begun) - collected <= 3 * engine.AHEAD + 1
    assert len(begun) == 500
