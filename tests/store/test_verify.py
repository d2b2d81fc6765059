"""Whatever is wrong with a store, `verify_store` says it, all of it, with its place; and nothing is said of a good one."""

import json
import os
import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
from campaign import times
from toy_store import build, open_writer, toy_arrays, tree

from tosca_cache.errors import StoreError
from tosca_cache.store import list_stores, open_store
from tosca_cache.store.arrays import ShardRows
from tosca_cache.store.manifest import load_manifest
from tosca_cache.store.repair import StoreRepair
from tosca_cache.store.verify import verify_store

FEATURES, MANIFEST, COPY = "train/features/c.1.0.0", "manifest.json", "manifest.copy.json"
FLIPS = times(120, 1200)


@pytest.fixture
def copy(toy, tmp_path):
    return shutil.copytree(toy.path, tmp_path / "copy")


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def places(found):
    return {(problem.kind, problem.where) for problem in found.problems}


@pytest.mark.parametrize("threads", [1, 3, None])
def test_a_good_store(toy, threads):
    moves = []
    found = verify_store(toy.path, threads=threads, progress=lambda done, total: moves.append((done, total)))
    assert found.ok and found.problems == () and not found.mendable
    assert found.bytes == toy.manifest.size and found.objects == len(tree(toy.path)) - 2
    assert moves[-1] == (toy.manifest.size, toy.manifest.size) and moves == sorted(moves)
    assert found.manifest == toy.manifest


def test_a_store_with_skipped_rows_is_good(skipping):
    assert verify_store(skipping.path).ok


