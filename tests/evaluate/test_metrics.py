"""Metrics against plain loops (tests/reference/metrics_plain.py), on the examples of docs/metrics.md, and at edges."""

import doctest
import inspect
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import metrics_plain as plain

from tosca_cache.evaluate import metrics
from tosca_cache.evaluate.audit import audit, batch_modules
from tosca_cache.evaluate.summary import mean_and_spread, summarise, to_json

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
HELPERS = {"as_matrix", "on_or_below_diagonal", "mean_over_tasks", "share"}
NAN = float("nan")
R = np.array([[90.0, NAN, NAN], [80.0, 70.0, NAN], [85.0, 50.0, 60.0]])
COUNTS = np.array([10, 30, 60])
percents = st.integers(0, 1000).map(lambda tenths: tenths / 10)


def test_examples_of_the_docs_give_the_printed_numbers_and_no_metric_is_missing_there():
    failed, tried = doctest.testfile(str(DOCS), module_relative=False, encoding="utf-8")
    assert tried > 15 and failed == 0
    for name, function in inspect.getmembers(metrics, inspect.isfunction):
        if function.__module__ == metrics.__name__ and not name.startswith("_") and name not in HELPERS:
            assert name in DOCS.read_text(encoding="utf-8") and function.__doc__, name


@st.composite
def matrices(draw):
    """(R as an array, R as lists with None): accuracies on and below the diagonal; just above it too, or not."""
    T, ahead = draw(st.integers(1, 6)), draw(st.booleans())
    rows = [[draw(percents) if task <= after + ahead else None for task in range(T)] for after in range(T)]
    return np.array([[NAN if value is None else value for value in row] for row in rows]), rows


def same(ours, theirs):
    return ours == pytest.approx(theirs, abs=1e-9, nan_ok=True)


@given(matrices(), st.data())
def test_metrics_as_in_plain_loops(matrix, data):
    R, rows = matrix
    given_matrix = R.copy()
    counts = data.draw(st.lists(st.integers(1, 50), min_size=len(R), max_size=len(R)))
    curve, over_tasks = metrics.accuracy_curve(R, counts), metrics.accuracy_curve(R, counts, weigh="tasks")
    expected = [plain.accuracy_over_samples(rows, counts, after) for after in range(len(R))]
    assert same(curve, expected) and same(metrics.average_accuracy(R, counts), plain.mean(expected))
    assert same(over_tasks, [plain.accuracy_over_tasks(rows, after) for after in range(len(R))])
    assert same(metrics.performance_drop(R, counts), expected[0] - expected[-1])
    assert same(metrics.harmonic_mean(R, counts), plain.harmonic_mean(rows, counts))
    assert same(metrics.forgetting(R), plain.forgetting(rows))
    assert same(metrics.backward_transfer(R), plain.backward_transfer(rows))
    assert len(R) == 1 or metrics.forgetting(R) >= -metrics.backward_transfer(R) - 1e-9
    np.testing.assert_array_equal(R, given_matrix)
    assert same(metrics.harmonic_mean(0 * R, counts), plain.harmonic_mean([[0.0] * len(R)] * len(R), counts))


def test_a_task_without_test_rows_counts_for_nothing_and_a_hole_in_a_tested_one_is_not_hidden():
    """Without rows of the middle task, every metric is that of the other two."""
    row = metrics.accuracy_by_task(np.array([0, 2]), np.array([0, 1]), np.array([0, 2]), 3)
    assert row.tolist() == [100.0, pytest.approx(NAN, nan_ok=True), 0.0]
    empty = np.array([[90.0, NAN, NAN], [95.0, NAN, NAN], [85.0, NAN, 60.0]])
    assert metrics.accuracy_curve(empty, [10, 0, 30]).tolist() == [90.0, 95.0, (850 + 1800) / 40]
    assert metrics.accuracy_curve(empty, [10, 0, 30], weigh="tasks").tolist() == [90.0, 95.0, 72.5]
    assert (metrics.forgetting(empty), metrics.backward_transfer(empty)) == (10.0, -5.0)
    holed = np.array([[90.0, NAN, NAN], [NAN, 70.0, NAN], [85.0, 50.0, 60.0]])
    assert np.isnan([metrics.forgetting(holed), metrics.accuracy_curve(holed, COUNTS)[1]]).all()
    assert metrics.backward_transfer(holed) == metrics.backward_transfer(R)  # does not read it
    none, tasks = np.array([], dtype=np.int64), np.array([0, 1])
    assert np.isnan(metrics.task_identification_accuracy(none, none))
    assert np.isnan(metrics.accuracy_given_right_task(tasks, tasks, 1 - tasks, tasks))


