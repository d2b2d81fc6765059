"""Whatever happens to a finished store, readers refuse it with its place, and `verify_store` lists all of it."""

import json
import os
import shutil

import numpy as np
import pytest
from campaign import times
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_store import read_everything, toy_arrays
from trees import tree

from tosca_cache.errors import StoreError
from tosca_cache.store import list_stores, open_store
from tosca_cache.store.manifest import load_manifest, seal
from tosca_cache.store.repair import StoreRepair
from tosca_cache.store.verify import verify_store

FEATURES, MANIFEST = "train/features/c.1.0.0", "manifest.json"
COPY, PROVENANCE = "manifest.copy.json", "provenance.json"


@pytest.fixture
def copy(toy, tmp_path):
    return shutil.copytree(toy.path, tmp_path / "copy")


@pytest.fixture(scope="module")
def victim(toy, tmp_path_factory):
    """A copy that is damaged and mended again, many times."""
    return shutil.copytree(toy.path, tmp_path_factory.mktemp("victim") / "s")


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def places(found):
    return {(problem.kind, problem.where) for problem in found.problems}


def refused(path, match=None):
    """Whoever opens the store and reads all of it is told what is wrong, and what to do."""
    with pytest.raises(StoreError, match=match) as caught:
        read_everything(open_store(path))
    return caught.value


def test_a_good_store(toy, skipping):
    for threads in (1, 3, None):
        moves = []
        found = verify_store(toy.path, threads=threads, progress=lambda *move, moves=moves: moves.append(move))
        assert found.ok and found.problems == () and not found.mendable
        assert found.bytes == toy.manifest.size and found.objects == len(tree(toy.path)) - 2
        assert moves[-1] == (toy.manifest.size, toy.manifest.size) and moves == sorted(moves)
        assert found.manifest == toy.manifest
    assert verify_store(skipping.path).ok and set(toy.provenance) == {"seconds"}


@pytest.mark.campaign
@settings(max_examples=times(60, 900), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_flipped_bit_is_missed(victim, data):
    """Random bits of random files: shards, both manifests, zarr's metadata and the provenance."""
    name = data.draw(st.sampled_from([*sorted(tree(victim)), PROVENANCE]))
    original = (victim / name).read_bytes()
    flip(victim / name, data.draw(st.integers(0, 8 * len(original) - 1)))
    try:
        assert name in {problem.where for problem in verify_store(victim, threads=1).problems}
        if name not in (COPY, PROVENANCE):  # which hold nothing that a reader needs
            refused(victim)
    finally:
        (victim / name).write_bytes(original)


def test_all_problems_are_listed_with_split_shard_and_rows(copy):
    (copy / "train/labels/c.0").unlink()
    os.truncate(copy / "test/paths/c.1", 30)
    flip(copy / FEATURES, 8 * 100)
    flip(copy / "test/zarr.json", 9)
    flip(copy / MANIFEST, 999)
    (copy / PROVENANCE).write_text("{")
    found = verify_store(copy)
    objects = {("object", name) for name in ("train/labels/c.0", "test/paths/c.1", FEATURES)}
    others = {("zarr metadata", "test/zarr.json"), ("manifest", MANIFEST), ("provenance", PROVENANCE)}
    assert places(found) == objects | others
    problem = next(p for p in found.problems if p.where == FEATURES)
    assert (problem.shard.split, problem.shard.index, problem.array) == ("train", 1, "features")
    assert problem.rows == (14, 28) and "rows 14 to 27" in str(problem)
    damaged = {shard.index: arrays for shard, arrays in found.damaged.items() if shard.split == "train"}
    assert damaged == {0: {"labels"}, 1: {"features"}}


@pytest.mark.parametrize("name", [FEATURES, "train/labels/c.1", "train/paths/c.1", "train/views/c.1.0.0"])
def test_a_shard_that_is_cut_or_gone_or_has_a_flipped_bit(copy, name):
    whole = (copy / name).read_bytes()
    flipped = whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]
    for data in (None, b"", whole[:7], whole[:-1], flipped):
        opened = open_store(copy)
        (copy / name).unlink() if data is None else (copy / name).write_bytes(data)
        for store in (opened, None):  # opened before, and after
            with pytest.raises(StoreError, match=rf"damaged: {name.split('/')[1]} of shard 1 of split train") as caught:
                read_everything(store or open_store(copy))
            assert str(copy) in str(caught.value) and f"tosca cache verify {copy} --repair" in str(caught.value)
        assert places(verify_store(copy)) == {("object", name)}
        (copy / name).write_bytes(whole)
    (copy / name).write_bytes(flipped)
    open_store(copy).features("train", slice(0, 10))  # another shard


