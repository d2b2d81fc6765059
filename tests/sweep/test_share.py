"""Files of features for several processes."""

import numpy as np

from tosca_cache.sweep.runner import shared_data, shared_features
from tosca_cache.sweep.scenario import read_data


def test_workers_map_what_the_store_holds(make_store, tmp_path):
    store = make_store(tmp_path / "store")
    data = read_data(store)
    with shared_features(data) as folder:
        mapped = shared_data(str(store.path), str(folder))
        for split in ("train", "test"):
            ours, theirs = getattr(mapped, split), getattr(data, split)
            assert isinstance(ours.features, np.memmap)
            np.testing.assert_array_equal(ours.features, theirs.features)
            np.testing.assert_array_equal(ours.labels, theirs.labels)
            np.testing.assert_array_equal(ours.domains, theirs.domains)
        assert mapped.class_names == data.class_names
        assert mapped.domain_names == data.domain_names
    assert not folder.exists()
    elsewhere = shared_data(str(store.path), str(tmp_path / "not on this machine"))
    np.testing.assert_array_equal(elsewhere.train.features, data.train.features)
