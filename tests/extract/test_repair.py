"""A store against what it was made from: computed again, listed again, mended; and how exactly extraction repeats."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from extract.conftest import quietly
from PIL import Image
from safetensors.torch import load_file, save_file
from trees import damage, everything

from tosca_cache.datasets import load_dataset
from tosca_cache.errors import DatasetError, FingerprintMismatch, StoreError
from tosca_cache.extract.backbone import Forward
from tosca_cache.extract.compare import TOLERANCE, deviations, recompute_sample
from tosca_cache.extract.fingerprint import ExtractOptions
from tosca_cache.extract.recompute import extraction_again, repair_store
from tosca_cache.extract.reuse import SourceStore
from tosca_cache.store import open_store
from tosca_cache.store.verify import verify_store

OPTIONS = ExtractOptions(views=2, batch_size=8, workers=2)
ALL = 10**6


@pytest.fixture
def sources(shapes, tiny_weights):
    return {"dataset": shapes.root, "weights": tiny_weights}


@pytest.fixture(scope="module")
def made(shapes_folder, tiny, tmp_path_factory):
    """The store of the pictures; never changed."""
    return quietly(load_dataset(str(shapes_folder)), tiny, tmp_path_factory.mktemp("cache"), OPTIONS)


@pytest.fixture
def store(made, tmp_path):
    """A copy of it; `sources` has a copy of the pictures."""
    return open_store(shutil.copytree(made.path, tmp_path / "cache" / made.path.name))


@pytest.fixture
def off_by(monkeypatch):
    """Makes backbones give features that deviate by a share, from now on."""
    original = Forward.__call__
    return lambda share: monkeypatch.setattr(Forward, "__call__", lambda self, x: original(self, x) * (1 + share))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_across_batch_sizes_features_stay_within_the_tolerance(shapes, tiny, tmp_path, precision):
    backbone = replace(tiny, precision=precision)
    stores = [quietly(shapes, backbone, tmp_path / str(size), replace(OPTIONS, batch_size=size)) for size in (1, 8, 20)]
    for store in stores[1:]:
        assert deviations(store.features("train"), stores[0].features("train")).max() <= TOLERANCE[precision]


def recheck(store, sources, count=ALL, seed=1993):
    again = extraction_again(store, sources)
    return recompute_sample(again.dataset, again.backbone, SourceStore.matched(store, again.dataset), count, seed)


def test_what_is_chosen_agrees_and_what_differs_is_found(store, sources, shapes, off_by):
    found = recheck(store, sources)
    assert len(found) == 15 + 9 and not any(one.problem for one in found)
    assert max(one.deviation for one in found) <= TOLERANCE["fp32"]
    first, same, other = (list(map(str, recheck(store, sources, 5, seed))) for seed in (1, 1, 2))
    assert first == same != other and len(set(first)) == 5
    Image.new("RGB", (31, 47)).save(Path(shapes.root, "train/class 1/002.png"))
    Path(shapes.root, "test/class 0/000.png").write_bytes(b"")
    assert {(one.path, one.problem.split(":")[0]) for one in recheck(store, sources) if one.problem} == {
        ("train/class 1/002.png", "its views have other parameters"),
        ("test/class 0/000.png", "its image cannot be read any more"),
    }
    off_by(3 * TOLERANCE["fp32"])
    assert sum("deviates by" in one.problem for one in recheck(store, sources)) == 22


def test_other_weights_or_images_are_not_compared(store, shapes, sources, tmp_path):
    state = load_file(sources["weights"])
    state["norm.bias"] = state["norm.bias"] + 1
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(FingerprintMismatch, match=r"backbone.weights_digest: the store has(.|\n)*--weights"):
        extraction_again(store, sources | {"weights": tmp_path / "other.safetensors"})
    (tmp_path / "moved").mkdir()
    moved = sources | {"dataset": str(Path(shapes.root).rename(tmp_path / "moved" / "shapes"))}
    with pytest.raises(DatasetError):
        extraction_again(store, sources)
    assert extraction_again(store, moved).dataset.name == "shapes"


@pytest.mark.parametrize(
    "names",
    [
        ("train/features/c.1.0.0", "train/features/c.2.0.0"),
        ("train/features/c.3.0.0", "test/features/c.0.0.0", "train/labels/c.0", "manifest.json"),
        ("train/views/c.2.0.0", "test/paths/c.1", "train/domains/c.2", "zarr.json"),
    ],
)
def test_exactly_what_is_damaged_is_made_again(store, sources, names):
    def stop(done, total):
        if done == 1:
            raise KeyboardInterrupt

    before = everything(store.path)
    untouched = {n: (store.path / n).stat().st_ino for n in before if n not in names}
    damage(store.path, *names)
    with pytest.raises(KeyboardInterrupt):  # between two shards
        repair_store(store.path, sources, on_shard=stop)
    assert not verify_store(store.path).ok
    repaired, notes = repair_store(store.path, sources)
    assert everything(store.path) == before
    assert {name: (store.path / name).stat().st_ino for name in untouched} == untouched
    assert repaired.changed == notes == []
    assert repair_store(store.path, sources)[0].done == []


def test_a_store_that_left_images_out_and_took_from_another(shapes, tiny, tmp_path, sources):
    gone, skipping = Path(shapes.root, "train/class 0/001.png"), replace(OPTIONS, on_error="skip")
    whole = gone.read_bytes()
    gone.write_bytes(b"")
    first, grown = (quietly(shapes, tiny, tmp_path / "cache", replace(skipping, views=n)) for n in (2, 4))
    assert grown.manifest.plan.numerics["reused"]
    gone.write_bytes(whole)  # it can be read by now, but was not part of the stores
    for store in (first, grown):
        before = everything(store.path)
        damage(store.path, "train/features/c.0.0.0", "train/features/c.3.0.0", "train/views/c.1.0.0")
        assert repair_store(store.path, sources)[0].changed == []
        assert everything(store.path) == before


def test_another_machine_may_give_other_bytes(store, sources, monkeypatch, off_by):
    """The manifest then says the new ones, and the provenance that it does."""
    name, before = "train/features/c.1.0.0", everything(store.path)
    damage(store.path, name)
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "OTHER")
        off_by(TOLERANCE["fp32"] / 2)
        repaired, notes = repair_store(store.path, sources)
    assert repaired.changed == [name] and any("cpu_capability" in note for note in notes)
    assert verify_store(store.path).ok
    changed = {name for name, data in everything(store.path).items() if data != before[name]}
    assert changed == {name, "manifest.json", "manifest.copy.json", "provenance.json"}
    mended = open_store(store.path)
    assert mended.provenance["repairs"][0]["objects"] == [name]
    assert not any(one.problem for one in recheck(mended, sources))


def test_images_of_another_size_are_not_put_in_their_place(store, sources, shapes):
    damage(store.path, "train/features/c.1.0.0")
    before, image = everything(store.path), Path(shapes.root, store.paths("train")[5])
    Image.new("RGB", (31, 47)).save(image)
    with pytest.raises(StoreError, match="other sizes"):
        repair_store(store.path, sources)
    image.write_bytes(b"")
    with pytest.raises(DatasetError, match="cannot be read any more"):
        repair_store(store.path, sources)
    assert everything(store.path) == before
    damage(store.path, "manifest.json")
    shutil.rmtree(shapes.root)
    with pytest.raises(DatasetError):
        repair_store(store.path, sources)
    assert everything(store.path) == before  # what needs no images is mended
