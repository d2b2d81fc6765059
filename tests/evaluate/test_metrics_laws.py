"""Metrics against plain loops (tests/reference/metrics_plain.py), and the laws that hold between them."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import metrics_plain as plain

from tosca_cache.evaluate import metrics
from tosca_cache.evaluate.summary import summarise

NAN = float("nan")
percents = st.integers(0, 1000).map(lambda tenths: tenths / 10)


@st.composite
def matrices(draw, smallest=1, ahead=False):
    """(R as an array, R as lists with None): accuracies on and below the diagonal; just above it too if `ahead`."""
    T = draw(st.integers(smallest, 6))
    rows = [[draw(percents) if task <= after + ahead else None for task in range(T)] for after in range(T)]
    return np.array([[NAN if value is None else value for value in row] for row in rows]), rows


def same(ours, theirs):
    return ours == pytest.approx(theirs, abs=1e-9, nan_ok=True)


@given(matrices(), st.data())
def test_accuracy_as_in_plain_loops(matrix, data):
    R, rows = matrix
    counts = data.draw(st.lists(st.integers(1, 50), min_size=len(R), max_size=len(R)))
    for after in range(len(R)):
        over_samples = metrics.accuracy_curve(R, counts)[after]
        assert same(over_samples, plain.accuracy_over_samples(rows, counts, after))
        assert same(metrics.accuracy_curve(R, counts, weigh="tasks")[after], plain.accuracy_over_tasks(rows, after))
    assert same(
        metrics.average_accuracy(R, counts),
        plain.mean([plain.accuracy_over_samples(rows, counts, after) for after in range(len(R))]),
    )
    assert same(metrics.harmonic_mean(R, counts), plain.harmonic_mean(rows, counts))


@pytest.mark.parametrize(
    ("function", "reference"),
    [
        (metrics.forgetting, plain.forgetting),
        (metrics.backward_transfer, plain.backward_transfer),
    ],
)
@given(matrix=st.booleans().flatmap(lambda ahead: matrices(ahead=ahead)))
def test_forgetting_and_transfer_as_in_plain_loops(function, reference, matrix):
    R, rows = matrix
    given_matrix = R.copy()
    assert same(function(R), reference(rows))
    np.testing.assert_array_equal(R, given_matrix)


@given(matrices(smallest=2, ahead=True))
def test_forgetting_is_at_least_what_backward_transfer_says(matrix):
    R, _ = matrix
    assert metrics.forgetting(R) >= -metrics.backward_transfer(R) - 1e-9
    within = np.where(np.tri(len(R), dtype=bool), R, NAN)
    assert metrics.forgetting(within) == metrics.forgetting(R)


@given(matrices(smallest=2))
def test_two_tasks_know_one_kind_of_forgetting(matrix):
    R = matrix[0][:2, :2]
    loss = R[0, 0] - R[1, 0]
    assert metrics.forgetting(R) == -metrics.backward_transfer(R) == loss


@given(matrices(), st.integers(1, 50), st.integers(1, 9))
def test_equal_counts_make_samples_and_tasks_agree(matrix, count, factor):
    R, _ = matrix
    counts = np.full(len(R), count)
    over_tasks = metrics.accuracy_curve(R, counts, weigh="tasks")
    np.testing.assert_allclose(metrics.accuracy_curve(R, counts), over_tasks)
    np.testing.assert_allclose(metrics.accuracy_curve(R, counts * factor), over_tasks)
    assert metrics.performance_drop(R, counts) == pytest.approx(over_tasks[0] - over_tasks[-1])
    assert over_tasks.min() - 1e-9 <= metrics.average_accuracy(R, counts) <= over_tasks.max() + 1e-9


@given(matrices(), percents)
def test_nothing_changes_when_accuracies_stay(matrix, level):
    T = len(matrix[0])
    flat = np.where(np.tri(T, dtype=bool), level, NAN)
    expected = 0.0 if T > 1 else NAN
    assert same(metrics.forgetting(flat), expected) and same(metrics.backward_transfer(flat), expected)


@dataclass
class Answers:
    """Rows of a stream in file order, with a prediction and a module for each."""

    task_of_class: np.ndarray
    labels: np.ndarray
    tasks: np.ndarray
    scores: np.ndarray
    prediction: np.ndarray
    modules: np.ndarray


@st.composite
def answers(draw):
    """Tasks of unequal numbers of classes (one class too, a remainder too), classes of unequal numbers of rows."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    task_of_class = np.repeat(np.arange(len(sizes)), sizes)
    C = len(task_of_class)
    labels = np.repeat(np.arange(C), draw(st.lists(st.integers(1, 5), min_size=C, max_size=C)))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = generator.normal(size=(len(labels), C))
    scores[np.arange(len(labels)), labels] += draw(st.sampled_from([0.0, 1.0, 3.0]))
    modules = generator.integers(0, len(sizes), len(labels))
    return Answers(task_of_class, labels, task_of_class[labels], scores, scores.argmax(1), modules)


