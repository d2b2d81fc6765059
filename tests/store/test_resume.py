"""However the writing is interrupted, the finished store is the same, bit for bit.

Processes that die at any step, or at random moments: survival/test_steps.py.
"""

import os

import numpy as np
import pytest
from toy_store import ARRAYS, BAD, ROWS, build, open_writer, publish, toy_arrays, toy_spec
from trees import tree

from tosca_cache.errors import StoreError
from tosca_cache.store import list_stores, open_store
from tosca_cache.store.manifest import MANIFEST, MANIFEST_COPY, seal
from tosca_cache.store.spec import StoreSpec
from tosca_cache.store.verify import verify_store


def test_a_record_that_is_torn_or_foreign_counts_for_nothing(skipping, tmp_path):
    with open_writer(tmp_path / "s") as writer:
        for shard in writer.pending()[:3]:
            publish(writer, shard, ARRAYS, BAD)
    record = tmp_path / "s.partial" / "done" / "train.1.json"
    whole = record.read_bytes()
    for data in (whole[:-1], whole[:40], b"", b"\x00" * 300, b"{}\n", b"\xff\n", whole.replace(b"decode", b"encode")):
        record.write_bytes(data)
        with open_writer(tmp_path / "s") as writer:
            assert (writer.pending()[0].index, writer.done_rows) == (1, 28)
    assert tree(build(tmp_path / "s", bad=BAD, order=-1).path) == tree(skipping.path), "in any order of shards"


def test_a_listed_shard_that_is_cut_or_gone_is_written_again(toy, tmp_path):
    with open_writer(tmp_path / "s") as writer:
        for shard in writer.pending():
            publish(writer, shard, ARRAYS)
    folder = tmp_path / "s.partial"
    (folder / "train" / "labels" / "c.1").unlink()
    os.truncate(folder / "test" / "features" / "c.0.0.0", 10)
    with open_writer(tmp_path / "s") as writer:
        assert [(shard.split, shard.index) for shard in writer.pending()] == [("train", 1), ("test", 0)]
    assert tree(build(tmp_path / "s").path) == tree(toy.path)


def test_skipped_rows_are_in_the_manifest_and_nowhere_else(tmp_path):
    whole = [("test", row) for row in range(11)]  # a shard of NaN, which zarr by default does not write
    bad = [("train", 0), ("train", 17), ("train", 69), *whole]
    store = build(tmp_path / "s", bad=bad)
    for split in ROWS:
        expected = toy_arrays(split)
        gone = [row for s, row in bad if s == split]
        kept = np.setdiff1d(np.arange(ROWS[split]), gone)
        assert store.rows(split) == len(kept)
        np.testing.assert_array_equal(store.features(split), expected["features"][kept].astype(np.float16))
        np.testing.assert_array_equal(store.features(split, slice(5, -3, 2)), store.features(split)[5:-3:2])
        assert np.isnan(store.zarr()[f"{split}/features"][gone]).all()
        np.testing.assert_array_equal(store.labels(split), expected["labels"][kept])
        np.testing.assert_array_equal(store.view_parameters(split), expected["views"][kept])
        assert store.paths(split) == tuple(expected["paths"][row] for row in kept)
        listed = [(row.row, row.path, row.reason) for row in store.manifest.skipped[split]]
        assert listed == [(row, expected["paths"][row], f"cannot decode {row}") for row in gone]
    assert store.spec.dataset["splits"] == ROWS and verify_store(store.path).ok
    (summary,) = list_stores(tmp_path)
    assert summary.rows == {split: store.rows(split) for split in ROWS}


def test_a_store_of_an_earlier_version_without_places_for_skipped_rows_is_refused_by_name(tmp_path):
    """As it was written then: fewer rows in the arrays than were listed, and the others named."""
    store = build(tmp_path / "s")
    said = store.manifest.to_dict() | {"skipped": {"train": [{"row": 3, "path": "a", "reason": "b"}], "test": []}}
    said["fingerprint"]["dataset"]["splits"]["train"] += 1
    said["fingerprint_digest"] = StoreSpec.from_dict(said["fingerprint"]).digest()
    for name in (MANIFEST, MANIFEST_COPY):
        (store.path / name).write_bytes(seal(said))
    with pytest.raises(StoreError, match=r"made by an earlier version") as caught:
        open_store(store.path)
    assert caught.value.where == str(store.path / MANIFEST) and "extract it again" in str(caught.value.remedy)


def test_an_unfinished_store_goes_on_only_as_what_it_was_begun(tmp_path):
    open_writer(tmp_path / "s").close()
    with pytest.raises(StoreError) as caught:
        open_writer(tmp_path / "s", toy_spec(precision="bf16"), numerics={"batch_size": 8, "device": "cpu"})
    message = str(caught.value)
    assert 'fingerprint.precision: begun with "fp32", now "bf16"' in message
    assert "numerics.batch_size: begun with 4, now 8" in message
    assert "device" not in message
    assert "--restart" in message
    with open_writer(tmp_path / "s") as writer:
        assert writer.numerics == {"batch_size": 4, "device": "cpu"}
    with open_writer(tmp_path / "s", toy_spec(precision="bf16"), numerics={"batch_size": 8}, restart=True) as writer:
        assert writer.numerics == {"batch_size": 8}


def test_what_cannot_be_finished_or_written_again(tmp_path):
    with pytest.raises(StoreError, match="Not one image of split test"):
        build(tmp_path / "empty", bad=[("test", row) for row in range(ROWS["test"])])
    with open_writer(tmp_path / "s") as writer:
        publish(writer, writer.pending()[0], ARRAYS)
        with pytest.raises(StoreError, match="7 shards are missing, the first is shard 1 of split train"):
            writer.finish({})
    assert not (tmp_path / "empty").exists() and not (tmp_path / "s").exists()
    before = tree(build(tmp_path / "s").path)
    for restart in (False, True):
        with pytest.raises(StoreError, match="finished"):
            open_writer(tmp_path / "s", restart=restart)
    assert tree(tmp_path / "s") == before
