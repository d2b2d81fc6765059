"""Writing: however it is interrupted, the finished store is the same, bit for bit; what cannot be is one clear error."""

import os

import numpy as np
import pytest
from toy_store import BAD, NUMERICS, ROWS, build, open_writer, publish, toy_arrays, toy_spec
from trees import everything

from tosca_cache.errors import StoreError
from tosca_cache.store import list_stores, open_store
from tosca_cache.store.manifest import MANIFEST, MANIFEST_COPY, seal
from tosca_cache.store.spec import StoreSpec
from tosca_cache.store.verify import verify_store

PAGE = os.sysconf("SC_PAGE_SIZE")  # a tmpfs takes as much for the smallest file


def test_what_is_torn_cut_or_gone_counts_for_nothing_and_is_written_again(whole, tmp_path):
    path, folder = tmp_path / "s", tmp_path / "s.partial"
    with open_writer(path) as writer:
        for shard in writer.pending()[:4]:
            publish(writer, shard, BAD)
    record = folder / "done" / "train.1.json"
    sound = record.read_bytes()
    for data in (sound[:-1], sound[:40], b"", b"\x00" * 300, b"{}\n", b"\xff\n", sound.replace(b"decode", b"encode")):
        record.write_bytes(data)
        with open_writer(path) as writer:
            assert (writer.pending()[0].index, writer.done_rows) == (1, 42)
    (folder / "train" / "labels" / "c.2").unlink()
    os.truncate(folder / "train" / "features" / "c.3.0.0", 10)
    with open_writer(path) as writer:
        assert [shard.index for shard in writer.pending()][:4] == [1, 2, 3, 4]
    store = build(path, bad=BAD, order=-1)
    assert everything(store.path) == everything(whole("skipping").path), "in any order of shards"


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
    with pytest.raises(StoreError, match=r"made by an earlier version(.|\n)*manifest.json(.|\n)*extract it again"):
        open_store(store.path)


def test_an_unfinished_store_goes_on_only_as_what_it_was_begun(tmp_path):
    path = tmp_path / "s"
    open_writer(path).close()
    changed = {"spec": toy_spec(precision="bf16"), "numerics": NUMERICS | {"batch_size": 8}}
    with pytest.raises(StoreError) as caught:
        open_writer(path, **changed)
    message = str(caught.value)
    for words in (
        'fingerprint.precision: begun with "fp32", now "bf16"',
        "batch_size: begun with 4, now 8",
        "--restart",
    ):
        assert words in message
    assert "device" not in message
    with open_writer(path, **changed, restart=True) as writer:
        assert writer.numerics == changed["numerics"]
    for name in ("plan.json", MANIFEST):
        (tmp_path / "s.partial" / name).write_bytes(b"{}")
        with pytest.raises(StoreError, match=r"cannot be trusted(.|\n)*--restart"):
            open_writer(path)
        open_writer(path, restart=True).close()


def test_what_cannot_be_finished_or_written_again(tmp_path):
    with pytest.raises(StoreError, match="Not one image of split test"):
        build(tmp_path / "empty", bad=[("test", row) for row in range(ROWS["test"])])
    with open_writer(tmp_path / "s") as writer:
        publish(writer, writer.pending()[0])
        with pytest.raises(StoreError, match="7 shards are missing, the first is shard 1 of split train"):
            writer.finish({})
    assert not (tmp_path / "empty").exists() and not (tmp_path / "s").exists()
    before = everything(build(tmp_path / "s").path)
    for restart in (False, True):
        with pytest.raises(StoreError, match="finished"):
            open_writer(tmp_path / "s", restart=restart)
    assert everything(tmp_path / "s") == before


def test_a_disk_that_is_really_full_or_read_only(mounted, toy):
    folder = mounted(f"size={100 * PAGE}")
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(70 * PAGE))
    with pytest.raises(StoreError, match=r"disk is full(.|\n)*same command again"):
        build(folder / "s")
    ballast.unlink()
    assert everything(build(folder / "s").path) == everything(toy.path)
    with pytest.raises(StoreError, match=r"read-only(.|\n)*--root"):
        open_writer(mounted("ro") / "s")


def test_something_else_in_the_way(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"in the way|is a file"):
        open_writer(tmp_path / "file" / "s")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="in the way"):
        open_writer(tmp_path / "s", restart=True)
    assert (tmp_path / "s" / "thesis.tex").exists()
    (tmp_path / "closed").mkdir(mode=0o500)
    if os.geteuid():  # root may write anywhere; the read-only mount stands for this
        with pytest.raises(StoreError, match=r"may not write(.|\n)*--root"):
            open_writer(tmp_path / "closed" / "s")


def test_rows_that_must_not_be_stored_are_refused(tmp_path):
    """Features that are no numbers, paths that cannot be kept, and what does not fit, which is the caller's mistake."""
    rows = {name: values[:14] for name, values in toy_arrays("train").items()}
    with open_writer(tmp_path / "s") as writer:
        shard = writer.pending()[0]
        too_large = r"too large for float16(.|\n)*--store-dtype float32"
        for value, message in ((np.nan, "not finite"), (np.inf, "not finite"), (1e5, too_large)):
            bad = rows["features"].copy()
            bad[3, 1, 5] = value
            with pytest.raises(StoreError, match=message) as caught:
                writer.publish(shard, rows | {"features": bad})
            assert rows["paths"][3] in str(caught.value) and writer.done_rows == 0
        for path in ("../secret.jpg", "/etc/passwd", "", "a/../../b", "\ud800.jpg", "x" * 20_000, "a\0b"):
            with pytest.raises(StoreError, match="cannot be kept"):
                writer.publish(shard, rows | {"paths": (*rows["paths"][:-1], path)})
        for wrong in (
            {"features": np.zeros((14, 2, 24))},
            {"features": np.zeros((14, 3, 24), dtype=int)},
            *({"labels": labels} for labels in (np.full(14, 4), np.full(14, -1), np.zeros(14))),
            {"domains": np.full(14, 2)},
            {"views": np.zeros((14, 3, 5), dtype=int)},
            {"paths": ("a.jpg",)},
            {"skipped": {14: "not in this shard"}},
        ):
            with pytest.raises(ValueError, match=r"must|cannot"):
                writer.publish(shard, rows | wrong, skipped=wrong.get("skipped"))
        writer.publish(shard, rows | {"features": bad}, skipped={3: "bad"})  # whose features nobody asks for
        with pytest.raises(ValueError, match="already"):
            publish(writer, shard)
    with pytest.raises(ValueError, match="closed"):
        publish(writer, writer.pending()[0])
