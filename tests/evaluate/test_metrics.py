"""Metrics on examples worked by hand, and their laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tosca_cache.evaluate import metrics
from tosca_cache.evaluate.audit import audit, batch_modules
from tosca_cache.evaluate.summary import mean_and_spread, summarise, to_json

NAN = float("nan")
R = np.array([[90.0, NAN, NAN], [80.0, 70.0, NAN], [85.0, 50.0, 60.0]])
COUNTS = np.array([10, 30, 60])


def test_hand_example():
    # A_1 = 90; A_2 = (10*80 + 30*70) / 40 = 72.5; A_3 = (850 + 1500 + 3600) / 100 = 59.5
    assert metrics.accuracy_curve(R, COUNTS).tolist() == [90.0, 72.5, 59.5]
    assert metrics.average_accuracy(R, COUNTS) == pytest.approx((90 + 72.5 + 59.5) / 3)
    assert metrics.last_accuracy(R, COUNTS) == 59.5
    assert metrics.accuracy_curve(R, COUNTS, weigh="tasks").tolist() == [90.0, 75.0, 65.0]
    # task 1: max(90, 80) - 85 = 5; task 2: 70 - 50 = 20
    assert metrics.forgetting(R) == pytest.approx(12.5)
    assert metrics.backward_transfer(R) == pytest.approx(((85 - 90) + (50 - 70)) / 2)


def test_one_task_forgets_nothing_that_could_be_measured():
    one = np.array([[75.0]])
    assert np.isnan(metrics.forgetting(one))
    assert np.isnan(metrics.backward_transfer(one))
    assert metrics.average_accuracy(one, [4]) == metrics.last_accuracy(one, [4]) == 75.0


def test_few_shot_metrics_of_one_task_and_of_nothing_new():
    assert metrics.performance_drop([[75.0]], [4]) == 0.0
    assert np.isnan(metrics.harmonic_mean([[75.0]], [4]))
    nothing_new = np.array([[90.0, NAN], [80.0, 0.0]])
    assert metrics.harmonic_mean(nothing_new, [10, 10]) == 0.0
    assert metrics.harmonic_mean(0 * nothing_new, [10, 10]) == 0.0


def test_task_without_test_rows_counts_for_nothing():
    """The middle task has no rows: every metric is that of the other two."""
    row = metrics.accuracy_by_task(np.array([0, 2]), np.array([0, 1]), np.array([0, 2]), 3)
    assert row.tolist() == [100.0, pytest.approx(NAN, nan_ok=True), 0.0]
    with_hole = np.array([[90.0, NAN, NAN], [95.0, NAN, NAN], [85.0, NAN, 60.0]])
    assert metrics.accuracy_curve(with_hole, [10, 0, 30]).tolist() == [90.0, 95.0, (850 + 1800) / 40]
    assert metrics.accuracy_curve(with_hole, [10, 0, 30], weigh="tasks").tolist() == [90.0, 95.0, 72.5]
    assert metrics.forgetting(with_hole) == 10.0
    assert metrics.backward_transfer(with_hole) == -5.0


def test_a_hole_in_a_tested_task_is_not_hidden():
    holed = np.array([[90.0, NAN, NAN], [NAN, 70.0, NAN], [85.0, 50.0, 60.0]])
    assert np.isnan(metrics.forgetting(holed))
    assert np.isnan(metrics.accuracy_curve(holed, COUNTS)[1])
    assert metrics.backward_transfer(holed) == metrics.backward_transfer(R)  # does not read it


def test_no_rows_give_no_shares():
    none = np.array([], dtype=np.int64)
    assert np.isnan(metrics.task_identification_accuracy(none, none))
    tasks = np.array([0, 1])
    assert metrics.task_identification_accuracy(1 - tasks, tasks) == 0.0
    assert np.isnan(metrics.accuracy_given_right_task(tasks, tasks, 1 - tasks, tasks))


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.forgetting(np.zeros((2, 3))),
        lambda: metrics.forgetting([]),
        lambda: metrics.accuracy_curve(R, [10, 30]),
        lambda: metrics.accuracy_curve(R, COUNTS, weigh="classes"),
    ],
)
def test_wrong_shapes_and_names_are_refused(call):
    with pytest.raises(ValueError, match="must"):
        call()


def test_accuracy_by_task_keeps_the_last_class_of_one_class_tasks():
    labels = np.array([0, 0, 1, 2])
    row = metrics.accuracy_by_task(np.array([0, 1, 1, 2]), labels, labels, 3)
    assert row.tolist() == [50.0, 100.0, 100.0]


@given(seed=st.integers(0, 10**6), tasks=st.integers(1, 5), rows=st.integers(5, 60))
def test_accuracy_is_right_task_times_right_class(seed, tasks, rows):
    """acc = TIA * P(class right | task right) + what wrong modules get right by luck; acc from R equals acc over rows."""
    generator = np.random.default_rng(seed)
    true_task = np.sort(np.concatenate([np.arange(tasks), generator.integers(0, tasks, rows)]))
    labels, prediction = true_task, generator.integers(0, tasks, len(true_task))
    modules = generator.integers(0, tasks, len(true_task))
    counts = np.bincount(true_task, minlength=tasks)
    matrix = np.full((tasks, tasks), NAN)
    for i in range(tasks):
        n = counts[: i + 1].sum()
        matrix[i, : i + 1] = metrics.accuracy_by_task(prediction[:n], labels[:n], true_task[:n], i + 1)
    summary = summarise(matrix, counts, prediction, modules, labels, true_task)
    assert summary["last_accuracy"] == pytest.approx(100 * (prediction == labels).mean())
    if (modules == true_task).any():
        joint = ((modules == true_task) & (prediction == labels)).mean()
        share = summary["task_identification_accuracy"] * summary["accuracy_given_right_task"] / 100
        assert share == pytest.approx(100 * joint)


def test_batch_routing_depends_on_the_order_of_the_rows():
    entropy = np.array([[0.0, 1.0, 0.0, 1.0], [0.6, 0.3, 0.6, 0.3]])  # per sample: 0 1 0 1
    assert batch_modules(entropy, 1).tolist() == [0, 1, 0, 1]
    assert batch_modules(entropy, 2).tolist() == [1, 1, 1, 1]
    assert batch_modules(entropy, 2, np.array([0, 2, 1, 3])).tolist() == [0, 1, 0, 1]


def test_audit_names_the_four_conditions():
    entropy = np.array([[0.1, 0.9, 0.1], [0.5, 0.4, 0.5]])
    prediction = np.array([[0, 0, 0], [1, 1, 1]])
    conditions = audit(entropy, prediction, np.array([0, 1, 1]), np.array([0, 1, 1]), batch_size=2, seed=0)
    assert set(conditions) == {"per_sample", "batch_shuffled", "batch_in_order", "oracle"}
    assert conditions["oracle"] == 100.0
    assert conditions["per_sample"] == pytest.approx(200 / 3)


def test_spread_and_json():
    mean, spread = mean_and_spread([{"a": 1.0}, {"a": 3.0}])
    assert (mean["a"], spread["a"]) == (2.0, pytest.approx(2**0.5))
    assert np.isnan(mean_and_spread([{"a": 1.0}])[1]["a"])
    assert to_json({"R": R, 3: np.float64(NAN)}) == {
        "R": [[90.0, None, None], [80.0, 70.0, None], [85.0, 50.0, 60.0]],
        "3": None,
    }
