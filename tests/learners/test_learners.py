"""What every registered learner must do: on unequal tasks, one-class tasks, one task, domains, and on odd stores."""

import gc
import warnings
import weakref
from dataclasses import replace

import numpy as np
import pytest
from reference.gaussian import clean_rows, make_domain_stream, make_stream

from tosca_cache.closed_form import shared
from tosca_cache.config import Settings
from tosca_cache.errors import ToscaWarning, UsageError
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
# Bounds that are told the true task of each row: `scores` cannot know it, so that they are asked by their test set, as the
# protocol asks. They owe everything else that the others do.
TOLD = {"oracle-luca"}
STREAMS = {
    "unequal": lambda: make_stream(3, init_cls=2),
    "single classes": lambda: make_stream(1),
    "one task": lambda: make_stream(8),
    "one row a class": lambda: make_stream(2, rows=1),
    "domains": make_domain_stream,
}


def make(name, seed=7, **options):
    return LEARNERS[name](**{"seed": seed, "settings": QUICK} | OPTIONS.get(name, {}) | options)


def scores_of(learner, stream, tasks):
    """Scores of the test rows of the first tasks."""
    if learner.name not in TOLD:
        return learner.scores(clean_rows(stream, tasks))
    test_set = learner.test_set()
    for t in range(tasks):
        test_set.add(stream.test(t).features, task=t)
    return test_set.scores()


@pytest.fixture(scope="module", params=STREAMS)
def stream(request):
    return STREAMS[request.param]()


WHOLE = {}


def whole(name, stream):
    """The learner after all tasks of a stream, and its scores after each; learned once. It must not be changed."""
    if (name, stream) not in WHOLE:
        learner, scores = make(name), []
        for task in stream:
            learner.observe(task)
            scores.append(scores_of(learner, stream, task.number + 1))
        WHOLE[name, stream] = learner, scores
    return WHOLE[name, stream]


def pytest_generate_tests(metafunc):
    if "any_method" in metafunc.fixturenames:
        metafunc.parametrize("any_method", sorted(LEARNERS))


def test_every_class_seen_has_a_score_and_the_same_seed_gives_the_same_numbers(any_method, stream):
    _, scores = whole(any_method, stream)
    again = make(any_method)
    for task, found in zip(stream, scores, strict=True):
        assert found.shape == (len(clean_rows(stream, task.number + 1)), task.classes.stop)
        assert np.isfinite(found).all()
        again.observe(task)
        np.testing.assert_array_equal(scores_of(again, stream, task.number + 1), found)


def test_saved_and_loaded_in_the_middle_it_ends_the_same(any_method, stream):
    """Whether or not it has been asked, or has settled, before it is saved."""
    _, scores = whole(any_method, stream)
    half = make(any_method)
    for task in stream:
        half.observe(task)
        if task.number % 2:
            half.finalize()
        again = make(any_method)
        again.load_state({name: tensor.clone() for name, tensor in half.state().items()})
        half = again
    np.testing.assert_allclose(scores_of(half, stream, len(stream)), scores[-1], rtol=1e-5, atol=1e-6)


def test_a_row_alone_decides_its_scores_unless_it_says_so(any_method, stream):
    if LEARNERS[any_method].transductive or any_method in TOLD:
        pytest.skip("it says that it is transductive, or it is not asked by rows alone")
    (learner, scores), rows = whole(any_method, stream), clean_rows(stream)
    order = np.random.default_rng(0).permutation(len(rows))
    parts = [learner.scores(rows[part]) for part in np.array_split(order, 3)]
    np.testing.assert_allclose(np.concatenate(parts), scores[-1][order], rtol=1e-4, atol=1e-5)


def test_it_learns_a_task_and_lets_the_rows_go_unless_it_says_so(any_method):
    """Far better than chance on well separated classes, whatever it does to them later."""
    stream, learner = make_stream(4), make(any_method)
    task = stream.task(0)
    kept = weakref.ref(task.train.features)
    learner.observe(task)
    del task
    if not LEARNERS[any_method].rehearsal:
        if kept() is not None:
            gc.collect()  # slow with all of torch loaded
        assert kept() is None
        assert learner.stored_numbers < 10**6
    assert (scores_of(learner, stream, 1).argmax(1) == stream.test(0).labels).mean() > 0.6


