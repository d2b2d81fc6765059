"""Few-shot streams: a base task with all its rows, then tasks of a few rows of each class."""

import numpy as np
import pytest

from tosca_cache.errors import UsageError
from tosca_cache.evaluate.metrics import harmonic_mean, performance_drop
from tosca_cache.learners import LEARNERS
from tosca_cache.store import open_store
from tosca_cache.tasks import Arrays, TaskStream

PROTOCOLS = {  # classes, init_cls, increment, tasks (methods.md 8)
    "CUB-200": (200, 100, 10, 11),
    "CIFAR-100 and miniImageNet": (100, 60, 5, 9),
}


def make(*, classes=12, rows=9, init_cls=4, increment=2, shots=5, seed=3, names=None, shuffle=True):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(classes), rows))
    features = np.random.default_rng(1).normal(size=(len(labels), 2, 3)).astype(np.float32)
    arrays = Arrays(features, labels)
    return TaskStream(
        arrays,
        arrays,
        class_names=names or [f"class {c}" for c in range(classes)],
        increment=increment,
        init_cls=init_cls,
        seed=seed,
        shots=shots,
        shuffle=shuffle,
    )


@pytest.mark.parametrize("name", PROTOCOLS)
def test_published_protocols(name):
    classes, init_cls, increment, tasks = PROTOCOLS[name]
    stream = make(classes=classes, init_cls=init_cls, increment=increment, rows=6)
    assert len(stream) == tasks
    assert stream.train_counts().tolist() == [6 * init_cls] + [5 * increment] * (tasks - 1)


def test_the_first_task_and_all_test_rows_are_whole():
    few, whole = make(), make(shots=None)
    for number in range(len(whole)):
        np.testing.assert_array_equal(few.test(number).index, whole.test(number).index)
    np.testing.assert_array_equal(few.task(0).train.index, whole.task(0).train.index)
    for number in range(1, len(whole)):
        kept, rows = few.task(number).train, whole.task(number).train
        assert np.bincount(kept.labels)[whole.classes(number)].tolist() == [5] * len(whole.classes(number))
        assert set(kept.index) < set(rows.index)
        place = {row: place for place, row in enumerate(rows.index)}
        order = [place[row] for row in kept.index]
        assert order == sorted(order), "class by class and in store order, as without shots"
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


def test_as_many_shots_as_rows_change_nothing():
    for few, whole in zip(make(shots=9), make(shots=None), strict=True):
        np.testing.assert_array_equal(few.train.index, whole.train.index)


def test_impossible_shots_are_refused():
    with pytest.raises(UsageError, match=r"class \d+ has 9 train rows, but 10 .*\(8 classes have fewer\)"):
        make(shots=10)
    with pytest.raises(UsageError, match="0 shots"):
        make(shots=0)
    assert len(make(shots=10, init_cls=12)) == 1, "the base task may have fewer"


def test_from_a_store(make_store, tmp_path):
    make_store(tmp_path / "store")
    stream = TaskStream.from_store(open_store(tmp_path / "store"), increment=2, init_cls=2, shots=3)
    assert stream.train_counts().tolist() == [18, 6, 6]


def test_a_learner_and_its_few_shot_metrics(make_stream):
    whole = make_stream(classes=8, init_cls=4, increment=2)
    stream = TaskStream(
        whole._train, whole._test, class_names=whole.class_names, init_cls=4, increment=2, shots=2, seed=1
    )
    learner = LEARNERS["teen"]()
    R, counts = np.zeros((3, 3)), [len(stream.test(t)) for t in range(3)]
    for task in stream:
        learner.observe(task)
        for seen in range(task.number + 1):
            test = stream.test(seen)
            R[task.number, seen] = 100 * (learner.scores(test.features[:, 0]).argmax(1) == test.labels).mean()
    assert harmonic_mean(R, counts) > 60
    assert performance_drop(R, counts) < 30
