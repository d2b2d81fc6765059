"""Streams whose tasks are domains: their order, class indices, whose rows a task has, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.gaussian import make_domain_arrays

from tosca_cache.errors import StoreError, UsageError
from tosca_cache.tasks import Arrays, TaskStream

CLASSES, DOMAINS = "abcde", ("sketch", "photo", "clipart", "painting")
# Rows of each class in each domain.
COUNTS = st.lists(st.lists(st.integers(0, 4), min_size=5, max_size=5).filter(any), min_size=4, max_size=4)
SEEDS = st.integers(0, 2**32 - 1)


def arrays(counts, seed=0, views=1):
    """Features that say which row they are; labels and domains in random order."""
    generator = np.random.default_rng(seed)
    found = make_domain_arrays(generator, counts, 2, views, np.zeros((5, 2)), np.zeros((4, 2)))
    found.features[:] = np.arange(len(found.labels))[:, None, None]
    return found


def make(counts, seed=0, views=1, **options):
    """A stream with the same rows for training and testing, and these rows."""
    rows = arrays(counts, seed, views)
    options = {"class_names": CLASSES, "domain_names": DOMAINS, "incremental": "domains", "seed": seed} | options
    return TaskStream(rows, rows, **options), rows


@given(counts=COUNTS, seed=SEEDS, views=st.integers(1, 3), shuffle=st.booleans())
def test_each_task_has_the_rows_of_its_domain_and_no_others(counts, seed, views, shuffle):
    stream, rows = make(counts, seed, views, shuffle=shuffle)
    assert len(stream) == len(DOMAINS)
    order = np.random.RandomState(seed).permutation(4) if shuffle else range(4)
    assert stream.domain_names == tuple(DOMAINS[d] for d in order)
    stop = 0
    for task, domain in zip(stream, order, strict=True):
        index = task.train.index
        assert (rows.domains[index] == domain).all()
        assert len(index) == (rows.domains == domain).sum() == stream.train_counts()[task.number]
        assert (task.train.features[:, 0, 0] == index).all()
        own = [c for c in range(5) if counts[domain][c]]
        assert task.classes == range(stop, stop + len(own)) == stream.classes(task.number)
        assert stream.class_of[task.classes].tolist() == own, "in the order of the store"
        assert (stream.class_of[task.train.labels] == rows.labels[index]).all()
        assert set(task.train.labels) == set(task.classes)
        assert (np.diff(task.train.labels) >= 0).all(), "class by class"
        assert stream.test(task.number).index.tolist() == index.tolist()
        assert sorted(stream.test_labels(task.number)) == task.train.labels.tolist()
        stop = task.classes.stop
    assert stop == len(stream.class_of) == len(stream.task_of_class())
    assert [stream.task_of_class()[c] for c in (0, stop - 1)] == [0, 3]


@given(counts=COUNTS, seed=SEEDS)
def test_names_are_those_of_the_classes_that_are_reported(counts, seed):
    stream, rows = make(counts, seed)
    assert stream.class_names == tuple(CLASSES)
    assert stream.order.tolist() == list(range(5))
    task = stream.task(2)
    names = [stream.class_names[c] for c in stream.class_of[task.train.labels]]
    assert names == [CLASSES[c] for c in rows.labels[task.train.index]]


def test_a_class_stream_reports_its_own_labels(make_stream):
    stream = make_stream()
    assert stream.class_of.tolist() == list(range(9))
    assert stream.domain_names == ()


def test_a_class_stream_does_not_look_at_domains():
    rows = arrays([[2] * 5] * 4)
    options = {"class_names": CLASSES, "increment": 2, "seed": 7}
    with_domains, without = (TaskStream(each, each, **options) for each in (rows, Arrays(rows.features, rows.labels)))
    for one, other in zip(with_domains, without, strict=True):
        assert one.classes == other.classes
        np.testing.assert_array_equal(one.train.index, other.train.index)
        np.testing.assert_array_equal(one.train.labels, other.train.labels)


def test_the_domain_order_does_not_depend_on_sizes_or_classes():
    orders = {
        make(counts, 5)[0].domain_names for counts in ([[2] * 5] * 4, [[1, 0, 0, 0, 0]] * 4, np.eye(4, 5, dtype=int))
    }
    assert len(orders) == 1
    assert len({make([[1] * 5] * 4, seed)[0].domain_names for seed in range(20)}) > 5


def test_a_domain_without_rows_is_no_task():
    stream, _ = make([[1] * 5, [0] * 5, [1] * 5, [1] * 5], shuffle=False)
    assert stream.domain_names == ("sketch", "clipart", "painting")
    assert stream.sizes == [5, 5, 5]


def test_parts_of_rows_keep_their_domains():
    rows = arrays([[2] * 5] * 4)
    chosen = np.flatnonzero(rows.labels != 3)
    part = rows.part(chosen).part(np.arange(10))
    np.testing.assert_array_equal(part.domains, rows.domains[chosen[:10]])
    stream = TaskStream(
        rows.part(chosen), rows.part(chosen), class_names=CLASSES, domain_names=DOMAINS, incremental="domains"
    )
    assert stream.sizes == [4] * 4
    assert set(np.concatenate([task.train.index for task in stream])) == set(chosen)


def test_a_class_of_a_domain_in_one_split_only_is_refused():
    whole, holed = arrays([[2] * 5] * 4), arrays([[2] * 5, [2, 2, 0, 2, 2], [2] * 5, [2] * 5])
    options = {"class_names": CLASSES, "domain_names": DOMAINS, "incremental": "domains"}
    for train, test, split in ((whole, holed, "test"), (holed, whole, "train")):
        with pytest.raises(StoreError, match=f"class c of domain photo has no {split} rows") as raised:
            TaskStream(train, test, **options)
        assert raised.value.where == f"split {split}"
    absent = arrays([[2] * 5, [0] * 5, [2] * 5, [2] * 5])
    with pytest.raises(StoreError, match="of domain photo has no train rows \\(5 such"):
        TaskStream(absent, whole, **options)


def test_rows_without_a_domain_are_refused():
    rows = arrays([[2] * 5] * 4)
    for domains, names, said in (
        (None, DOMAINS, "40 rows, but 0 of them have a domain"),
        (rows.domains[:3], DOMAINS, "but 3 of them"),
        (rows.domains, DOMAINS[:2], "domains run from 0 to 3, but there are 2"),
    ):
        with pytest.raises(StoreError, match=said):
            bad = Arrays(rows.features, rows.labels, domains=domains)
            TaskStream(bad, rows, class_names=CLASSES, domain_names=names, incremental="domains")
    with pytest.raises(StoreError, match="labels run from"):
        make([[2] * 5] * 4, class_names="abc")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"incremental": "domains", "increment": 2}, "each domain is a task"),
        ({"incremental": "domains", "init_cls": 2}, "each domain is a task"),
        ({"incremental": "classes"}, "how many classes"),
        ({"incremental": "both", "increment": 2}, "cannot bring 'both'"),
    ],
)
def test_impossible_streams_are_refused(options, said):
    rows = arrays([[2] * 5] * 4)
    with pytest.raises(UsageError, match=said):
        TaskStream(rows, rows, class_names=CLASSES, domain_names=DOMAINS, **options)


def test_a_store_of_one_domain_is_refused_by_name(make_store, tmp_path):
    store = make_store(tmp_path / "store")
    with pytest.raises(StoreError, match="one domain only") as raised:
        TaskStream.from_store(store, incremental="domains")
    assert raised.value.where == str(store.path)


def test_shots_are_of_each_class_of_the_later_domains():
    stream, rows = make([[4] * 5] * 4, seed=1, shots=2)
    whole, _ = make([[4] * 5] * 4, seed=1)
    assert stream.train_counts().tolist() == [20, 10, 10, 10]
    for few, all_rows in zip(stream, whole, strict=True):
        assert set(few.train.index) <= set(all_rows.train.index)
        assert (stream.class_of[few.train.labels] == rows.labels[few.train.index]).all()
    with pytest.raises(UsageError, match=r"class a of domain .* has 4 train rows, but 5"):
        make([[4] * 5] * 4, shots=5)
