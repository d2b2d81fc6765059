"""Whatever happens to a finished store: readers refuse it with its place, `verify_store` lists all of it, and it is mended.

What is mended from images: tests/extract/test_repair.py.
"""

import json
import os
import random
import shutil

import numpy as np
import pytest
from campaign import times
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from steps import Cut, Fault, cut, watched
from toy_store import open_writer, read_everything, shard_of, toy_arrays
from trees import damage, everything, tree

from tosca_cache.errors import StoreError
from tosca_cache.store import StoreBusy, list_stores, open_store
from tosca_cache.store.manifest import seal
from tosca_cache.store.repair import repairing
from tosca_cache.store.verify import verify_store

FEATURES, MANIFEST = "train/features/c.1.0.0", "manifest.json"
COPY, PROVENANCE = "manifest.copy.json", "provenance.json"


@pytest.fixture
def copy(toy, tmp_path):
    return shutil.copytree(toy.path, tmp_path / "copy")


def places(path):
    return {(problem.kind, problem.where) for problem in verify_store(path).problems}


def refused(path, match=None):
    """Whoever opens the store and reads all of it is told what is wrong, and what to do."""
    with pytest.raises(StoreError, match=match) as caught:
        read_everything(open_store(path))
    return caught.value


def test_a_good_store(toy, whole):
    for threads in (1, 3, None):
        moves = []
        found = verify_store(toy.path, threads=threads, progress=lambda *move, moves=moves: moves.append(move))
        assert found.ok and found.problems == () and not found.mendable
        assert found.bytes == toy.manifest.size and found.objects == len(tree(toy.path)) - 2
        assert moves[-1] == (toy.manifest.size, toy.manifest.size) and moves == sorted(moves)
        assert found.manifest == toy.manifest
    assert verify_store(whole("skipping").path).ok


