"""Per-sample routing cannot depend on test order or batch size; batch routing does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tosca_cache.config import Settings
from tosca_cache.errors import UsageError
from tosca_cache.learners.simplecil import SimpleCil
from tosca_cache.learners.tosca import Tosca
from tosca_cache.routing import make_router
from tosca_cache.tasks import Arrays, TaskStream

QUICK = Settings(epochs=3, batch_size=8, mlp_ratio=4, se_ratio=4)


@pytest.fixture(scope="module")
def stream():
    """Twelve overlapping Gaussian classes, so that routing is not trivial."""
    generator = np.random.default_rng(5)
    means = generator.normal(size=(12, 8))
    labels = np.repeat(np.arange(12), 20)
    features = (means[labels][:, None] + 0.8 * generator.normal(size=(240, 3, 8))).astype(np.float32)
    split = np.arange(240) % 20 < 12
    train, test = (Arrays(features[rows], labels[rows]) for rows in (split, ~split))
    return TaskStream(train, test, class_names=[str(c) for c in range(12)], increment=3, seed=3)


def learn(stream, **options):
    learner = Tosca(QUICK, seed=3, **options)
    for task in stream:
        learner.observe(task)
    return learner


@pytest.fixture(scope="module")
def tosca(stream):
    return learn(stream)


def clean(stream):
    return np.concatenate([stream.test(t).features[:, 0] for t in range(len(stream))])


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_per_sample_predictions_ignore_order_and_batching(stream, tosca, data):
    rows = clean(stream)
    expected = tosca.scores(rows).argmax(1)
    order = np.array(data.draw(st.permutations(range(len(rows)))))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rows) - 1), max_size=6)))
    parts = [tosca.scores(rows[part]).argmax(1) for part in np.split(order, cuts)]
    assert np.array_equal(np.concatenate(parts), expected[order])


def test_batch_routing_depends_on_order(stream):
    official = learn(stream, router="batch", routing_batch_size=12)
    rows = clean(stream)
    order = np.random.default_rng(0).permutation(len(rows))
    in_order, shuffled = official.scores(rows).argmax(1), official.scores(rows[order]).argmax(1)
    assert not np.array_equal(shuffled, in_order[order])


def test_identity_module_gives_simplecil(stream):
    """A calibrator of zero weights scales x by 1/2, which the cosine head does not see."""
    simple, identity = SimpleCil(), Tosca(Settings(flow="calibrator"))
    for task in stream:
        simple.observe(task)
        shape = identity.shape(stream.dim)
        from tosca_cache.luca.initialise import initial_head, initial_luca
        from tosca_cache.luca.parameters import Luca

        zero = Luca(*(t * 0 for t in initial_luca(shape, 0, 0)))
        head = identity.bank.head or initial_head(stream.dim, task.classes.stop, 0)
        identity.learn(task, zero, head, batches=[])
    rows = clean(stream)
    np.testing.assert_allclose(identity.scores(rows), simple.scores(rows), rtol=1e-5, atol=1e-6)
    assert np.array_equal(identity.scores(rows).argmax(1), simple.scores(rows).argmax(1))


def test_same_seed_twice_gives_the_same_bits(stream, tosca):
    again = learn(stream)
    assert np.array_equal(again.scores(clean(stream)), tosca.scores(clean(stream)))


def test_future_tasks_are_never_chosen(stream):
    learner = Tosca(QUICK, seed=3)
    rows = clean(stream)
    for task in stream:
        learner.observe(task)
        assert learner.scores(rows).shape == (len(rows), task.classes.stop)


def test_unknown_router_is_named_with_the_known_ones():
    with pytest.raises(UsageError, match="sample"):
        make_router("nonsense")
