"""What every registered router must do."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from campaign import times
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.gaussian import clean_rows, make_domain_stream, make_stream

from tosca_cache.config import Settings
from tosca_cache.learners.tosca import Tosca
from tosca_cache.routing import ROUTERS, make_router

QUICK = Settings(epochs=2, batch_size=8, mlp_ratio=4, se_ratio=4)
# A large first task and a remainder, one class a task, all classes in one task, and a domain a task.
SPLITS = {"unequal": (2, 5), "single classes": (1, None), "one task": (12, None), "domains": None}


@pytest.fixture(scope="module", params=SPLITS)
def stream(request):
    if request.param == "domains":
        return make_domain_stream(test_views=2)
    increment, first = SPLITS[request.param]
    return make_stream(increment, init_cls=first, rows=7, classes=12, dim=8, views=2, test_views=2, noise=1.6)


@pytest.fixture(scope="module")
def tosca(stream):
    learner = Tosca(QUICK, seed=3)
    for task in stream:
        learner.observe(task)
    return learner


@pytest.fixture(scope="module")
def rows(stream):
    return np.concatenate([stream.test(t).features for t in range(len(stream))])


def outputs_of(learner, rows):
    test_set = learner.test_set()
    test_set.add(rows)
    return test_set.outputs()


def fitted(name, stream, learner):
    router = make_router(name)
    for task in stream:
        router.fit(task, learner.bank)
    return router


@pytest.mark.campaign
@pytest.mark.parametrize("name", sorted(ROUTERS))
@settings(max_examples=times(2, 20), deadline=None)
@given(data=st.data())
def test_a_sample_alone_decides(stream, tosca, rows, name, data):
    """Permuting the samples, or asking about them in parts, changes no answer."""
    router = fitted(name, stream, tosca)
    expected = router.predict(outputs_of(tosca, rows))
    order = np.array(data.draw(st.permutations(range(len(rows)))))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rows) - 1), max_size=5)))
    parts = [router.predict(outputs_of(tosca, rows[part])) for part in np.split(order, cuts)]
    for found, wanted in zip(zip(*parts, strict=True), expected, strict=True):
        np.testing.assert_array_equal(torch.cat(found), wanted[order])


@pytest.mark.parametrize("name", sorted(ROUTERS))
def test_the_answer_is_the_largest_score_of_a_module_that_exists_and_what_was_learned_can_be_kept(stream, rows, name):
    learner = Tosca(QUICK, seed=3, router=name)
    for task in stream:
        learner.observe(task)
        outputs = outputs_of(learner, rows)
        modules, labels = found = learner.route(outputs)
        assert modules.shape == labels.shape == (len(rows),)
        assert modules.dtype == labels.dtype == torch.int64
        assert 0 <= int(modules.min()) <= int(modules.max()) <= task.number
        scores = learner.router.scores(outputs)
        assert scores.shape == (len(rows), task.classes.stop)
        assert torch.equal(scores.argmax(1), labels) and torch.equal(modules, learner.router.route(outputs))
    again = make_router(name)
    again.load_state({key: value.clone() for key, value in learner.router.state().items()})
    assert all(torch.equal(a, b) for a, b in zip(again.predict(outputs), found, strict=True))
    assert again.source and again.stores and again.cost


def test_routers_that_share_a_cache_predict_as_alone(stream, tosca, rows):
    outputs, cache = outputs_of(tosca, rows), {}
    together = {name: make_router(name) for name in sorted(ROUTERS)}
    for router in together.values():
        router.share_cache(cache)
    for task in stream:
        for router in together.values():
            router.fit(task, tosca.bank)
    for name, router in together.items():
        for found, wanted in zip(router.predict(outputs), fitted(name, stream, tosca).predict(outputs), strict=True):
            assert torch.equal(found, wanted), name


def test_batch_routing_depends_on_the_order_of_rows():
    stream, learner = make_stream(2), Tosca(QUICK, seed=3, router="batch", routing_batch_size=12)
    for task in stream:
        learner.observe(task)
    rows = clean_rows(stream)
    order = np.random.default_rng(0).permutation(len(rows))
    assert not np.array_equal(learner.scores(rows[order]).argmax(1), learner.scores(rows).argmax(1)[order])


def test_the_router_of_the_documentation_works(tosca, rows, monkeypatch):
    text = (Path(__file__).parents[2] / "docs" / "routers.md").read_text(encoding="utf-8")
    monkeypatch.setattr("tosca_cache.routing.base.ROUTERS", dict(ROUTERS))
    names = {}
    exec(re.search(r"```python\n(.*?)```", text, re.S)[1], names)
    outputs = outputs_of(tosca, rows)
    first_near = [int(np.flatnonzero(row <= row.min() + np.float32(0.05))[0]) for row in outputs.entropy.numpy().T]
    assert names["LeastRecent"]().route(outputs).tolist() == first_near
