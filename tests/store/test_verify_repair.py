"""Mending a store's files: whatever interrupts it, `verify` judges what is left, and mending it again ends the same.

What is mended, from images: tests/extract/test_repair.py.
"""

import os
import random
import shutil

import numpy as np
import pytest
from campaign import times
from steps import Cut, Fault, cut, watched
from toy_store import build, open_writer, read_everything, toy_arrays
from trees import damage, everything, tree

from tosca_cache.errors import StoreError
from tosca_cache.store import StoreBusy, open_store
from tosca_cache.store.repair import repairing
from tosca_cache.store.verify import verify_store

SIZES = {"rows": {"train": 9, "test": 4}, "views": {"train": 2, "test": 1}, "shard_rows": 5}
MANIFEST, COPY = "manifest.json", "manifest.copy.json"


@pytest.fixture
def small(tmp_path):
    return build(tmp_path / "s", **SIZES).path


def mend(path, shift=0.0):
    """Mends everything; `shift` is added to what is computed again, as another machine might."""
    with repairing(path) as repair:
        repair.mend_files()
        for shard, arrays in repair.found.damaged.items():
            values = toy_arrays(shard.split, SIZES["rows"], SIZES["views"])
            part = {name: value[shard.start : shard.stop] for name, value in values.items()}
            part["features"] = (part["features"] + shift).astype(np.float16)
            repair.put(part, shard, arrays, {"machine": "m"})
        return repair


def test_gone_folders_links_litter_and_metadata_are_mended(small, tmp_path):
    before = everything(small)
    damage(small, "zarr.json", "train/zarr.json", "test/views/zarr.json", "manifest.copy.json", "test/paths/c.0")
    shutil.rmtree(small / "train" / "labels")
    shutil.move(small / "test/views/c.0.0.0", tmp_path / "elsewhere")
    (small / "test/views/c.0.0.0").symlink_to(tmp_path / "elsewhere")
    (small / "test/.zarr.json.tmp").write_text("{")  # whose file is not mended
    kept = (tmp_path / "elsewhere").read_bytes()
    assert mend(small).changed == []
    assert everything(small) == before and not (small / "test/views/c.0.0.0").is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == kept


def test_a_damaged_provenance_is_sealed_as_far_as_it_can_be_read(small):
    for text, seconds in (('{"seconds": 1', None), ('{"seconds": 2}', 2)):
        (small / "provenance.json").write_text(text)
        assert not verify_store(small).ok
        mend(small)
        assert verify_store(small).ok
        said = open_store(small).provenance
        assert "damaged" in said and said.get("seconds") == seconds


@pytest.mark.campaign
@pytest.mark.parametrize("shift", [0.0, 0.25], ids=["same bytes", "other bytes"])
def test_a_crash_at_any_step_of_mending_loses_nothing(tmp_path, shift):
    names = (MANIFEST, "test/zarr.json", "train/features/c.0.0.0", "train/labels/c.1")
    whole = build(tmp_path / "whole", **SIZES).path

    def broken(name):
        path = shutil.copytree(whole, tmp_path / name)
        damage(path, *names)
        return path

    path, counted = broken("counted"), Fault()
    with watched(tmp_path, counted):
        mend(path, shift)
    steps = len(counted.steps)
    expected = tree(path)
    assert (expected == tree(whole)) == (shift == 0.0)
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


def test_one_mends_nobody_else_writes_and_a_reader_keeps_what_it_has_opened(small):
    damage(small, "train/labels/c.0")
    store = open_store(small)
    expected = store.features("train")
    with repairing(small):
        with pytest.raises(StoreBusy, match=f"process {os.getpid()}"), repairing(small):
            pass
        with pytest.raises(StoreBusy):
            open_writer(small, **SIZES)
    with pytest.raises(StoreError, match="finished"):
        open_writer(small, **SIZES)
    mend(small)
    np.testing.assert_array_equal(store.features("train"), expected)
    store.labels("train")


def test_what_cannot_be_mended_is_refused(small, tmp_path):
    shutil.move(small / "test", tmp_path / "test")
    (small / "test").symlink_to(tmp_path / "test")
    with pytest.raises(StoreError, match="link"), repairing(small):
        pass
    (small / "test").unlink()
    shutil.move(tmp_path / "test", small / "test")
    damage(small, MANIFEST, COPY)
    with pytest.raises(StoreError, match="Neither the manifest nor its copy"), repairing(small):
        pass
