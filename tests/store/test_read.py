"""What comes out of a store is what went in, for any shape and any selection of rows and views."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from campaign import times
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from toy_store import CLASSES, DOMAINS, ROWS, VIEWS, build, toy_arrays, toy_spec

from tosca_cache.store import open_store
from tosca_cache.store.layout import SplitLayout

SHAPES = [  # (train rows, test rows), (train views, test views), d, dtype, rows a shard
    ((300, 1), (9, 1), 128, "float16", 256),  # several chunks a shard
    ((65, 0), (2, 1), 8192, "float32", 64),  # 64 kB a row
]
ANY = st.tuples(
    st.tuples(st.integers(1, 70), st.integers(0, 9)),
    st.tuples(st.integers(1, 4), st.integers(1, 2)),
    st.integers(1, 70),
    st.sampled_from(["float16", "float32"]),
    st.integers(1, 50),
)


def indices(size):
    """Every kind of selection among `size` things."""
    numbers = st.integers(-size, size - 1) if size else st.nothing()
    lists = st.lists(numbers, max_size=2 * size)
    return st.none() | st.slices(size) | lists | lists.map(lambda chosen: np.array(chosen, dtype=np.int32))


def numbers(size, chosen):
    """The numbers that a selection means, as numpy reads it."""
    return np.atleast_1d(np.arange(size)[slice(None) if chosen is None else chosen])


@pytest.mark.campaign
@settings(max_examples=times(5, 80), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=ANY, data=st.data())
@example(shape=SHAPES[0], data=None)
@example(shape=SHAPES[1], data=None)
def test_what_goes_in_comes_out_whatever_the_shape_and_the_selection(shape, data):
    """Any selection equals numpy's, and zarr reads the same: the store is plain zarr 3, the direct reader only faster."""
    rows, views, dim, dtype, shard_rows = shape
    sizes = {"rows": dict(zip(ROWS, rows, strict=True)), "views": dict(zip(VIEWS, views, strict=True)), "dim": dim}
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder) / "s", toy_spec(**sizes, dtype=dtype), shard_rows=shard_rows)
        store = open_store(Path(folder) / "s")
        group = store.zarr()
        assert (store.class_names, store.domain_names) == (CLASSES, DOMAINS)
        for split in ROWS:
            expected, view_count = toy_arrays(split, **sizes), store.views(split)
            features = expected["features"].astype(dtype)
            np.testing.assert_array_equal(store.features(split), features)
            np.testing.assert_array_equal(store.labels(split), expected["labels"])
            np.testing.assert_array_equal(store.domains(split), expected["domains"])
            np.testing.assert_array_equal(store.view_parameters(split), expected["views"])
            assert store.paths(split) == expected["paths"] == tuple(group[f"{split}/paths"][:])
            assert store.view_parameters(split).dtype == store.labels(split).dtype == np.int64
            np.testing.assert_array_equal(group[f"{split}/features"][:], features)
            np.testing.assert_array_equal(group[f"{split}/labels"][:], expected["labels"])
            selections = [(slice(3, 20), None), ([], 0), (slice(None, None, -7), [-1, 0])]
            if data is not None:
                ways = indices(view_count) | st.integers(-view_count, view_count - 1)
                selections = data.draw(st.lists(st.tuples(indices(store.rows(split)), ways), min_size=4, max_size=8))
            for rows, views in selections:
                got = store.features(split, rows, views)
                assert got.dtype == store.dtype and got.flags.c_contiguous and got.flags.writeable
                assert got.ctypes.data % 4096 == 0 or got.size == 0, "where copying is slow is a matter of pages"
                expected = features[numbers(len(features), rows)][:, numbers(view_count, views)]
                np.testing.assert_array_equal(got, expected)


def test_masks_choose_rows_and_rows_that_do_not_exist_are_an_index_error(toy):
    mask = toy.labels("train") == 2
    np.testing.assert_array_equal(toy.features("train", mask), toy.features("train")[mask])
    for rows in ([70], [-71], [0.5], [[1]], np.ones(3, dtype=bool)):
        with pytest.raises(IndexError):
            toy.features("train", rows)


def test_reads_only_the_chunks_it_needs(toy, monkeypatch):
    """One class of sorted rows, or one row, must not cost the whole store."""
    read = []
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, at: read.append(real(fd, buffers, at)) or read[-1])
    toy.features("train", [3])
    layout = toy.manifest.plan.layouts["train"]
    assert sum(read) == layout.index_bytes + layout.chunk_bytes


@pytest.mark.campaign
@settings(max_examples=times(15, 200))
@given(
    rows=st.integers(0, 5000) | st.just(1_281_167),
    views=st.integers(1, 33),
    dim=st.integers(1, 4096),
    dtype=st.sampled_from(["float16", "float32"]),
    shard_rows=st.none() | st.integers(16, 4096),
)
def test_every_row_is_in_exactly_one_shard_of_bounded_size(rows, views, dim, dtype, shard_rows):
    layout = SplitLayout.plan(rows, views, dim, dtype, shard_rows)
    shards = list(layout.iterate("train"))
    assert [shard.start for shard in shards] == [0, *(shard.stop for shard in shards)][: len(shards)]
    assert (shards[-1].stop if shards else 0) == rows
    assert all(shard.rows >= 1 for shard in shards)
    assert layout.shard_rows <= (shard_rows or max(256, -(-rows // 512)))
    assert layout.chunks * layout.chunk_bytes <= (32 << 20) + 4 * layout.chunks or layout.shard_rows == 1