def test_links_are_not_followed_and_what_does_not_belong_into_the_folder_is_named(copy, tmp_path):
    shutil.move(copy / FEATURES, tmp_path / "elsewhere")
    (copy / FEATURES).symlink_to(tmp_path / "elsewhere")
    refused(copy, "no regular file, but a link")
    assert places(verify_store(copy)) == {("foreign", FEATURES), ("object", FEATURES)}
    (copy / FEATURES).unlink()
    shutil.move(tmp_path / "elsewhere", copy / FEATURES)
    (copy / "notes.txt").write_text("mine")
    (copy / "train" / "old").mkdir()
    (copy / "train" / "old" / "c.0").write_bytes(b"x")
    (copy / "test" / "labels" / "c.9").symlink_to(tmp_path)
    os.mkfifo(copy / "pipe")
    (copy / ".manifest.json.tmp").write_text("half")
    found = verify_store(copy)
    foreign = {("foreign", name) for name in ("notes.txt", "train/old", "test/labels/c.9", "pipe")}
    assert places(found) == foreign | {("litter", ".manifest.json.tmp")}
    assert [problem.kind for problem in found.problems if problem.mendable] == ["litter"]
    shutil.move(copy / "test", tmp_path / "test")
    (copy / "test").symlink_to(tmp_path / "test")
    refused(copy, "link")
    assert ("foreign", "test") in places(verify_store(copy))


def forge(path, **values):
    """Puts other content into shard 1 of train, with all digests right."""
    manifest = load_manifest(path / MANIFEST)
    shard = manifest.plan.layouts["train"].shard("train", 1)
    rows = {name: values[shard.start : shard.stop] for name, values in toy_arrays("train").items()}
    rows["features"] = rows["features"].astype(np.float16)
    for name, change in values.items():
        rows[name] = change(rows[name])
    StoreRepair(path, verify_store(path), manifest).put(rows, shard, frozenset(values), {})


def at(*place, value):
    def change(array):
        array = array.copy()
        array[place] = value
        return array

    return change


PATH = toy_arrays("train")["paths"][2]
CONTENTS = {
    "NaN": ({"features": at(3, 1, 5, value=np.nan)}, "NaN or infinite features in row 17", (17, 18)),
    "infinity": ({"features": at(0, 0, 0, value=-np.inf)}, "NaN or infinite features in row 14", (14, 15)),
    "zeros": ({"features": at(13, 2, value=-0.0)}, "all features are zero in row 27", (27, 28)),
    "labels": ({"labels": at(slice(2, 4), value=4)}, "labels outside 0 to 3 in 2 rows (16, 17)", (16, 18)),
    "domains": ({"domains": at(5, value=-1)}, "domains outside 0 to 1 in row 19", (19, 20)),
    "path twice": ({"paths": lambda p: (p[1], *p[1:])}, "1 paths repeat", (15, 16)),
    "other shard": ({"paths": lambda p: (PATH, *p[1:])}, "'train/cat/bild-\\xe42.jpg' in rows 2 and 14", (14, 15)),
    "path that leads out": ({"paths": lambda p: ("../../x.jpg", *p[1:])}, "lead out of", (14, 15)),
}


@pytest.mark.parametrize(("change", "text", "rows"), CONTENTS.values(), ids=CONTENTS.keys())
def test_content_that_cannot_be_is_found_though_all_digests_are_right(copy, change, text, rows):
    forge(copy, **change)
    (problem,) = verify_store(copy).problems
    assert text in problem.what
    assert (problem.kind, problem.shard.index, problem.rows, problem.mendable) == ("content", 1, rows, False)
    if change.keys() & {"labels", "domains"} or "lead out" in text:
        refused(copy)