@pytest.mark.campaign
@settings(max_examples=times(60, 900), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_flipped_bit_is_missed(copy, data):
    """Random bits of random files: shards, both manifests, zarr's metadata and the provenance."""
    file = copy / data.draw(st.sampled_from(sorted(everything(copy))))
    original = file.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(original) - 1))
    file.write_bytes(original[: bit // 8] + bytes([original[bit // 8] ^ 1 << bit % 8]) + original[bit // 8 + 1 :])
    try:
        assert str(file.relative_to(copy)) in {problem.where for problem in verify_store(copy, threads=1).problems}
        if file.name not in (COPY, PROVENANCE):  # which hold nothing that a reader needs
            refused(copy)
    finally:
        file.write_bytes(original)


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
        assert places(copy) == {("object", name)}
        (copy / name).write_bytes(whole)
    (copy / name).write_bytes(flipped)
    open_store(copy).features("train", slice(0, 10))  # another shard


def test_all_problems_are_listed_with_split_shard_and_rows(copy):
    (copy / "train/labels/c.0").unlink()
    os.truncate(copy / "test/paths/c.1", 30)
    damage(copy, FEATURES, "test/zarr.json", MANIFEST)
    (copy / PROVENANCE).write_text("{")
    objects = {("object", name) for name in ("train/labels/c.0", "test/paths/c.1", FEATURES)}
    others = {("zarr metadata", "test/zarr.json"), ("manifest", MANIFEST), ("provenance", PROVENANCE)}
    assert places(copy) == objects | others
    found = verify_store(copy)
    problem = next(p for p in found.problems if p.where == FEATURES)
    assert (problem.shard.split, problem.shard.index, problem.array) == ("train", 1, "features")
    assert problem.rows == (14, 28) and "rows 14 to 27" in str(problem)
    damaged = {shard.index: arrays for shard, arrays in found.damaged.items() if shard.split == "train"}
    assert damaged == {0: {"labels"}, 1: {"features"}}


def forge(path, name, place, value):
    """Puts another value into shard 1 of train, with all digests right."""
    with repairing(path) as repair:
        shard = repair.manifest.plan.layouts["train"].shard("train", 1)
        rows = shard_of(repair.manifest.plan.spec, shard)
        rows[name] = np.array(rows[name], {"paths": object, "features": np.float16}.get(name))
        rows[name][place] = value
        repair.put(rows, shard, frozenset([name]), {})


@pytest.mark.parametrize(
    ("name", "place", "value", "text", "rows"),
    [
        ("features", (3, 1, 5), np.nan, "NaN or infinite features in row 17", (17, 18)),
        ("features", (0, 0, 0), -np.inf, "NaN or infinite features in row 14", (14, 15)),
        ("features", (13, 2), -0.0, "all features are zero in row 27", (27, 28)),
        ("labels", slice(2, 4), 4, "labels outside 0 to 3 in 2 rows (16, 17)", (16, 18)),
        ("domains", 5, -1, "domains outside 0 to 1 in row 19", (19, 20)),
        ("paths", 0, toy_arrays("train")["paths"][15], "1 paths repeat", (15, 16)),
        ("paths", 0, toy_arrays("train")["paths"][2], "'train/cat/bild-\\xe42.jpg' in rows 2 and 14", (14, 15)),
        ("paths", 0, "../../x.jpg", "lead out of", (14, 15)),
    ],
)
def test_content_that_cannot_be_is_found_though_all_digests_are_right(copy, name, place, value, text, rows):
    forge(copy, name, place, value)
    (problem,) = verify_store(copy).problems
    assert text in problem.what
    assert (problem.kind, problem.shard.index, problem.rows, problem.mendable) == ("content", 1, rows, False)
    if name in ("labels", "domains") or "lead out" in text:
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
    assert places(copy) == {("zarr metadata", name)} and verify_store(copy).mendable


def test_either_manifest_is_enough_and_neither_is_not(copy):
    before = (copy / MANIFEST).read_bytes()
    forge(copy, "labels", 0, 1)
    (copy / MANIFEST).write_bytes(before)  # two good manifests that differ
    assert {kind for kind, _ in places(copy)} == {"manifest copy", "object"}
    mend(copy)
    (copy / COPY).unlink()
    assert places(copy) == {("manifest copy", COPY)}
    mend(copy)
    (copy / MANIFEST).unlink()
    assert places(copy) == {("manifest", MANIFEST)}
    assert f"tosca cache verify {copy} --repair" in refused(copy).remedy
    assert [summary.state for summary in list_stores(copy.parent)] == ["damaged"]
    damage(copy, COPY)
    found = verify_store(copy)
    assert found.manifest is None and not found.ok and not found.mendable
    with pytest.raises(StoreError, match="Neither the manifest nor its copy"):
        mend(copy)


def mend(path, shift=0.0):
    """Mends everything; `shift` is added to what is computed again, as another machine might."""
    with repairing(path) as repair:
        repair.mend_files()
        for shard, arrays in repair.found.damaged.items():
            rows = shard_of(repair.manifest.plan.spec, shard)
            rows["features"] = (rows["features"] + shift).astype(np.float16)
            repair.put(rows, shard, arrays, {"machine": "m"})
        return repair


def test_what_is_gone_or_a_link_is_mended_and_what_does_not_belong_into_the_folder_is_named(copy, tmp_path):
    before = everything(copy)
    shutil.move(copy / FEATURES, tmp_path / "elsewhere")
    (copy / FEATURES).symlink_to(tmp_path / "elsewhere")
    refused(copy, "no regular file, but a link")
    assert places(copy) == {("foreign", FEATURES), ("object", FEATURES)}
    damage(copy, "zarr.json", "train/zarr.json", COPY, "test/paths/c.0")
    shutil.rmtree(copy / "train" / "labels")
    (copy / "test/.zarr.json.tmp").write_text("half")
    kept = (tmp_path / "elsewhere").read_bytes()
    assert mend(copy).changed == []
    assert everything(copy) == before and not (copy / FEATURES).is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == kept
    (copy / "notes.txt").write_text("mine")
    (copy / "train" / "old").mkdir()
    (copy / "train" / "old" / "c.0").write_bytes(b"x")
    (copy / "test" / "labels" / "c.9").symlink_to(tmp_path)
    os.mkfifo(copy / "pipe")
    foreign = {("foreign", name) for name in ("notes.txt", "train/old", "test/labels/c.9", "pipe")}
    assert mend(copy).done == [] and places(copy) == foreign
    shutil.move(copy / "test", tmp_path / "test")
    (copy / "test").symlink_to(tmp_path / "test")
    refused(copy, "link")
    assert ("foreign", "test") in places(copy)
    with pytest.raises(StoreError, match="link"):
        mend(copy)


def test_a_damaged_provenance_hides_no_features_and_is_sealed_as_far_as_it_can_be_read(copy):
    for text, seconds in (('{"seconds": 1', None), ('{"seconds": 2}', 2)):
        (copy / PROVENANCE).write_text(text)
        assert places(copy) == {("provenance", PROVENANCE)}
        read_everything(open_store(copy))
        assert open_store(copy).provenance.get("seconds") == seconds
        mend(copy)
        assert verify_store(copy).ok
        said = open_store(copy).provenance
        assert "damaged" in said and said.get("seconds") == seconds


@pytest.mark.campaign
@pytest.mark.parametrize("shift", [0.0, 0.25], ids=["same bytes", "other bytes"])
def test_a_crash_at_any_step_of_mending_loses_nothing(toy, tmp_path, shift):
    def broken(name):
        path = shutil.copytree(toy.path, tmp_path / name)
        damage(path, MANIFEST, "test/zarr.json", FEATURES, "train/labels/c.1")
        return path

    path, counted = broken("counted"), Fault()
    with watched(tmp_path, counted):
        mend(path, shift)
    steps, expected = len(counted.steps), tree(path)
    assert (expected == tree(toy.path)) == (shift == 0.0)
    for step in times(sorted({0, steps - 1, *random.Random(0).sample(range(steps), 5)}), range(steps)):
        path = broken(f"s{step}")
        with pytest.raises(Cut), watched(tmp_path, cut(step)):
            mend(path, shift)
        if not verify_store(path).ok:
            mend(path, shift)
        left = {name: data for name, data in tree(path).items() if not name.endswith(".tmp")}
        assert left == expected, f"step {step} of {steps}"
        assert verify_store(path).ok
        read_everything(open_store(path))
        shutil.rmtree(path)


def test_one_mends_nobody_else_writes_and_a_reader_keeps_what_it_has_opened(copy):
    damage(copy, "train/labels/c.0")
    store = open_store(copy)
    expected = store.features("train")
    with repairing(copy):
        with pytest.raises(StoreBusy, match=f"process {os.getpid()}"), repairing(copy):
            pass
        with pytest.raises(StoreBusy):
            open_writer(copy)
    mend(copy)
    np.testing.assert_array_equal(store.features("train"), expected)
    store.labels("train")
