"""Files of features for several processes go away, also those of processes that were killed."""

import subprocess
import sys
import tempfile

import numpy as np

from tosca_cache.sweep.share import SharedFeatures, read_data, shared_data


def test_workers_map_what_the_store_holds(make_store, tmp_path):
    store = make_store(tmp_path / "store")
    data = read_data(store)
    with SharedFeatures(data) as shared:
        mapped = shared_data(str(store.path), str(shared.folder))
        for split in ("train", "test"):
            ours, theirs = getattr(mapped, split), getattr(data, split)
            assert isinstance(ours.features, np.memmap)
            np.testing.assert_array_equal(ours.features, theirs.features)
            np.testing.assert_array_equal(ours.labels, theirs.labels)
            np.testing.assert_array_equal(ours.domains, theirs.domains)
        assert mapped.class_names == data.class_names
        assert mapped.domain_names == data.domain_names
    assert not shared.folder.exists()
    elsewhere = shared_data(str(store.path), str(tmp_path / "not on this machine"))
    np.testing.assert_array_equal(elsewhere.train.features, data.train.features)


def test_what_a_killed_process_left_is_removed_by_the_next(make_store, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f"tosca-sweep-{dead.pid}-left").mkdir()
    (tmp_path / "tosca-sweep-x-other").mkdir()
    with SharedFeatures(read_data(make_store(tmp_path / "store"))) as first:
        names = {path.name for path in tmp_path.glob("tosca-sweep-*")}
        assert names == {first.folder.name, "tosca-sweep-x-other"}
        with SharedFeatures(read_data(make_store(tmp_path / "second"))):
            assert first.folder.exists()
