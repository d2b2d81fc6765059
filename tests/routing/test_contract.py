"""What every registered router must do, and what each of them says it computes."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from campaign import times
from hypothesis import given, settings
from hypothesis import strategies as st
from learners.test_learners import make_domain_stream
from reference.closed_form_plain import softmax

from tosca_cache.config import Settings
from tosca_cache.errors import UsageError
from tosca_cache.learners.tosca import Tosca
from tosca_cache.routing import ROUTERS, make_router
from tosca_cache.routing.base import ModuleOutputs
from tosca_cache.tasks import Arrays, TaskStream

QUICK = Settings(epochs=2, batch_size=8, mlp_ratio=4, se_ratio=4)
# Equal tasks, a large first one and a remainder, one class a task, all classes in one task, and a domain a task.
SPLITS = {"equal": (3, None), "unequal": (2, 5), "single classes": (1, None), "one task": (12, None), "domains": None}


def make_stream(increment, init_cls):
    generator = np.random.default_rng(5)
    means = generator.normal(size=(12, 8))
    labels = np.repeat(np.arange(12), 12)
    features = (means[labels][:, None] + 0.8 * generator.normal(size=(144, 2, 8))).astype(np.float32)
    split = np.arange(144) % 12 < 7
    train, test = (Arrays(features[rows], labels[rows]) for rows in (split, ~split))
    names = [str(c) for c in range(12)]
    return TaskStream(train, test, class_names=names, increment=increment, init_cls=init_cls, seed=3)


# "equal" shows what "unequal" shows.
@pytest.fixture(
    scope="module", params=[pytest.param(key, marks=pytest.mark.long) if key == "equal" else key for key in SPLITS]
)
def stream(request):
    return make_domain_stream(test_views=2) if request.param == "domains" else make_stream(*SPLITS[request.param])


@pytest.fixture(scope="module")
def tosca(stream):
    learner = Tosca(QUICK, seed=3)
    for task in stream:
        learner.observe(task)
    return learner


def rows_of(stream):
    return np.concatenate([stream.test(t).features for t in range(len(stream))])


def evidence_of(learner, rows):
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
def test_a_sample_alone_decides(stream, tosca, name, data):
    """Permuting the samples, or asking about them in parts, changes no answer."""
    router, rows = fitted(name, stream, tosca), rows_of(stream)
    expected = router.predict(evidence_of(tosca, rows))
    order = np.array(data.draw(st.permutations(range(len(rows)))))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rows) - 1), max_size=5)))
    parts = [router.predict(evidence_of(tosca, rows[part])) for part in np.split(order, cuts)]
    for found, wanted in zip(zip(*parts, strict=True), expected, strict=True):
        np.testing.assert_array_equal(torch.cat(found), wanted[order])


@pytest.mark.parametrize("name", sorted(ROUTERS))
def test_only_modules_that_exist_are_chosen(stream, name):
    learner, rows = Tosca(QUICK, seed=3, router=name), rows_of(stream)
    for task in stream:
        learner.observe(task)
        modules, labels = learner.route(evidence_of(learner, rows))
        assert modules.shape == labels.shape == (len(rows),)
        assert modules.dtype == labels.dtype == torch.int64
        assert 0 <= int(modules.min()) <= int(modules.max()) <= task.number
        assert 0 <= int(labels.min()) <= int(labels.max()) < task.classes.stop


def test_routers_that_share_a_cache_predict_as_alone(stream, tosca):
    outputs, cache = evidence_of(tosca, rows_of(stream)), {}
    together = {name: make_router(name) for name in sorted(ROUTERS)}
    for router in together.values():
        router.share_cache(cache)
    for task in stream:
        for router in together.values():
            router.fit(task, tosca.bank)
    for name, router in together.items():
        for found, wanted in zip(router.predict(outputs), fitted(name, stream, tosca).predict(outputs), strict=True):
            assert torch.equal(found, wanted), name


@pytest.mark.parametrize("name", sorted(ROUTERS))
def test_the_answer_is_the_largest_score_and_what_was_learned_can_be_kept(stream, tosca, name):
    router, outputs = fitted(name, stream, tosca), evidence_of(tosca, rows_of(stream))
    modules, labels = router.predict(outputs)
    assert torch.equal(modules, router.route(outputs))
    scores = router.scores(outputs)
    assert scores.shape == (len(labels), stream.stops[-1])
    assert torch.equal(scores.argmax(1), labels)
    again = make_router(name)
    again.load_state({key: value.clone() for key, value in router.state().items()})
    assert all(torch.equal(a, b) for a, b in zip(again.predict(outputs), (modules, labels), strict=True))


def test_batch_routing_depends_on_the_order_of_rows():
    stream = make_stream(3, None)
    learner, rows = Tosca(QUICK, seed=3, router="batch", routing_batch_size=12), rows_of(stream)[:, 0]
    for task in stream:
        learner.observe(task)
    order = np.random.default_rng(0).permutation(len(rows))
    in_order, shuffled = learner.scores(rows).argmax(1), learner.scores(rows[order]).argmax(1)
    assert not np.array_equal(shuffled, in_order[order])


def test_an_unknown_router_is_named_with_the_known_ones():
    with pytest.raises(UsageError, match="sample"):
        make_router("nonsense")
    assert all(kind.source and kind.stores and kind.cost for kind in ROUTERS.values())


def plain_choice(name, logits, task_classes):
    """The definitions, written out in float64: logits [T, C] of one sample."""
    scores = []
    for row, block in zip(logits, task_classes, strict=True):
        mine = row[block.start : block.stop]
        if name == "own-entropy":
            asked = mine if len(mine) > 1 else row
            p = softmax(asked)
            scores.append((p * np.log(p + 1e-9)).sum() / np.log(max(len(asked), 2)))
        elif name == "max-cosine":
            scores.append(mine.max())
        elif name == "margin":
            top = np.sort(softmax(row))[::-1]
            scores.append(top[0] - (top[1] if len(top) > 1 else 0))
        else:
            scores.append(np.log(np.exp(mine).mean()))
    return np.array(scores)


@pytest.mark.parametrize("name", ["own-entropy", "max-cosine", "margin", "energy"])
@pytest.mark.campaign
@settings(max_examples=times(20, 200), deadline=None)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), seed=st.integers(0, 10**6))
def test_sureness_is_what_it_says(name, sizes, seed):
    generator = np.random.default_rng(seed)
    stops = np.cumsum(sizes)
    task_classes = tuple(range(stop - size, stop) for stop, size in zip(stops, sizes, strict=True))
    logits = 3 * generator.normal(size=(len(sizes), 7, stops[-1]))
    nothing = torch.zeros(len(sizes), 7)
    asked = SimpleNamespace(logits=lambda t: torch.from_numpy(logits[t]))
    outputs = ModuleOutputs(torch.zeros(7, 2), nothing, nothing.long(), task_classes, asked)
    chosen = make_router(name).route(outputs).numpy()
    for sample, module in enumerate(chosen):
        scores = plain_choice(name, logits[:, sample], task_classes)
        assert scores[module] >= scores.max() - 1e-9


def test_the_router_of_the_documentation_works(tosca, stream, monkeypatch):
    text = (Path(__file__).parents[2] / "docs" / "routers.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    monkeypatch.setattr("tosca_cache.routing.base.ROUTERS", dict(ROUTERS))
    names = {}
    exec(code, names)
    router = names["LeastRecent"]()
    entropy = evidence_of(tosca, rows_of(stream)).entropy.numpy()
    first_near = [int(np.flatnonzero(row <= row.min() + np.float32(0.05))[0]) for row in entropy.T]
    assert router.route(evidence_of(tosca, rows_of(stream))).tolist() == first_near
