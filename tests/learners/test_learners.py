"""What every registered learner must do: on unequal tasks, one-class tasks, one task, domains, few rows of a class."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
from reference.gaussian import make_domain_arrays

from tosca_cache.config import Settings
from tosca_cache.learners import LEARNERS, protocol
from tosca_cache.tasks import Arrays, TaskStream

QUICK = Settings(epochs=2, batch_size=8, mlp_ratio=4, se_ratio=4)
LONGER = replace(QUICK, epochs=5, lr=0.1)  # for a cosine head without prototypes: its scale starts at 1
OPTIONS = {  # what makes a learner small enough for these streams: {name: {argument: value}}
    "acil": {"buffer": 40},  # fewer than the rows of most streams
    "acil-vit": {"buffer": 40, "gamma": 0.1},
    "anacp": {"expansion": 60, "heads": 2, "gamma": 0.1, "per_class": 10, "precision": "float64"},
    "dkvb": {"heads": 8, "keys": 16, "key_dim": 3, "rate": 0.1},  # two epochs
    "ds-al": {"buffer": 40},
    "f-oal": {"buffer": 40},
    "fly-cl": {"expansion": 60, "active": 0.2, "lam": 0.1, "precision": "float64"},
    "garm": {"buffer": 40},
    "klda": {"expansion": 60},
    "klda-e": {"expansion": 60, "draws": 2},
    "l2-luca": {"settings": LONGER},
    "lae-luca": {"settings": LONGER},
    "loranpac": {"expansion": 60, "rank": 30},
    "mos": {"alignment_epochs": 2},
    "ovor-linear": {"draws": 50},
    "ovor-luca": {"settings": LONGER, "draws": 50},
    "randumb": {"expansion": 60},
    "ranpac": {"expansion": 40},
    "slca": {"alignment_epochs": 2, "per_class": 64},
}
# Bounds that are told the true task of each row: `scores` cannot know it, so that they are asked by their watch, as the
# protocol asks. They owe everything else that the others do.
TOLD = {"oracle-luca"}
CLASSES, DIM = 8, 6
# increment, first task, train rows of each class
STREAMS = {
    "equal": (2, None, 9),
    "unequal": (3, 2, 9),
    "single classes": (1, None, 9),
    "one task": (8, None, 9),
    "one row a class": (2, None, 1),
    "five rows a class": (3, None, 5),
    "domains": None,
}
# Rows of each class in each domain: shared classes, and some that not all domains have.
DOMAINS = np.array([[9, 9, 9, 0], [9, 9, 0, 9], [9, 9, 9, 9]])


def make_stream(increment, init_cls, rows, *, seed=3):
    generator = np.random.default_rng(5)
    means = 2 * generator.normal(size=(CLASSES, DIM))

    def split(each):
        labels = np.repeat(np.arange(CLASSES), each)
        noise = generator.normal(size=(CLASSES * each, 3, DIM))
        return Arrays((means[labels][:, None] + 0.7 * noise).astype(np.float32), labels)

    names = [str(c) for c in range(CLASSES)]
    return TaskStream(split(rows), split(5), class_names=names, increment=increment, init_cls=init_cls, seed=seed)


def make_domain_stream(*, test_views=1):
    generator = np.random.default_rng(5)
    means, shifts = 2 * generator.normal(size=(4, DIM)), generator.normal(size=(3, DIM))
    train, test = (
        make_domain_arrays(generator, DOMAINS, DIM, views, means, shifts, noise=0.7) for views in (3, test_views)
    )
    return TaskStream(train, test, class_names="abcd", incremental="domains", domain_names="xyz", seed=3)


def make(name, seed=7):
    return LEARNERS[name](**{"seed": seed, "settings": QUICK} | OPTIONS.get(name, {}))


def rows_of(stream, tasks):
    return np.concatenate([stream.test(t).features[:, 0] for t in range(tasks)])


def scores_of(learner, stream, tasks):
    """Scores of the test rows of the first tasks."""
    if learner.name not in TOLD:
        return learner.scores(rows_of(stream, tasks))
    test_set = learner.test_set()
    for t in range(tasks):
        test_set.add(stream.test(t).features, task=t)
    return test_set.scores()


WHOLE = {}


def whole(name, key, stream):
    """The learner after all tasks of a stream, and its scores after each; learned once. It must not be changed."""
    if (name, key) not in WHOLE:
        learner, scores = make(name), []
        for task in stream:
            learner.observe(task)
            scores.append(scores_of(learner, stream, task.number + 1))
        WHOLE[name, key] = learner, scores
    return WHOLE[name, key]


# What the other streams show, these show again.
AGAIN = ("equal", "five rows a class")


@pytest.fixture(
    scope="module", params=[pytest.param(key, marks=pytest.mark.long) if key in AGAIN else key for key in STREAMS]
)
def key(request):
    return request.param


@pytest.fixture(scope="module")
def stream(key):
    return make_domain_stream() if key == "domains" else make_stream(*STREAMS[key])


def test_every_class_seen_has_a_score_and_the_same_seed_gives_the_same_numbers(any_method, key, stream):
    _, scores = whole(any_method, key, stream)
    again = make(any_method)
    for task, found in zip(stream, scores, strict=True):
        assert found.shape == (len(rows_of(stream, task.number + 1)), task.classes.stop)
        assert np.isfinite(found).all()
        again.observe(task)
        np.testing.assert_array_equal(scores_of(again, stream, task.number + 1), found)


def test_saved_and_loaded_in_the_middle_it_ends_the_same(any_method, key, stream):
    """Whether or not it has been asked, or has settled, before it is saved."""
    _, scores = whole(any_method, key, stream)
    half = make(any_method)
    for task in stream:
        half.observe(task)
        if task.number % 2:
            half.finalize()
        again = make(any_method)
        again.load_state({name: tensor.clone() for name, tensor in half.state().items()})
        half = again
    np.testing.assert_allclose(scores_of(half, stream, len(stream)), scores[-1], rtol=1e-5, atol=1e-6)


def test_rows_of_a_task_are_let_go_unless_it_says_so(any_method):
    stream = make_stream(*STREAMS["equal"])
    learner, task = make(any_method), stream.task(0)
    kept = weakref.ref(task.train.features)
    learner.observe(task)
    del task
    if not LEARNERS[any_method].rehearsal:
        if kept() is not None:
            gc.collect()  # slow with all of torch loaded
        assert kept() is None
        assert learner.stored_numbers < 10**6


def test_a_row_alone_decides_its_scores_unless_it_says_so(any_method, key, stream):
    if LEARNERS[any_method].transductive:
        pytest.skip("it says that it is transductive")
    if any_method in TOLD:
        pytest.skip("it is not asked by rows alone")
    (learner, scores), rows = whole(any_method, key, stream), rows_of(stream, len(stream))
    order = np.random.default_rng(0).permutation(len(rows))
    parts = [learner.scores(rows[part]) for part in np.array_split(order, 3)]
    np.testing.assert_allclose(np.concatenate(parts), scores[-1][order], rtol=1e-4, atol=1e-5)


def test_it_learns(any_method):
    """Far better than chance on the first task of well separated classes, whatever it does to them later."""
    stream, learner = make_stream(4, None, 9), make(any_method)
    learner.observe(stream.task(0))
    assert (scores_of(learner, stream, 1).argmax(1) == stream.test(0).labels).mean() > 0.6


def pytest_generate_tests(metafunc):
    if "any_method" in metafunc.fixturenames:
        metafunc.parametrize("any_method", sorted(LEARNERS))


@pytest.mark.parametrize(
    "name", ["joint-luca", "joint-logistic", "ranpac", "ranpac-raw", "acil", "anacp", "garm", "klda", "slda"]
)
def test_what_is_put_off_counts_as_learning(name, monkeypatch):
    stream, clock, finalize = make_stream(*STREAMS["equal"]), [0], LEARNERS[name].finalize

    def one_second(self):
        clock[0] += 1
        finalize(self)

    monkeypatch.setattr(LEARNERS[name], "finalize", one_second)
    monkeypatch.setattr(protocol, "perf_counter", lambda: clock[0])
    assert protocol.run_protocol(make(name), stream).seconds["train"] == len(stream)
