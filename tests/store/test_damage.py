"""Whatever happens to a finished store's files is noticed, and said with split and shard."""

import json
import os
import shutil

import pytest
from campaign import times
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_store import build, open_writer, read_everything, tree

from tosca_cache.errors import StoreError
from tosca_cache.store import open_store
from tosca_cache.store.manifest import seal

FEATURES = "train/features/c.1.0.0"


@pytest.fixture
def copy(toy, tmp_path):
    return shutil.copytree(toy.path, tmp_path / "copy")


@pytest.fixture(scope="module")
def victim(toy, tmp_path_factory):
    """A copy that is damaged and mended again, many times."""
    return shutil.copytree(toy.path, tmp_path_factory.mktemp("victim") / "s")


@pytest.mark.campaign
@settings(max_examples=times(20, 300), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_flipped_bit_anywhere_is_found(victim, data):
    name = data.draw(st.sampled_from(sorted(set(tree(victim)) - {"manifest.copy.json"})))  # only `verify` reads that
    original = (victim / name).read_bytes()
    place = data.draw(st.integers(0, 8 * len(original) - 1))
    flipped = bytearray(original)
    flipped[place // 8] ^= 1 << place % 8
    (victim / name).write_bytes(flipped)
    try:
        with pytest.raises(StoreError):
            read_everything(open_store(victim))
    finally:
        (victim / name).write_bytes(original)


def test_a_flipped_bit_is_said_with_split_and_shard(copy):
    data = bytearray((copy / FEATURES).read_bytes())
    data[100] ^= 1
    (copy / FEATURES).write_bytes(data)
    store = open_store(copy)
    store.features("train", slice(0, 10))  # another shard
    with pytest.raises(StoreError, match="features of shard 1 of split train") as caught:
        store.features("train")
    assert str(copy) in str(caught.value)
    assert f"tosca cache verify {copy} --repair" in str(caught.value)


@pytest.mark.parametrize("name", [FEATURES, "train/labels/c.2", "test/paths/c.0", "train/views/c.0.0.0"])
@pytest.mark.parametrize("keep", [0, 7, -1])
def test_a_truncated_shard_is_found_when_opening(copy, name, keep):
    os.truncate(copy / name, keep if keep >= 0 else (copy / name).stat().st_size - 1)
    with pytest.raises(
        StoreError, match=rf"{name.split('/')[1]} of shard . of split {name.split('/')[0]}.*bytes instead"
    ):
        open_store(copy)


@pytest.mark.parametrize("name", [FEATURES, "train/labels/c.0", "test/paths/c.0", "test/views/zarr.json"])
def test_a_missing_object_is_found_when_opening(copy, name):
    (copy / name).unlink()
    with pytest.raises(StoreError, match="damaged"):
        open_store(copy)


@pytest.mark.parametrize("name", [FEATURES, "train/labels/c.1", "train/paths/c.1"])
@pytest.mark.parametrize("harm", ["truncate", "remove"])
def test_what_happens_after_opening_is_found_when_reading(copy, name, harm):
    store = open_store(copy)
    if harm == "remove":
        (copy / name).unlink()
    else:
        os.truncate(copy / name, 20)
    with pytest.raises(StoreError, match="of shard 1 of split train"):
        read_everything(store)


def test_links_out_of_the_store_are_refused(copy, tmp_path):
    shutil.move(copy / FEATURES, tmp_path / "elsewhere")
    (copy / FEATURES).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="missing"):
        open_store(copy)


def test_linked_folders_in_the_store_are_refused(copy, tmp_path):
    shutil.move(copy / "train", tmp_path / "elsewhere")
    (copy / "train").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="link"):
        open_store(copy)


def edits():
    """Hostile changes of a manifest: (what to do to its content)."""
    return {
        "absurd rows": lambda m: m["layout"]["train"].update(rows=10**12),
        "absurd shards": lambda m: m["layout"]["train"].update(rows=10**12, shard_rows=1 << 24, chunk_rows=1 << 24),
        "negative rows": lambda m: m["layout"]["train"].update(rows=-1),
        "boolean views": lambda m: m["layout"]["test"].update(views=True),
        "chunks that do not fit": lambda m: m["layout"]["train"].update(chunk_rows=7),
        "other width": lambda m: m["layout"]["train"].update(dim=12),
        "objects": lambda m: m["layout"]["train"].update(dtype="object"),
        "more shards": lambda m: m["shards"]["train"].append(m["shards"]["train"][0]),
        "no split": lambda m: m["shards"].pop("test"),
        "foreign object": lambda m: m["shards"]["train"][0].update({"../../secret": {"size": 1, "sha256": "0" * 64}}),
        "more classes": lambda m: m["class_names"].append("eel"),
        "a skipped row": lambda m: m["skipped"]["test"].append({"row": 99, "path": "x", "reason": "y"}),
        "texts for sizes": lambda m: m["shards"]["test"][0]["labels"].update(size="12"),
        "other fingerprint": lambda m: m["fingerprint"].update(precision="bf16"),
        "names": lambda m: m.update(class_names=[1, 2]),
        "list": lambda m: m.update(numerics=[]),
    }


@pytest.mark.parametrize("edit", edits().values(), ids=edits().keys())
def test_a_hostile_manifest_with_a_good_digest_is_refused(copy, edit):
    content = json.loads((copy / "manifest.json").read_bytes())
    del content["digest"], content["format"]
    edit(content)
    (copy / "manifest.json").write_bytes(seal(content))
    with pytest.raises(StoreError):
        open_store(copy)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"null", b"{" * 100_000, b"[" * 100_000, b'{"format": 1}', b"\xff", b"1e999"]
)
def test_what_is_no_manifest_is_refused(copy, text):
    (copy / "manifest.json").write_bytes(text)
    with pytest.raises(StoreError, match="cannot be trusted"):
        open_store(copy)


def test_a_newer_format_is_said_so(copy):
    content = json.loads((copy / "manifest.json").read_bytes()) | {"format": 99}
    (copy / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match="format 99"):
        open_store(copy)


def test_metadata_that_promise_something_else_are_refused(copy):
    """zarr would allocate what its metadata say."""
    name = "train/labels/zarr.json"
    (copy / name).write_text(json.dumps(json.loads((copy / name).read_bytes()) | {"shape": [10**12]}))
    with pytest.raises(StoreError, match="zarr's metadata"):
        open_store(copy)


def test_an_unfinished_store_is_not_opened(tmp_path):
    open_writer(tmp_path / "s").close()
    for path in (tmp_path / "s", tmp_path / "s.partial"):
        with pytest.raises(StoreError, match=r"unfinished(.|\n)*tosca extract"):
            open_store(path)


def test_no_store_at_all(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        open_store(tmp_path / "nothing")
    with pytest.raises(StoreError, match="no feature store"):
        open_store(tmp_path)


def test_provenance_that_is_no_json_does_not_hide_the_features(tmp_path):
    store = build(tmp_path / "s")
    assert set(store.provenance) == {"seconds"}
    (store.path / "provenance.json").write_text("{")
    read_everything(open_store(store.path))
    with pytest.raises(StoreError, match="no valid JSON"):
        _ = store.provenance
