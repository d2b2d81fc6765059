"""Streams whose tasks are domains: their order, class indices, whose rows a task has, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.gaussian import make_domain_arrays

from tosca_cache.errors import StoreError, UsageError
from tosca_cache.tasks import Arrays, TaskStream

CLASSES, DOMAINS = "abcde", ("sketch", "photo", "clipart", "painting")
NAMES = {"class_names": CLASSES, "domain_names": DOMAINS}
# Rows of each class in each domain.
COUNTS = st.lists(st.lists(st.integers(0, 4), min_size=5, max_size=5).filter(any), min_size=4, max_size=4)
SEEDS = st.integers(0, 2**32 - 1)
TWO = [[2] * 5] * 4


def arrays(counts, seed=0, views=1):
    """Features that say which row they are; labels and domains in random order."""
    generator = np.random.default_rng(seed)
    found = make_domain_arrays(generator, counts, 2, views, np.zeros((5, 2)), np.zeros((4, 2)))
    found.features[:] = np.arange(len(found.labels))[:, None, None]
    return found


def make(counts, seed=0, views=1, **options):
    """A stream with the same rows for training and testing, and these rows."""
    rows = arrays(counts, seed, views)
    return TaskStream(rows, rows, **NAMES | {"incremental": "domains", "seed": seed} | options), rows


@given(counts=COUNTS, seed=SEEDS, views=st.integers(1, 3), shuffle=st.booleans())
def test_each_task_has_the_rows_of_its_domain_and_no_others(counts, seed, views, shuffle):
    stream, rows = make(counts, seed, views, shuffle=shuffle)
    order = np.random.RandomState(seed).permutation(4) if shuffle else range(4)
    assert stream.domain_names == tuple(DOMAINS[d] for d in order) and len(stream) == len(DOMAINS)
    assert stream.class_names == tuple(CLASSES) and stream.order.tolist() == list(range(5))
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


def test_a_class_stream_does_not_look_at_domains():
    rows = arrays(TWO)
    options = {"class_names": CLASSES, "increment": 2, "seed": 7}
    with_domains, without = (TaskStream(each, each, **options) for each in (rows, Arrays(rows.features, rows.labels)))
    assert with_domains.domain_names == ()
    for one, other in zip(with_domains, without, strict=True):
        np.testing.assert_array_equal(one.train.index, other.train.index)
        np.testing.assert_array_equal(one.train.labels, other.train.labels)


def test_the_domain_order_does_not_depend_on_sizes_or_classes_and_a_domain_without_rows_is_no_task():
    several = (TWO, [[1, 0, 0, 0, 0]] * 4, np.eye(4, 5, dtype=int))
    assert len({make(counts, 5)[0].domain_names for counts in several}) == 1
    assert len({make([[1] * 5] * 4, seed)[0].domain_names for seed in range(20)}) > 5
    stream, _ = make([[1] * 5, [0] * 5, [1] * 5, [1] * 5], shuffle=False)
    assert stream.domain_names == ("sketch", "clipart", "painting") and stream.sizes == [5, 5, 5]


def test_parts_of_rows_keep_their_domains():
    rows = arrays(TWO)
    chosen = np.flatnonzero(rows.labels != 3)
    part = rows.part(chosen)
    np.testing.assert_array_equal(part.part(np.arange(10)).domains, rows.domains[chosen[:10]])
    assert TaskStream(part, part, **NAMES, incremental="domains").sizes == [4] * 4


def test_shots_are_of_each_class_of_the_later_domains():
    stream, whole = (make([[4] * 5] * 4, seed=1, shots=shots)[0] for shots in (2, None))
    assert stream.train_counts().tolist() == [20, 10, 10, 10]
    assert all(set(few.train.index) <= set(task.train.index) for few, task in zip(stream, whole, strict=True))
    with pytest.raises(UsageError, match=r"class a of domain .* has 4 train rows, but 5"):
        make([[4] * 5] * 4, shots=5)


def test_rows_and_protocols_that_make_no_domains_are_refused():
    whole, holed = arrays(TWO), arrays([[2] * 5, [2, 2, 0, 2, 2], [2] * 5, [2] * 5])
    absent = arrays([[2] * 5, [0] * 5, [2] * 5, [2] * 5])
    homeless, few = (Arrays(whole.features, whole.labels, domains=d) for d in (None, whole.domains[:3]))
    for train, test, names, said in (
        (whole, holed, {}, "class c of domain photo has no test rows"),
        (holed, whole, {}, "class c of domain photo has no train rows"),
        (absent, whole, {}, r"of domain photo has no train rows \(5 such"),
        (homeless, whole, {}, "40 rows, but 0 of them have a domain"),
        (few, whole, {}, "but 3 of them"),
        (whole, whole, {"domain_names": DOMAINS[:2]}, "domains run from 0 to 3, but there are 2"),
        (whole, whole, {"class_names": "abc"}, "labels run from"),
    ):
        with pytest.raises(StoreError, match=said) as raised:
            TaskStream(train, test, **NAMES | names, incremental="domains")
        if "no t" in said:
            assert raised.value.where == f"split {'test' if 'test' in said else 'train'}"
    for options, said in (
        ({"incremental": "domains", "init_cls": 2}, "each domain is a task"),
        ({"incremental": "classes"}, "how many classes"),
        ({"incremental": "both", "increment": 2}, "cannot bring 'both'"),
    ):
        with pytest.raises(UsageError, match=said):
            make(TWO, **options)