def test_what_is_put_off_counts_as_learning(monkeypatch):
    stream, clock, finalize = make_stream(2), [0], LEARNERS["ranpac"].finalize

    def one_second(self):
        clock[0] += 1
        finalize(self)

    monkeypatch.setattr(LEARNERS["ranpac"], "finalize", one_second)
    monkeypatch.setattr(protocol, "perf_counter", lambda: clock[0])
    assert protocol.run_protocol(make("ranpac"), stream).seconds["train"] == len(stream)


DIM, CLASSES = 6, 4


def plain(generator, labels):
    return 2 * np.eye(CLASSES, DIM)[labels] + 0.5 * generator.normal(size=(len(labels), DIM))


def constant_columns(generator, labels):
    return np.where(np.arange(DIM) < 2, plain(generator, labels), 3)


EQUAL = (5, 5, 5, 5)
# Features of (generator, labels), rows of each class, classes of a task.
ODD = {
    "rows as many as features": (plain, (2, 2, 1, 1), 2),
    "rows as many as random features": (plain, EQUAL, 1),
    "fewer rows than features": (plain, (1, 1, 1, 2), 2),
    "one row a class": (plain, (1, 1, 1, 1), 2),
    "one row a class, one class a task": (plain, (1, 1, 1, 1), 1),
    "one task": (plain, EQUAL, 4),
    "many rows of one class": (plain, (30, 1, 2, 1), 2),
    "duplicate rows": (lambda _, labels: 2 * np.eye(CLASSES, DIM)[labels], EQUAL, 2),
    "constant columns": (constant_columns, EQUAL, 2),
    "rank one": (lambda _, labels: np.outer(1.0 + labels, np.ones(DIM)), EQUAL, 2),
    "one class": (plain, (7,), 1),
    "constant features": (lambda _, labels: np.ones((len(labels), DIM)), EQUAL, 2),
    "features of zero": (lambda _, labels: np.zeros((len(labels), DIM)), EQUAL, 2),
    "tiny features": (lambda *drawn: 1e-9 * plain(*drawn), EQUAL, 2),
    "huge features": (lambda *drawn: 1e14 * plain(*drawn), EQUAL, 2),
}
# As many random features as some of these stores have rows.
FEW = dict.fromkeys(("buffer", "expansion"), 20)


def odd_stream(store):
    features, rows, increment = ODD[store]
    generator = np.random.default_rng(5)

    def split(each):
        labels = np.repeat(np.arange(len(rows)), each)
        return Arrays(np.stack([features(generator, labels) for _ in "ab"], 1).astype(np.float32), labels)

    names = [str(c) for c in range(len(rows))]
    return TaskStream(split(rows), split([4] * len(rows)), class_names=names, increment=increment, seed=1)


@pytest.mark.campaign
@pytest.mark.parametrize("store", ODD)
def test_no_odd_store_gives_a_crash_a_nan_or_less_than_chance_without_a_word(monkeypatch, any_method, store):
    monkeypatch.setattr(shared, "EXPANSION", 20)
    stream, known = odd_stream(store), OPTIONS.get(any_method, {})
    settings = Settings(epochs=2, batch_size=8, mlp_ratio=2, se_ratio=2)
    few = {option: value for option, value in FEW.items() if option in known}
    learner = make(any_method, seed=1, **{"settings": known.get("settings", settings)} | few)
    if (any_method, store) == ("slca", "huge features"):  # its linear head diverges, and that is said
        with pytest.raises(UsageError, match="NaN among them"):
            protocol.run_protocol(learner, stream)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of numpy and PyTorch: what they warn of here becomes NaN elsewhere
        outcome = protocol.run_protocol(learner, stream)
    scores = outcome.test_set.scores() if any_method in TOLD else learner.scores(clean_rows(stream))
    assert scores.shape == (len(outcome.labels), len(stream.class_names))
    assert np.isfinite(scores).all()
    assert all(bool(np.isfinite(tensor.numpy()).all()) for tensor in learner.state().values())
    accuracy = (outcome.predictions[-1].labels == outcome.labels).mean()
    if accuracy < 1 / len(stream.class_names):
        with pytest.warns(ToscaWarning, match="less than by chance"):
            assert protocol.below_chance(learner, stream, outcome)
