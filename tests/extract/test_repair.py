"""A store against what it was made from: what it says of that, and what comes out when it is computed again or mended."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from extract.conftest import quietly
from PIL import Image
from safetensors.torch import load_file, save_file
from trees import damage, everything

from tosca_cache.datasets import load_dataset
from tosca_cache.datasets.decoding import PUBLISHED, Decoding
from tosca_cache.datasets.duplicates import without_duplicates
from tosca_cache.errors import DatasetError, FingerprintMismatch, ImageError, StoreError
from tosca_cache.extract.backbone import Forward
from tosca_cache.extract.fingerprint import ExtractOptions, store_spec
from tosca_cache.extract.recompute import extraction_again, repair_store
from tosca_cache.extract.reuse import TOLERANCE, SourceStore, deviations, recompute_sample
from tosca_cache.store import find_store, open_store, store_path
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


def recheck(store, sources, count=ALL, seed=1993):
    """What is found of some images that are computed again."""
    again = extraction_again(store, sources)
    return recompute_sample(again.dataset, again.backbone, SourceStore.matched(store, again.dataset), count, seed)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_across_batch_sizes_features_stay_within_the_tolerance(shapes, tiny, tmp_path, precision):
    backbone = replace(tiny, precision=precision)
    stores = [quietly(shapes, backbone, tmp_path / str(size), replace(OPTIONS, batch_size=size)) for size in (1, 8, 20)]
    for store in stores[1:]:
        assert deviations(store.features("train"), stores[0].features("train")).max() <= TOLERANCE[precision]


def test_what_is_chosen_agrees_and_what_differs_is_found(store, sources, shapes, off_by):
    found = recheck(store, sources)
    assert len(found) == 15 + 9 and max(one.deviation for one in found) <= TOLERANCE["fp32"]
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


def test_other_weights_are_not_compared_and_moved_images_found_where_it_is_said(store, shapes, sources, tmp_path):
    state = load_file(sources["weights"])
    save_file(state | {"norm.bias": state["norm.bias"] + 1}, tmp_path / "other.safetensors")
    with pytest.raises(FingerprintMismatch, match=r"backbone.weights_digest: the store has(.|\n)*--weights"):
        extraction_again(store, sources | {"weights": tmp_path / "other.safetensors"})
    (tmp_path / "moved").mkdir()
    moved = Path(shapes.root).rename(tmp_path / "moved" / "shapes")
    with pytest.raises(DatasetError):
        extraction_again(store, sources)
    assert extraction_again(store, sources | {"dataset": str(moved)}).dataset.name == "shapes"


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
    off_by(TOLERANCE["fp32"] / 2)
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "OTHER")
        repaired, notes = repair_store(store.path, sources)
    assert repaired.changed == [name] and any("cpu_capability" in note for note in notes)
    assert verify_store(store.path).ok
    changed = {name for name, data in everything(store.path).items() if data != before[name]}
    assert changed == {name, "manifest.json", "manifest.copy.json", "provenance.json"}
    assert open_store(store.path).provenance["repairs"][0]["objects"] == [name]


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


@pytest.fixture
def odd(shapes):
    """The folder, in which there are a photo on its side, a transparent one, and one of 16 bits."""
    folder, exif = Path(shapes.root), Image.Exif()
    pixels, exif[274] = np.random.default_rng(1).integers(0, 256, (40, 50, 4), dtype=np.uint8), 6
    Image.fromarray(pixels[..., :3]).save(folder / "train/class 0/000.png", exif=exif)
    Image.fromarray(pixels).save(folder / "train/class 1/000.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "train/class 2/000.png")
    return folder


def test_decoding_is_in_the_fingerprint_and_a_store_is_computed_again_as_it_was_made(odd, tiny, tiny_weights, tmp_path):
    def made(**how):
        store = quietly(load_dataset(str(odd), decoding=how), tiny, tmp_path / "cache", OPTIONS)
        assert Decoding.recorded_in(store.spec.transform) == replace(Decoding(), **how)
        found = recheck(store, {"weights": tiny_weights})
        assert len(found) == store.rows("train") + 9 and not any(one.problem for one in found)
        return store

    plain = made()
    said = {"orientation": "upright", "background": "#ffffff", "depth": "scaled"}
    assert said.items() <= plain.spec.transform.items() and "left_out" not in plain.manifest.to_dict()
    for number, change in enumerate(({"orientation": "stored"}, {"background": "none"}, {"depth": "clipped"})):
        store = made(**change)
        assert store.spec.digest() != plain.spec.digest()
        (row,) = np.flatnonzero((plain.features("train") != store.features("train")).any(axis=(1, 2)))
        assert store.paths("train")[row] == f"train/class {number}/000.png"
    shutil.copy(odd / "train/class 0/001.png", odd / "train/class 0/002.gif")  # read by default, not as published
    published = made(**asdict(PUBLISHED))
    assert published.rows("train") == 15 < made().rows("train")
    embedded, limited = load_dataset("digits"), load_dataset(str(odd), decoding=asdict(PUBLISHED) | {"max_pixels": 9})
    specs = [store_spec(dataset, tiny, tiny.transform(), OPTIONS) for dataset in (embedded, limited)]
    assert not any(said.keys() & spec.transform.keys() for spec in (published.spec, *specs))
    assert specs[1] == published.spec, "a limit makes no other store"


def test_what_it_was_made_from_is_found_again(shapes, tiny, tiny_weights, tmp_path):
    """A folder that is called like an embedded dataset, and whose duplicates were dropped."""
    shutil.copy(f"{shapes.root}/train/class 0/001.png", f"{shapes.root}/test/class 0/009.png")
    dataset = without_duplicates(load_dataset(str(Path(shapes.root).rename(tmp_path / "digits"))), "drop")
    store = quietly(dataset, tiny, tmp_path / "cache", OPTIONS, duplicates="drop")
    assert store.rows("train") == 14 and not any(one.problem for one in recheck(store, {"weights": tiny_weights}))


def test_shapes_that_no_view_can_be_made_of(shapes, tiny, tmp_path):
    """A picture one pixel wide and a million high has 4 kB, but 5 GB when its shorter side has 36."""
    path = Path(shapes.root, "train/class 0/000.png")
    Image.new("L", (1, 1_000_000)).save(path)
    with pytest.raises(ImageError, match="1 x 1,000,000 pixels is too narrow") as raised:
        quietly(shapes, tiny, tmp_path / "failed", OPTIONS)
    assert raised.value.where == str(path)
    (skipped,) = quietly(shapes, tiny, tmp_path / "cache", replace(OPTIONS, on_error="skip")).manifest.skipped["train"]
    assert skipped.path == "train/class 0/000.png" and "too narrow" in skipped.reason
    Image.new("L", (3, 1000)).save(path)
    assert quietly(shapes, tiny, tmp_path / "narrow", OPTIONS).rows("train") == 15


def test_whatever_a_dataset_is_called_its_store_is_found_unless_runs_could_not_be_called_so(shapes, tiny, tmp_path):
    folder = Path(shapes.root)
    for name in ("n" * 200, ".hidden", "-rf", "[red]", "é" * 100):
        dataset = load_dataset(str(folder := folder.rename(tmp_path / name)))
        store = quietly(dataset, tiny, tmp_path / "cache", OPTIONS)
        assert dataset.name == name and store.path.parent == tmp_path / "cache"
        assert len(store.path.name.encode()) < 255 and find_store(tmp_path / "cache", name).path == store.path
    specs = [store_spec(replace(dataset, name="n" * 199 + end), tiny, tiny.transform(), OPTIONS) for end in ("x", "y")]
    assert len({store_path(tmp_path, spec) for spec in specs}) == 2, "long names differ by the digest"
    control = "holds a control character"
    for name, words in (("n" * 255, "has 255 bytes, more than 200"), ("line\nbreak", control), ("\x1b[31m", control)):
        folder = folder.rename(tmp_path / name)
        with pytest.raises(DatasetError, match=words):
            load_dataset(str(folder))