@pytest.mark.campaign
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_no_flipped_bit_is_missed(tmp_path, dtype):
    """Random bits of random files: shards, both manifests, zarr's metadata and the provenance."""
    from toy_store import toy_spec

    rows, views = {"train": 3, "test": 1}, {"train": 2, "test": 1}
    store = build(tmp_path / "s", toy_spec(rows, views, dtype=dtype), rows=rows, views=views, shard_rows=4)
    names = [*sorted(tree(store.path)), "provenance.json"]
    generator = random.Random(dtype)
    missed = []
    for number in range(FLIPS // 2):
        path = store.path / names[number % len(names)]
        original = path.read_bytes()
        bit = generator.randrange(8 * len(original))
        flip(path, bit)
        found = verify_store(store.path, threads=1)
        if not any(problem.where == path.relative_to(store.path).as_posix() for problem in found.problems):
            missed.append((path.name, bit))
        path.write_bytes(original)
    assert missed == []
    assert verify_store(store.path).ok


def test_all_problems_are_listed_with_split_shard_and_rows(copy):
    (copy / "train/labels/c.0").unlink()
    os.truncate(copy / "test/paths/c.1", 30)
    flip(copy / FEATURES, 8 * 100)
    flip(copy / "test/zarr.json", 9)
    flip(copy / MANIFEST, 999)
    (copy / "provenance.json").write_text("{")
    found = verify_store(copy)
    assert places(found) == {
        ("object", "train/labels/c.0"),
        ("object", "test/paths/c.1"),
        ("object", FEATURES),
        ("zarr metadata", "test/zarr.json"),
        ("manifest", MANIFEST),
        ("provenance", "provenance.json"),
    }
    chunk = next(p for p in found.problems if p.where == FEATURES and "chunk" in p.what)
    assert (chunk.shard.split, chunk.shard.index, chunk.array) == ("train", 1, "features")
    assert chunk.rows == (14, 28) and "rows 14 to 27" in str(chunk)
    assert {shard.index: arrays for shard, arrays in found.damaged.items() if shard.split == "train"} == {
        0: {"labels"},
        1: {"features"},
    }
    facts = json.loads(json.dumps(found.to_dict()))
    assert facts["ok"] is False and {"split", "shard", "rows"} <= facts["problems"][-1].keys()


def forge(path, **values):
    """Puts other content into shard 1 of train, with all digests right."""
    manifest = load_manifest(path / MANIFEST)
    shard = manifest.plan.layouts["train"].shard("train", 1)
    arrays = {name: np.array(v[shard.start : shard.stop]) for name, v in toy_arrays("train").items() if name != "paths"}
    arrays |= {"features": arrays["features"].astype(np.float16)}
    rows = ShardRows(**arrays, paths=toy_arrays("train")["paths"][shard.start : shard.stop])
    for name, change in values.items():
        if name == "paths":
            rows = replace(rows, paths=change(rows.paths))
        else:
            change(getattr(rows, name))
    StoreRepair(path, verify_store(path), manifest).put(rows, shard, frozenset(values), {})


def at(*place, value):
    def change(array):
        array[place] = value

    return change


CONTENTS = {
    "NaN": ({"features": at(3, 1, 5, value=np.nan)}, "NaN or infinite features in row 17", (17, 18)),
    "infinity": ({"features": at(0, 0, 0, value=-np.inf)}, "NaN or infinite features in row 14", (14, 15)),
    "zeros": ({"features": at(13, 2, value=-0.0)}, "all features are zero in row 27", (27, 28)),
    "labels": ({"labels": at(slice(2, 4), value=4)}, "labels outside 0 to 3 in 2 rows (16, 17)", (16, 18)),
    "domains": ({"domains": at(5, value=-1)}, "domains outside 0 to 1 in row 19", (19, 20)),
    "views, size": (
        {"views": at(1, 1, 3, value=0)},
        "view parameters that no crop of an image has in row 15",
        (15, 16),
    ),
    "views, outside": ({"views": at(1, 2, 1, value=39)}, "view parameters that", (15, 16)),
    "views, overflow": ({"views": at(1, 2, 1, value=2**63 - 1)}, "view parameters that", (15, 16)),
    "views, seed": ({"views": at(1, 2, 0, value=-3)}, "view parameters that", (15, 16)),
    "views, clean": ({"views": at(1, 0, 5, value=1)}, "view parameters that", (15, 16)),
    "path twice": ({"paths": lambda p: (p[1], *p[1:])}, "1 paths repeat", (15, 16)),
    "path of another shard": (
        {"paths": lambda p: (toy_arrays("train")["paths"][2], *p[1:])},
        "'train/cat/bild-\\xe42.jpg' in rows 2 and 14",
        (14, 15),
    ),
    "path that leads out": ({"paths": lambda p: ("../../x.jpg", *p[1:])}, "lead out of", (14, 15)),
}


@pytest.mark.parametrize(("change", "text", "rows"), CONTENTS.values(), ids=CONTENTS.keys())
def test_content_that_cannot_be_is_found_though_all_digests_are_right(copy, change, text, rows):
    forge(copy, **change)
    (problem,) = verify_store(copy).problems
    assert text in problem.what
    assert (problem.kind, problem.shard.index, problem.rows, problem.mendable) == ("content", 1, rows, False)


def test_views_whose_parameters_are_not_known_are_good(copy):
    forge(copy, views=at(slice(None), value=0))
    assert verify_store(copy).ok


def test_what_does_not_belong_into_the_folder(copy, tmp_path):
    (copy / "notes.txt").write_text("mine")
    (copy / "train" / "old").mkdir()
    (copy / "train" / "old" / "c.0").write_bytes(b"x")
    (copy / "test" / "labels" / "c.9").symlink_to(tmp_path)
    os.mkfifo(copy / "pipe")
    (copy / ".manifest.json.tmp").write_text("half")
    found = verify_store(copy)
    assert places(found) == {
        *(("foreign", name) for name in ("notes.txt", "train/old", "test/labels/c.9", "pipe")),
        ("litter", ".manifest.json.tmp"),
    }
    assert [problem.kind for problem in found.problems if problem.mendable] == ["litter"]


def test_links_are_not_followed(copy, tmp_path):
    shutil.move(copy / FEATURES, tmp_path / "elsewhere")
    (copy / FEATURES).symlink_to(tmp_path / "elsewhere")
    assert places(verify_store(copy)) == {("foreign", FEATURES), ("object", FEATURES)}
    (copy / FEATURES).unlink()
    shutil.move(tmp_path / "elsewhere", copy / FEATURES)
    shutil.move(copy / "test", tmp_path / "test")
    (copy / "test").symlink_to(tmp_path / "test")
    assert ("foreign", "test") in places(verify_store(copy))


def test_metadata_that_promise_something_else(copy):
    name = "train/labels/zarr.json"
    (copy / name).write_text(json.dumps(json.loads((copy / name).read_bytes()) | {"shape": [10**12]}))
    (problem,) = verify_store(copy).problems
    assert (problem.kind, problem.where, problem.mendable) == ("zarr metadata", name, True)


def test_either_manifest_is_enough_and_neither_is_not(copy):
    (copy / COPY).unlink()
    assert places(verify_store(copy)) == {("manifest copy", COPY)}
    shutil.copy(copy / MANIFEST, copy / COPY)
    (copy / MANIFEST).unlink()
    found = verify_store(copy)
    assert places(found) == {("manifest", MANIFEST)} and found.bytes > 0
    with pytest.raises(StoreError, match=rf"tosca cache verify {copy} --repair"):
        open_store(copy)
    assert [summary.state for summary in list_stores(copy.parent)] == ["damaged"]
    flip(copy / COPY, 77)
    found = verify_store(copy)
    assert found.manifest is None and not found.ok and not found.mendable


def test_two_good_manifests_that_differ(copy):
    before = (copy / MANIFEST).read_bytes()
    forge(copy, labels=at(0, value=1))
    (copy / MANIFEST).write_bytes(before)
    assert {problem.kind for problem in verify_store(copy).problems} == {"manifest copy", "object"}


def test_what_is_no_finished_store(tmp_path):
    open_writer(tmp_path / "s").close()
    for path, text in ((tmp_path / "s", "unfinished"), (tmp_path, "no feature store"), (tmp_path / "x", "not exist")):
        with pytest.raises(StoreError, match=text):
            verify_store(path)
