"""What cells are trained and scored on: row by row, and that no test row decides anything that must be honest."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tosca_cache.errors import UsageError
from tosca_cache.sweep.request import SweepRequest
from tosca_cache.sweep.scenario import Scenario, make_scenario
from tosca_cache.sweep.search import Search
from tosca_cache.sweep.space import parse_set
from tosca_cache.tasks import class_order

COUNTS = st.lists(st.integers(2, 12), min_size=4, max_size=8)
FRACTIONS = st.sampled_from([0.01, 0.2, 0.25, 0.5, 0.9, 0.99])
SEEDS = st.integers(0, 2**32 - 1)


def split_rows(stream, split):
    """Store rows, class names and features of one split of all tasks, in the order of the rows."""
    parts = [stream.task(t).train if split == "train" else stream.test(t) for t in range(len(stream))]
    index = np.concatenate([part.index for part in parts])
    names = np.array(stream.class_names)[np.concatenate([part.labels for part in parts])]
    order = np.argsort(index, kind="stable")
    return index[order], names[order], np.concatenate([part.features for part in parts])[order]


def rows_of(arrays, classes):
    return np.flatnonzero(np.isin(arrays.labels, classes))


def assert_are(found, arrays, rows, names):
    """That rows read from a stream are these of a split, with their own labels and features."""
    np.testing.assert_array_equal(found[0], rows)
    np.testing.assert_array_equal(found[1], np.array(names)[arrays.labels[rows]])
    np.testing.assert_array_equal(found[2], arrays.features[rows])


@given(counts=COUNTS, fraction=FRACTIONS, seed=SEEDS, increment=st.integers(1, 4), shuffle=st.booleans())
def test_val_cuts_the_train_rows_of_every_class_in_two(make_data, quick, counts, fraction, seed, increment, shuffle):
    data = make_data(counts)
    data.test.features[:] = np.nan
    config = replace(quick, increment=increment, shuffle=shuffle)
    stream = make_scenario(Scenario("val", fraction), config, data, seed)
    kept, held = split_rows(stream, "train"), split_rows(stream, "test")
    for found in (kept, held):
        assert_are(found, data.train, found[0], data.class_names)
    np.testing.assert_array_equal(np.sort(np.concatenate([kept[0], held[0]])), np.arange(sum(counts)))
    for n, name in zip(counts, data.class_names, strict=True):
        out = (held[1] == name).sum()
        assert 1 <= out <= n - 1
        assert abs(out - fraction * n) <= 0.5 or out in (1, n - 1)
    assert len(stream) == -(-len(counts) // increment)


@given(counts=COUNTS, seed=SEEDS)
def test_first_task_is_val_on_the_classes_of_the_first_task(make_data, quick, counts, seed):
    data = make_data(counts)
    whole = make_scenario(Scenario("val", 0.25), replace(quick, init_cls=3), data, seed)
    first = make_scenario(Scenario("first-task", 0.25), replace(quick, init_cls=3), data, seed)
    assert len(first) == 1
    for ours, theirs in ((first.task(0).train, whole.task(0).train), (first.test(0), whole.test(0))):
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_array_equal(ours.index, theirs.index)
        np.testing.assert_array_equal(ours.features, theirs.features)
    assert first.class_names == whole.class_names[:3]
    assert whole.class_names == tuple(data.class_names[c] for c in class_order(len(counts), seed))


def test_held_out_rows_follow_from_the_seed_and_from_nothing_else(make_data, quick):
    data = make_data((20,) * 6)

    def held(seed, **setting):
        stream = make_scenario(Scenario("val", 0.2), replace(quick, **setting), data, seed)
        return split_rows(stream, "test")[0].tolist()

    expected = held(1)
    assert expected == held(1)
    for setting in ({"lr": 0.1, "l1": 0.0}, {"increment": 4, "epochs": 7}, {"shuffle": False}, {"optimizer": "adam"}):
        assert held(1, **setting) == expected
    assert len({tuple(held(seed)) for seed in range(5)}) == 5


@given(counts=COUNTS, seed=SEEDS, rows=st.sampled_from(["half-1", "half-2", "test"]))
def test_halves_are_disjoint_and_whole_and_test_is_all(make_data, quick, counts, seed, rows):
    data = make_data(counts, test=[1 + n % 3 for n in counts])
    half = len(counts) // 2
    classes = {"half-1": range(half), "half-2": range(half, 2 * half), "test": range(len(counts))}[rows]
    stream = make_scenario(Scenario(rows), quick, data, seed)
    assert set(stream.class_names) == {data.class_names[c] for c in classes}
    for split in ("train", "test"):
        arrays = getattr(data, split)
        assert_are(split_rows(stream, split), arrays, rows_of(arrays, list(classes)), data.class_names)


@pytest.mark.parametrize("rows", ["val", "first-task"])
def test_a_class_of_one_row_cannot_be_held_out(make_data, quick, rows):
    data = make_data((4, 1, 4, 4))
    with pytest.raises(UsageError, match="'class 1' has 1 train rows") as raised:
        make_scenario(Scenario(rows, 0.2), replace(quick, increment=4), data, 1)
    assert "two-phase" in raised.value.remedy
    assert len(make_scenario(Scenario("half-2"), quick, data, 1)) == 1


@pytest.mark.parametrize("setting", [{"increment": 3}, {"init_cls": 3}])
def test_halves_too_small_for_a_task_are_refused(make_data, quick, setting):
    with pytest.raises(UsageError, match="half of the classes are 2, fewer than the 3 of a task"):
        make_scenario(Scenario("half-1"), replace(quick, **setting), make_data((4,) * 5), 1)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2, 20, float("nan")])
def test_fractions_that_are_none(quick, fraction):
    with pytest.raises(UsageError) as raised:
        SweepRequest(quick, parse_set([]), seeds=(1,), fraction=fraction)
    assert raised.value.where == "--val-fraction"


@pytest.mark.parametrize("select", ["val", "first-task"])
def test_a_search_works_where_test_features_are_no_numbers(make_data, make_runner, quick, select):
    """Whatever reads one of them cannot give a finite score, or the same choice as with proper test rows."""
    request = SweepRequest(quick, parse_set(["lr=0.001,0.05", "flow=tosca,adapter"]), seeds=(1, 2), select=select)
    tables = []
    for spoiled in (True, False):
        data = make_data(noise=2.0)
        if spoiled:
            data.test.features[:] = np.nan
        with make_runner(data) as runner:
            search = Search(request, runner)
            assert search.run()
            tables.append([(s.point, s.mean, s.spread) for s in search.scored()])
    assert len(tables[0]) == 4
    assert np.isfinite([mean for _, mean, _ in tables[0]]).all()
    assert tables[0] == tables[1]