def test_wrong_shapes_and_names_are_refused():
    for metric, *asked in (
        (metrics.forgetting, np.zeros((2, 3))),
        (metrics.forgetting, []),
        (metrics.accuracy_curve, R, [10, 30]),
        (partial(metrics.accuracy_curve, weigh="classes"), R, COUNTS),
    ):
        with pytest.raises(ValueError, match="must"):
            metric(*asked)


@st.composite
def answers(draw):
    """Rows of a stream in file order with a prediction and a module each; tasks and classes of unequal sizes."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    task_of_class = np.repeat(np.arange(len(sizes)), sizes)
    C = len(task_of_class)
    labels = np.repeat(np.arange(C), draw(st.lists(st.integers(1, 5), min_size=C, max_size=C)))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = generator.normal(size=(len(labels), C))
    scores[np.arange(len(labels)), labels] += draw(st.sampled_from([0.0, 1.0, 3.0]))
    rows = {"labels": labels, "tasks": task_of_class[labels], "scores": scores, "prediction": scores.argmax(1)}
    return SimpleNamespace(**rows, task_of_class=task_of_class, modules=generator.integers(0, len(sizes), len(labels)))


@given(answers(), st.randoms(use_true_random=False))
def test_matrix_of_unequal_tasks_gives_the_accuracy_over_rows_in_any_order(a, random):
    """R of a learner that predicts, after each task, the best class among those seen."""
    counts = np.bincount(a.tasks)
    R, order = np.full((len(counts), len(counts)), NAN), list(range(len(a.labels)))
    random.shuffle(order)
    for after in range(len(counts)):
        seen = [row for row in order if a.tasks[row] <= after]
        prediction = a.scores[:, : (a.task_of_class <= after).sum()].argmax(1)
        R[after, : after + 1] = metrics.accuracy_by_task(prediction[seen], a.labels[seen], a.tasks[seen], after + 1)
    for task, value in enumerate(R[-1]):
        own = a.tasks == task
        assert same(value, plain.accuracy(a.prediction[own].tolist(), a.labels[own].tolist()))
    assert same(metrics.last_accuracy(R, counts), plain.accuracy(a.prediction.tolist(), a.labels.tolist()))
    assert same(metrics.last_accuracy(R, counts, weigh="tasks"), R[-1].mean())
    summary = summarise(R, counts, a.prediction, a.modules, a.labels, a.tasks)
    assert same(summary["last_accuracy"], metrics.last_accuracy(R, counts))


@given(answers())
def test_accuracy_is_task_times_class_where_a_wrong_task_cannot_be_right(a):
    """And at least that where modules score all classes."""
    own_classes_only = np.where(a.task_of_class[None] == a.modules[:, None], a.scores, -np.inf).argmax(1)
    by_class = a.task_of_class[a.prediction]
    for prediction, modules, exact in (
        (own_classes_only, a.modules, True),
        (a.prediction, by_class, True),
        (a.prediction, a.modules, False),
    ):
        accuracy = plain.accuracy(prediction.tolist(), a.labels.tolist())
        identified = metrics.task_identification_accuracy(modules, a.tasks)
        given_task = metrics.accuracy_given_right_task(prediction, a.labels, modules, a.tasks)
        product = identified * given_task / 100 if identified else 0.0
        assert same(accuracy, product) if exact else accuracy >= product - 1e-9


def test_batch_routing_depends_on_the_order_of_the_rows_and_the_audit_names_the_four_conditions():
    entropy = np.array([[0.0, 1.0, 0.0, 1.0], [0.6, 0.3, 0.6, 0.3]])  # per sample: 0 1 0 1
    assert batch_modules(entropy, 1).tolist() == [0, 1, 0, 1]
    assert batch_modules(entropy, 2).tolist() == [1, 1, 1, 1]
    assert batch_modules(entropy, 2, np.array([0, 2, 1, 3])).tolist() == [0, 1, 0, 1]
    entropy = np.array([[0.1, 0.9, 0.1], [0.5, 0.4, 0.5]])
    prediction = np.array([[0, 0, 0], [1, 1, 1]])
    conditions = audit(entropy, prediction, np.array([0, 1, 1]), np.array([0, 1, 1]), batch_size=2, seed=0)
    assert set(conditions) == {"per_sample", "batch_shuffled", "batch_in_order", "oracle"}
    assert (conditions["oracle"], conditions["per_sample"]) == (100.0, pytest.approx(200 / 3))


def test_spread_and_json():
    mean, spread = mean_and_spread([{"a": 1.0}, {"a": 3.0}])
    assert (mean["a"], spread["a"]) == (2.0, pytest.approx(2**0.5))
    assert np.isnan(mean_and_spread([{"a": 1.0}])[1]["a"])
    rows = [[90.0, None, None], [80.0, 70.0, None], [85.0, 50.0, 60.0]]
    assert to_json({"R": R, 3: np.float64(NAN)}) == {"R": rows, "3": None}
