"""Rows and views of every step."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tosca_cache.train.batches import epoch_batches, view_schedule


@given(rows=st.integers(1, 30), views=st.integers(0, 5), epochs=st.integers(1, 12), size=st.integers(1, 40))
def test_each_epoch_shows_every_row_once_in_full_batches_but_the_last(rows, views, epochs, size):
    steps = list(epoch_batches(rows, views, epochs=epochs, batch_size=size, seed=3, task=1))
    for epoch in range(epochs):
        mine = [step for step in steps if step.epoch == epoch]
        assert sorted(np.concatenate([step.rows for step in mine]).tolist()) == list(range(rows))
        assert all(len(step.rows) == size for step in mine[:-1])
        assert len(mine) == -(-rows // size)
    assert [step.epoch for step in steps] == sorted(step.epoch for step in steps)


@given(rows=st.integers(1, 20), views=st.integers(1, 6), epochs=st.integers(1, 20), seed=st.integers(0, 99))
def test_views_do_not_repeat_until_used_up(rows, views, epochs, seed):
    schedule = view_schedule(rows, views, epochs, np.random.default_rng(seed))
    assert schedule.shape == (epochs, rows)
    for row in schedule.T:
        for start in range(0, epochs, views):
            part = row[start : start + views]
            assert len(set(part)) == len(part) and part.min() >= 1 and part.max() <= views


def test_views_come_in_different_orders_and_steps_depend_on_seed_and_task_only():
    schedule = view_schedule(200, 4, 8, np.random.default_rng(0))
    assert len({tuple(row) for row in schedule.T}) > 100

    def steps(seed, task):
        found = epoch_batches(9, 3, epochs=2, batch_size=4, seed=seed, task=task)
        return [(s.epoch, s.rows.tolist(), s.views.tolist()) for s in found]

    assert steps(1, 0) == steps(1, 0) != steps(2, 0)
    assert steps(1, 0) != steps(1, 1)