HOSTILE = {
    "absurd rows": lambda m: m["layout"]["train"].update(rows=10**12),
    "absurd shards": lambda m: m["layout"]["train"].update(rows=10**12, shard_rows=1 << 24, chunk_rows=1 << 24),
    "negative rows": lambda m: m["layout"]["train"].update(rows=-1),
    "boolean views": lambda m: m["layout"]["test"].update(views=True),
    "chunks that do not fit": lambda m: m["layout"]["train"].update(chunk_rows=5),
    "other width": lambda m: m["layout"]["train"].update(dim=12),
    "objects": lambda m: m["layout"]["train"].update(dtype="object"),
    "more shards": lambda m: m["shards"]["train"].append(m["shards"]["train"][0]),
    "no split": lambda m: m["shards"].pop("test"),
    "foreign object": lambda m: m["shards"]["train"][0].update({"../../secret": {"size": 1, "sha256": "0" * 64}}),
    "texts for sizes": lambda m: m["shards"]["test"][0]["labels"].update(size="12"),
    "other fingerprint": lambda m: m["fingerprint"].update(precision="bf16"),
    "more classes": lambda m: m["class_names"].append("eel"),
    "a skipped row": lambda m: m["skipped"]["test"].append({"row": 99, "path": "x", "reason": "y"}),
    "names": lambda m: m.update(class_names=[1, 2]),
    "list": lambda m: m.update(numerics=[]),
}


@pytest.mark.parametrize("edit", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_manifest_with_a_good_digest_is_refused(copy, edit):
    content = json.loads((copy / MANIFEST).read_bytes())
    edit(content)
    for name in (MANIFEST, COPY):
        (copy / name).write_bytes(seal(content))
    refused(copy)
    assert verify_store(copy).manifest is None


def test_what_is_no_manifest_or_promises_something_else_is_refused(copy):
    whole = (copy / MANIFEST).read_bytes()
    for text in (b"", b"[]", b"null", b"{" * 99_999, b"[" * 99_999, b'{"format": 1}', b"\xff", b"1e999"):
        (copy / MANIFEST).write_bytes(text)
        refused(copy, "cannot be trusted")
    (copy / MANIFEST).write_text(json.dumps(json.loads(whole) | {"format": 99}))
    refused(copy, "format 99")
    (copy / MANIFEST).write_bytes(whole)
    name = "train/labels/zarr.json"  # zarr would allocate what its metadata say
    (copy / name).write_text(json.dumps(json.loads((copy / name).read_bytes()) | {"shape": [10**12]}))
    refused(copy, "zarr's metadata")
    (problem,) = verify_store(copy).problems
    assert (problem.kind, problem.where, problem.mendable) == ("zarr metadata", name, True)


def test_either_manifest_is_enough_and_neither_is_not(toy, copy):
    (copy / PROVENANCE).write_text("{")  # which does not hide the features
    store = open_store(copy)
    read_everything(store)
    assert store.provenance == {} and places(verify_store(copy)) == {("provenance", PROVENANCE)}
    before = (copy / MANIFEST).read_bytes()
    forge(copy, labels=at(0, value=1))
    (copy / MANIFEST).write_bytes(before)  # two good manifests that differ
    assert {problem.kind for problem in verify_store(copy).problems} == {"manifest copy", "object"}
    shutil.rmtree(copy)
    shutil.copytree(toy.path, copy)
    (copy / COPY).unlink()
    assert places(verify_store(copy)) == {("manifest copy", COPY)}
    shutil.copy(copy / MANIFEST, copy / COPY)
    (copy / MANIFEST).unlink()
    found = verify_store(copy)
    assert places(found) == {("manifest", MANIFEST)} and found.bytes > 0
    assert f"tosca cache verify {copy} --repair" in refused(copy).remedy
    assert [summary.state for summary in list_stores(copy.parent)] == ["damaged"]
    flip(copy / COPY, 77)
    found = verify_store(copy)
    assert found.manifest is None and not found.ok and not found.mendable
