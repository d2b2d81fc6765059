"""Few-shot streams: a base task with all its rows, then tasks of a few rows of each class."""

import numpy as np
import pytest

from tosca_cache.errors import UsageError
from tosca_cache.store import open_store
from tosca_cache.tasks import Arrays, TaskStream


def make(*, classes=12, rows=9, names=None, shuffle=True, **options):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(classes), rows))
    arrays = Arrays(np.random.default_rng(1).normal(size=(len(labels), 2, 3)).astype(np.float32), labels)
    asked = {"init_cls": 4, "increment": 2, "shots": 5, "seed": 3} | options
    names = names or [f"class {c}" for c in range(classes)]
    return TaskStream(arrays, arrays, class_names=names, shuffle=shuffle, **asked)


def test_the_first_task_and_all_test_rows_are_whole():
    """As in the published protocols (methods.md 8), CUB-200 and CIFAR-100."""
    for classes, init_cls, increment, tasks in ((200, 100, 10, 11), (100, 60, 5, 9)):
        stream = make(classes=classes, init_cls=init_cls, increment=increment, rows=6)
        assert stream.train_counts().tolist() == [6 * init_cls] + [5 * increment] * (tasks - 1)
    few, whole = make(), make(shots=None)
    np.testing.assert_array_equal(few.task(0).train.index, whole.task(0).train.index)
    for number in range(1, len(whole)):
        np.testing.assert_array_equal(few.test(number).index, whole.test(number).index)
        kept, rows = few.task(number).train, whole.task(number).train
        assert np.bincount(kept.labels)[whole.classes(number)].tolist() == [5] * len(whole.classes(number))
        order = np.flatnonzero(np.isin(rows.index, kept.index))  # class by class and in store order, as without shots
        np.testing.assert_array_equal(kept.index, rows.index[order])
        np.testing.assert_array_equal(kept.features, rows.features[order])


def test_shots_follow_from_the_seed_and_the_class_name_alone():
    """Neither the task a class is in, nor the other classes' names or rows, change its shots."""

    def shots(stream, name):
        label = stream.class_names.index(name)
        task = stream.task(int(stream.task_of_class()[label])).train
        return task.index[task.labels == label].tolist()

    stream, same = make(shuffle=False), make(shuffle=False, init_cls=1, increment=3)
    renamed = make(shuffle=False, names=["other", *(f"class {c}" for c in range(1, 12))])
    for name in stream.class_names[4:]:
        assert shots(stream, name) == shots(same, name) == shots(renamed, name)
    assert any(shots(stream, name) != shots(make(shuffle=False, seed=4), name) for name in stream.class_names[4:])


def test_shots_of_a_store_and_impossible_ones(make_store, tmp_path):
    make_store(tmp_path / "store")
    stream = TaskStream.from_store(open_store(tmp_path / "store"), increment=2, init_cls=2, shots=3)
    assert stream.train_counts().tolist() == [18, 6, 6]
    with pytest.raises(UsageError, match=r"class \d+ has 9 train rows, but 10 .*\(8 classes have fewer\)"):
        make(shots=10)
    with pytest.raises(UsageError, match="0 shots"):
        make(shots=0)
    assert len(make(shots=10, init_cls=12)) == 1, "the base task may have fewer"
