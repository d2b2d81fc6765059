"""Class orders and splits as published; a learner reaches its own rows only."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tosca_cache import splits
from tosca_cache.config import Settings
from tosca_cache.errors import StoreError, ToscaWarning, UsageError
from tosca_cache.learners import LEARNERS
from tosca_cache.learners.protocol import run_protocol
from tosca_cache.learners.simplecil import SimpleCil
from tosca_cache.splits import StoredFeatures, features_bytes
from tosca_cache.store import open_store
from tosca_cache.tasks import Arrays, TaskStream, class_order, load_splits, task_sizes

PUBLISHED = {  # methods.md 18.2: first and last entries at seed 1993
    50: ([43, 41, 23, 14, 13, 40, 42, 22, 16, 45], [29, 49, 33]),
    100: ([68, 56, 78, 8, 23, 84, 90, 65, 74, 76, 40, 89], [49, 57, 33]),
    200: ([168, 136, 51, 9, 183, 101, 171, 99, 42, 159, 191, 70], [177, 185, 161]),
    300: ([169, 221, 146, 296, 92, 229, 49, 70, 126, 77, 243, 57], [285, 225, 185]),
}


def test_class_order_is_the_published_one():
    for classes, (first, last) in PUBLISHED.items():
        order = class_order(classes, 1993).tolist()
        assert order[: len(first)] == first and order[-3:] == last
        assert class_order(classes, 1993, shuffle=False).tolist() == list(range(classes))


@given(classes=st.integers(1, 60), data=st.data())
def test_sizes_cover_all_classes_with_one_smaller_task_at_the_end(classes, data):
    increment, init = data.draw(st.integers(1, classes)), data.draw(st.none() | st.integers(1, classes))
    sizes = task_sizes(classes, increment, init)
    assert sum(sizes) == classes
    assert sizes[0] == (increment if init is None else init)
    assert all(size == increment for size in sizes[1:-1])
    assert len(sizes) == 1 or 1 <= sizes[-1] <= increment


@given(seed=st.integers(0, 2**32 - 1), increment=st.integers(1, 7), views=st.integers(1, 3))
def test_every_row_is_in_exactly_one_task_with_its_own_label(seed, increment, views):
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(7), generator.integers(1, 5, 7)))
    features = np.broadcast_to(np.arange(len(labels))[:, None, None], (len(labels), views, 2)).astype(np.float32)
    arrays = Arrays(features, labels)
    stream = TaskStream(arrays, arrays, class_names=list("abcdefg"), increment=increment, seed=seed)
    rows = []
    for task in stream:
        assert set(task.train.labels) == set(task.classes)
        assert (stream.order[task.train.labels] == labels[task.train.index]).all()
        assert (task.train.features[:, 0, 0] == task.train.index).all()
        assert (np.diff(task.train.labels) >= 0).all(), "class by class"
        assert stream.test(task.number).index.tolist() == task.train.index.tolist()
        rows += task.train.index.tolist()
    assert sorted(rows) == list(range(len(labels)))
    assert [stream.class_names[c] for c in stream.classes(0)] == ["abcdefg"[c] for c in stream.order[: stream.sizes[0]]]


def test_sizes_and_labels_that_do_not_match_are_refused():
    for increment, init in ((0, None), (11, None), (2, 11), (2, 0), (-1, None)):
        with pytest.raises(UsageError, match="10 classes"):
            task_sizes(10, increment, init)
    good = Arrays(np.zeros((4, 1, 2), np.float32), np.array([0, 0, 1, 1]))
    for labels, message in (
        ([0, 0, 1, 2], "labels run from"),
        ([0, 0, 1], "4 rows, but 3 of them have a label"),
        ([0, 0, 0, 0], "class b has no test rows"),
    ):
        with pytest.raises(StoreError, match=message):
            TaskStream(good, Arrays(good.features, np.array(labels)), class_names=["a", "b"], increment=1)


@pytest.mark.parametrize("name", ["tosca", "pool", "lame", "ranpac"])
def test_a_store_that_does_not_fit_into_memory_is_read_task_by_task(name, make_store, tmp_path):
    make_store(tmp_path / "store")
    store = open_store(tmp_path / "store")
    outcomes = []
    for most in (None, features_bytes(store) - 1):
        train, test = load_splits(store, most=most)
        assert isinstance(train.features, StoredFeatures) == (most is not None)
        stream = TaskStream(train, test, class_names=store.class_names, increment=2, shots=5)
        learner = LEARNERS[name](settings=Settings(epochs=2), **({"expansion": 30} if name == "ranpac" else {}))
        outcomes.append(run_protocol(learner, stream))
    for held, streamed in zip(outcomes[0].predictions, outcomes[1].predictions, strict=True):
        np.testing.assert_array_equal(held.labels, streamed.labels)
    np.testing.assert_array_equal(outcomes[0].rows, outcomes[1].rows)


@pytest.mark.parametrize("most", [None, 0])
def test_features_are_checked_wherever_they_are(most, make_store, tmp_path, monkeypatch):
    make_store(tmp_path / "store", dim=20)
    store = open_store(tmp_path / "store")
    monkeypatch.setattr(splits, "BLOCK_BYTES", 600)
    largest = max(float(np.abs(store.features(split)).max()) for split in ("train", "test"))
    monkeypatch.setattr(splits, "LARGEST", 0.99 * largest)
    with pytest.raises(StoreError, match=f"reach {largest:.3g}"):
        load_splits(store, most=most)
    monkeypatch.setattr(splits, "SMALL", 100)
    monkeypatch.setattr(splits, "LARGEST", np.inf)
    monkeypatch.setattr(splits, "SAMPLED", 18)  # of 54
    size = np.sqrt(np.square(store.features("train")[::3, 0].astype(np.float64)).mean())
    with pytest.warns(ToscaWarning, match=f"root mean square {size:.2g}"):
        load_splits(store, most=most)


def test_a_store_that_stays_on_disk_is_never_in_memory_as_a_whole(make_store, tmp_path, monkeypatch):
    make_store(tmp_path / "store", dim=1000, views=40)
    store = open_store(tmp_path / "store")
    load_splits(store, most=0)  # what is imported on the way
    monkeypatch.setattr(splits, "BLOCK_BYTES", features_bytes(store) // 20)
    tracemalloc.start()
    try:
        load_splits(store, most=0)
        assert tracemalloc.get_traced_memory()[1] < features_bytes(store) / 3
    finally:
        tracemalloc.stop()


def test_a_stream_that_ends_early_has_the_same_first_tasks_and_a_task_owns_its_rows(make_stream):
    whole, part = make_stream(), make_stream().first(2)
    assert len(part) == 2 and part.train_counts().tolist() == whole.train_counts()[:2].tolist()
    whole.task(0).train.features[:] = np.nan
    learned = [run_protocol(SimpleCil(seed=1), stream).R for stream in (whole, part)]
    np.testing.assert_array_equal(learned[1], learned[0][:2, :2])