def matrix_of(a):
    """R of a method that gives these answers after the last task, and before it the best class among those seen."""
    T = len(set(a.tasks.tolist()))
    R = np.full((T, T), NAN)
    for after in range(T):
        n = (a.tasks <= after).sum()
        candidates = (a.task_of_class <= after).sum()
        prediction = a.scores[:n, :candidates].argmax(1)
        R[after, : after + 1] = metrics.accuracy_by_task(prediction, a.labels[:n], a.tasks[:n], after + 1)
    return R


@given(answers())
def test_matrix_of_unequal_tasks_gives_the_accuracy_over_rows(a):
    R, counts = matrix_of(a), np.bincount(a.tasks)
    for task, value in enumerate(R[-1]):
        own = a.tasks == task
        assert same(value, plain.accuracy(a.prediction[own].tolist(), a.labels[own].tolist()))
    assert same(metrics.last_accuracy(R, counts), plain.accuracy(a.prediction.tolist(), a.labels.tolist()))
    assert same(metrics.last_accuracy(R, counts, weigh="tasks"), R[-1].mean())
    summary = summarise(R, counts, a.prediction, a.modules, a.labels, a.tasks)
    assert same(summary["last_accuracy"], metrics.last_accuracy(R, counts))


@given(answers())
def test_accuracy_is_task_times_class_where_a_wrong_task_cannot_be_right(a):
    own_classes_only = np.where(a.task_of_class[None] == a.modules[:, None], a.scores, -np.inf).argmax(1)
    by_class = a.task_of_class[a.prediction]
    for prediction, modules in [(own_classes_only, a.modules), (a.prediction, by_class)]:
        accuracy = plain.accuracy(prediction.tolist(), a.labels.tolist())
        identified = metrics.task_identification_accuracy(modules, a.tasks)
        given_task = metrics.accuracy_given_right_task(prediction, a.labels, modules, a.tasks)
        assert accuracy <= identified + 1e-9
        assert same(accuracy, identified * given_task / 100 if identified else 0.0)


@given(answers())
def test_accuracy_is_at_least_the_product_where_modules_score_all_classes(a):
    accuracy = plain.accuracy(a.prediction.tolist(), a.labels.tolist())
    identified = metrics.task_identification_accuracy(a.modules, a.tasks)
    if identified:
        given_task = metrics.accuracy_given_right_task(a.prediction, a.labels, a.modules, a.tasks)
        assert accuracy >= identified * given_task / 100 - 1e-9


@given(answers(), st.randoms(use_true_random=False))
def test_order_of_the_rows_does_not_matter(a, random):
    order = list(range(len(a.labels)))
    random.shuffle(order)
    row = metrics.accuracy_by_task(a.prediction, a.labels, a.tasks, len(set(a.tasks.tolist())))
    moved = metrics.accuracy_by_task(a.prediction[order], a.labels[order], a.tasks[order], len(row))
    np.testing.assert_array_equal(row, moved)
    assert metrics.task_identification_accuracy(a.modules, a.tasks) == metrics.task_identification_accuracy(
        a.modules[order], a.tasks[order]
    )
