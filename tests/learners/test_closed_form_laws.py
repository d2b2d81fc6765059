"""Closed-form learners solve the equations they say, for any order and split of the rows."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference.closed_form_plain import fecam_distances, lda_scores, ridge_weights
from sklearn.linear_model import Ridge as SklearnRidge

from tosca_cache.closed_form import expansion
from tosca_cache.closed_form.lda import Lda
from tosca_cache.closed_form.mahalanobis import CommonCovariance, Shrinkage
from tosca_cache.closed_form.ridge import Ridge
from tosca_cache.config import Settings
from tosca_cache.learners import LEARNERS
from tosca_cache.learners.protocol import run_protocol
from tosca_cache.seeds import derive_seed
from tosca_cache.tasks import Rows, Task

SPLITS = st.lists(st.integers(1, 4), min_size=1, max_size=4)
SEEDS = st.integers(0, 10**6)


def draw(seed, counts, dim):
    """Float32 features [n, 1, d] of len(counts) classes, in random order, and labels."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(len(counts)), counts))
    means = 2 * generator.normal(size=(len(counts), dim))
    x = means[labels] + generator.normal(size=(len(labels), dim))
    return x[:, None].astype(np.float32), labels


def tasks_of(x, labels, parts, stops):
    """One task for each part (row numbers) with so many classes in all."""
    start = 0
    for number, (part, stop) in enumerate(zip(parts, stops, strict=True)):
        yield Task(number, range(start, stop), Rows(x[part], labels[part].astype(np.int64), part))
        start = stop


def by_class(labels, sizes):
    stops = np.cumsum(sizes)
    parts = [np.flatnonzero((labels >= stop - size) & (labels < stop)) for size, stop in zip(sizes, stops, strict=True)]
    return parts, stops.tolist()


def blurry(labels, seed, tasks):
    """Any rows in any task; a task's classes run to the largest label so far."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    cuts = np.sort(generator.choice(np.arange(1, len(labels)), min(tasks, len(labels)) - 1, replace=False))
    parts = np.split(order, cuts)
    return parts, np.maximum.accumulate([labels[part].max() + 1 for part in parts]).tolist()


def learned(name, x, labels, parts, stops, **options):
    learner = LEARNERS[name](seed=5, **options)
    for task in tasks_of(x, labels, parts, stops):
        learner.observe(task)
    return learner


def one_hot(labels):
    return np.eye(labels.max() + 1)[labels]


def random_features(learner, x):
    return learner.classifier.features.apply(torch.from_numpy(x[:, 0])).double().numpy()


@pytest.mark.parametrize("name", ["nmc", "simplecil", "fsa-lda", "slda", "fecam"])
@settings(max_examples=15, deadline=None)
@given(sizes=SPLITS, each=st.integers(1, 6), dim=st.integers(2, 9), seed=SEEDS)
def test_incremental_is_joint_and_class_order_does_not_matter(name, sizes, each, dim, seed):
    classes = sum(sizes)
    x, labels = draw(seed, [each] * classes, dim)
    order = np.random.default_rng(seed).permutation(classes)  # class index of each class
    rows = x[:, 0].astype(np.float64)  # nmc scores in the precision of the rows
    joint = learned(name, x, labels, [np.arange(len(x))], [classes]).scores(rows)
    for relabelled in (labels, order[labels]):
        parts = learned(name, x, relabelled, *by_class(relabelled, sizes)).scores(rows)
        back = parts if relabelled is labels else parts[:, order]
        np.testing.assert_allclose(back, joint, rtol=1e-8, atol=1e-8 * max(1, np.abs(joint).max()))


def test_nmc_is_the_nearest_plain_mean_of_unit_vectors():
    x, labels = draw(1, [3, 5, 4], 6)
    rows = x[:, 0].astype(np.float64) / np.linalg.norm(x[:, 0].astype(np.float64), axis=1, keepdims=True)
    means = np.stack([rows[labels == c].mean(0) for c in range(3)])
    distance = ((rows[:, None] - means) ** 2).sum(2)
    learner = learned("nmc", x, labels, *by_class(labels, [1, 2]))
    np.testing.assert_allclose(learner.scores(x[:, 0].astype(np.float64)), -distance, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(learner.scores(x[:, 0]), -distance, atol=1e-6)


def test_nmc_predicts_in_single_precision_what_it_predicts_in_double():
    """Classes that differ by less than single precision can tell."""
    generator = np.random.default_rng(5)
    means = generator.normal(size=64) + 1e-7 * generator.normal(size=(30, 64))
    x = np.repeat(means, 2, 0).astype(np.float32)[:, None]
    learner = learned("nmc", x, np.repeat(np.arange(30), 2), [np.arange(60)], [30])
    rows = (means[generator.integers(0, 30, 500)] + 1e-7 * generator.normal(size=(500, 64))).astype(np.float32)
    np.testing.assert_array_equal(learner.scores(rows).argmax(1), learner.scores(rows.astype(np.float64)).argmax(1))


@settings(max_examples=25, deadline=None)
@given(sizes=SPLITS, each=st.integers(1, 6), dim=st.integers(2, 9), seed=SEEDS)
def test_lda_heads_are_their_equations(sizes, each, dim, seed):
    x, labels = draw(seed, [each] * sum(sizes), dim)
    assume(len(x) > 1)
    rows, parts = x[:, 0].astype(np.float64), by_class(labels, sizes)
    identity = np.eye(dim)
    total = lda_scores(rows, labels, rows, "total", lambda s: s + identity)
    np.testing.assert_allclose(learned("fsa-lda", x, labels, *parts).scores(x[:, 0]), total, rtol=1e-8, atol=1e-8)
    within = lda_scores(rows, labels, rows, "within", lambda s: (1 - 1e-4) * s + 1e-4 * identity)
    ours = learned("slda", x, labels, *parts).scores(x[:, 0])
    np.testing.assert_allclose(ours, within, rtol=1e-6, atol=1e-8 * np.abs(within).max())


@settings(max_examples=25, deadline=None)
@given(dim=st.integers(1, 5), total=st.booleans(), seed=SEEDS)
def test_lda_without_a_ridge_does_not_see_affine_maps(dim, total, seed):
    """Its scores are distances up to what all classes share."""
    x, labels = draw(seed, [9] * 4, dim)
    generator = np.random.default_rng(seed)
    left, right = (np.linalg.qr(generator.normal(size=(dim, dim)))[0] for _ in range(2))
    mapped = x[:, 0] @ (left * generator.uniform(0.5, 3, dim) @ right) + generator.normal(size=dim)
    scores = []
    for rows in (x[:, 0].astype(np.float64), mapped):
        lda = Lda(shrinkage=0.0, total=total, relative=False)
        lda.observe(torch.from_numpy(rows), torch.from_numpy(labels), 4)
        found = lda.scores(torch.from_numpy(rows)).numpy()
        scores.append(found - found.mean(1, keepdims=True))
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-6, atol=1e-7 * np.abs(scores[0]).max())


def test_film_matters_to_fsa_only_through_its_ridge():
    x, labels = draw(2, [12] * 4, 5)
    views = np.concatenate([x, x + np.float32(0.1)], 1)
    parts = by_class(labels, [2, 2])
    quick = Settings(epochs=5, batch_size=8, lr=0.1)
    centred = {}
    for ridge in (0.0, 30.0):
        for film in (False, True):
            learner = learned("fsa-lda", views, labels, *parts, ridge=ridge, film=film, settings=quick)
            scores = learner.scores(x[:, 0])
            centred[ridge, film] = scores - scores.mean(1, keepdims=True)
    assert not torch.equal(learner.film.gamma, torch.ones(5))
    assert learner.trainable_parameters == 0  # FiLM is frozen after task 0
    first = learned("fsa-lda", views, labels, parts[0][:1], parts[1][:1], film=True, settings=quick)
    assert first.trainable_parameters == 5 + 5 + 2 * 5 + 1
    again = LEARNERS["fsa-lda"](seed=5, film=True, ridge=30.0, settings=quick)
    again.load_state(learner.state())
    np.testing.assert_allclose(again.scores(x[:, 0]), learner.scores(x[:, 0]), rtol=1e-9)
    np.testing.assert_allclose(centred[0.0, True], centred[0.0, False], rtol=1e-3, atol=1e-3)
    assert np.abs(centred[30.0, True] - centred[30.0, False]).max() > 0.01


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    tasks=st.integers(1, 6),
    dim=st.integers(1, 6),
    seed=SEEDS,
)
@pytest.mark.parametrize("name", ["acil", "garm", "ranpac"])
def test_ridge_learners_are_the_joint_solution_of_blurry_tasks(name, counts, tasks, dim, seed):
    """Also with fewer rows than features and with more, in any order and split, with rows of earlier classes."""
    x, labels = draw(seed, counts, dim)
    options = {"acil": {"buffer": 15}, "garm": {"buffer": 15}, "ranpac": {"expansion": 15, "lam": 0.1}}[name]
    if name == "ranpac":
        options |= {"precision": "float64"}
    learner = learned(name, x, labels, *blurry(labels, seed, tasks), **options)
    h = random_features(learner, x)
    inverse = 1 / np.array(counts)
    weights = (inverse / inverse.mean())[labels] if name == "garm" else None
    joint = h @ ridge_weights(h, one_hot(labels), 0.1, weights)
    np.testing.assert_allclose(learner.scores(x[:, 0]), joint, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("rows", [3, 30])
def test_ranpac_and_garm_are_acil_where_they_should_be(rows):
    """At equal lambda and projection; and with as many rows of each class."""
    x, labels = draw(3, [rows] * 4, 5)
    parts = by_class(labels, [2, 2])
    acil = learned("acil", x, labels, *parts, buffer=30, gamma=0.5).scores(x[:, 0])
    same = {"expansion": 30, "lam": 0.5, "projection": "uniform", "precision": "float64"}
    np.testing.assert_allclose(learned("ranpac", x, labels, *parts, **same).scores(x[:, 0]), acil, rtol=1e-8, atol=1e-9)
    garm = learned("garm", x, labels, *parts, buffer=30, gamma=0.5)
    np.testing.assert_allclose(garm.scores(x[:, 0]), acil, rtol=1e-8, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(sizes=SPLITS, each=st.integers(1, 12), seed=SEEDS, size=st.sampled_from([10, 60, 200]))
def test_ranpac_is_the_plain_ridge_in_both_of_its_forms(sizes, each, seed, size):
    """Lambda chosen by each task's own rows; weights from roots of Gram matrices or from the sums themselves."""
    x, labels = draw(seed, [each] * sum(sizes), 6)
    plain = Ridge(size, seed=derive_seed(5, "projection"), selection="split")
    ours = LEARNERS["ranpac"](seed=5, expansion=size, precision="float64")
    for task in tasks_of(x, labels, *by_class(labels, sizes)):
        ours.observe(task)
        plain.observe(
            torch.from_numpy(task.train.features[:, 0]), torch.from_numpy(task.train.labels), task.classes.stop
        )
    plain.lam = ours.classifier.lam = max(plain.lam, ours.classifier.lam, 1e-3)  # below, rounding decides
    rows = torch.from_numpy(x[:, 0])
    torch.testing.assert_close(torch.from_numpy(ours.scores(x[:, 0])), plain.scores(rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_ranpac_chooses_the_lambda_of_the_plain_ridge(precision):
    x, labels = draw(8, [30] * 4, 6)
    plain = Ridge(20, seed=derive_seed(5, "projection"), selection="split")
    ours = LEARNERS["ranpac"](seed=5, expansion=20, precision=precision)
    for task in tasks_of(x, labels, *by_class(labels, [2, 2])):
        ours.observe(task)
        plain.observe(
            torch.from_numpy(task.train.features[:, 0]), torch.from_numpy(task.train.labels), task.classes.stop
        )
        assert ours.classifier.lam == plain.lam > 1e-8


@pytest.mark.parametrize("size", [300, 50])
@pytest.mark.parametrize("lam", [None, 1.0])
def test_ranpac_in_single_precision_answers_as_in_double(size, lam):
    """Scores within 1e-3 of the largest, and the same predictions but where two classes tie within that."""
    x, labels = draw(4, [20] * 6, 12)
    parts = by_class(labels, [2, 2, 2])
    single, double = (
        learned("ranpac", x, labels, *parts, expansion=size, lam=lam, precision=p).scores(x[:, 0])
        for p in ("float32", "float64")
    )
    assert single.dtype == np.float32
    assert np.abs(single - double).max() < 1e-3 * np.abs(double).max()
    ranked = np.sort(double, 1)
    clear = ranked[:, -1] - ranked[:, -2] > 2e-3 * np.abs(double).max()
    assert clear.mean() > 0.9
    assert np.array_equal(single.argmax(1)[clear], double.argmax(1)[clear])


@pytest.mark.parametrize("size", [10, 200])
def test_a_lambda_too_small_for_equal_rows_is_raised(size):
    x, labels = draw(4, [4] * 3, 6)
    x, labels = np.concatenate([x, x, 1000 * x[:2]]), np.concatenate([labels, labels, labels[:2]])
    for precision in ("float32", "float64"):
        learner = learned(
            "ranpac", x, labels, *by_class(labels, [2, 1]), expansion=size, lam=1e-30, precision=precision
        )
        scores = learner.scores(x[:, 0])
        assert np.isfinite(scores).all()
        assert (scores.argmax(1) == labels).mean() > 0.6


def test_no_row_is_kept():
    """No stored vector points the way of a row's random features, in tasks of several rows of a class."""
    x, labels = draw(6, [6] * 4, 5)
    for name, options, kept in (
        ("acil", {"buffer": 40}, "root."),
        ("garm", {"buffer": 40}, "root."),
        ("ranpac", {"expansion": 40}, "root."),
        ("klda", {"expansion": 40}, "root."),
        ("fly-cl", {"expansion": 40, "active": 0.25}, "root."),
        ("f-oal", {"buffer": 40}, "root."),
        ("loranpac", {"expansion": 40}, "axes"),
    ):
        learner = learned(name, x, labels, *by_class(labels, [2, 2]), **options)
        h = random_features(learner, x)
        roots = torch.cat([t for n, t in learner.state().items() if n.startswith(kept)]).double().numpy()
        cosine = (roots @ h.T) / np.outer(np.linalg.norm(roots, axis=1), np.linalg.norm(h, axis=1))
        assert np.abs(cosine).max() < 0.999


def test_ranpac_raw_is_ridge_regression():
    x, labels = draw(7, [12] * 4, 6)
    learner = learned("ranpac-raw", x, labels, *by_class(labels, [2, 2]))
    rows = x[:, 0].astype(np.float64)
    theirs = SklearnRidge(learner.classifier.lam, fit_intercept=False).fit(rows, one_hot(labels)).predict(rows)
    np.testing.assert_allclose(learner.scores(x[:, 0]), theirs, rtol=1e-8, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 12), min_size=2, max_size=4),
    dim=st.integers(2, 8),
    a1=st.sampled_from([1.0, 10.0, 0.0]),
    a2=st.sampled_from([0.0, 1.0, -0.5]),
    seed=SEEDS,
)
def test_fecam_is_its_equations(counts, dim, a1, a2, seed):
    """One row a class to more rows than dimensions, with and without a regular covariance."""
    assume(a1 > 0 or a2 == 0)  # an indefinite matrix of no rank to speak of is nobody's setting
    x, labels = draw(seed, counts, dim)
    learner = learned("fecam", x, labels, *by_class(labels, [1, len(counts) - 1]), a1=a1, a2=a2)
    rows = x[:, 0].astype(np.float64) / np.linalg.norm(x[:, 0].astype(np.float64), axis=1, keepdims=True)
    plain = fecam_distances(rows, labels, rows, a1, a2)
    np.testing.assert_allclose(learner.scores(x[:, 0]), -plain, rtol=1e-5, atol=1e-6 * max(1, np.abs(plain).max()))
    if a1 and not a2:
        assert len(learner.state()["factors"]) <= sum(min(dim, n - 1) for n in counts)


def test_fecam_with_an_identity_covariance_is_the_nearest_mean():
    x, labels = draw(9, [1] * 5, 6)
    rows = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
    nmc, fecam = (
        learned(name, x, labels, *by_class(labels, [2, 3])).scores(rows.astype(float)) for name in ("nmc", "fecam")
    )
    np.testing.assert_allclose(fecam, nmc, rtol=1e-9, atol=1e-12)
    common = CommonCovariance(Shrinkage(1.0, 0.0))
    common.load_state({"means": torch.randn(5, 6).double(), "covariance": 0.3 * torch.eye(6).double()})
    points = torch.from_numpy(rows).double()
    torch.testing.assert_close(common.scores(points), -torch.cdist(points, common.means).square())


def test_fecam_common_averages_the_covariances_of_tasks():
    x, labels = draw(10, [5, 9, 4], 6)
    rows = x[:, 0].astype(np.float64) / np.linalg.norm(x[:, 0].astype(np.float64), axis=1, keepdims=True)
    parts = by_class(labels, [1, 2])
    learner = learned("fecam-common", x, labels, *parts)
    covariance = np.cov(rows[parts[0][0]].T) / 3 + 2 * np.cov(rows[parts[0][1]].T) / 3
    np.testing.assert_allclose(learner.state()["covariance"], covariance, rtol=1e-9, atol=1e-12)
    shrunk = covariance + np.diag(covariance).mean() * np.eye(6)
    deviation = np.sqrt(np.diag(shrunk))
    inverse = np.linalg.inv(shrunk / np.outer(deviation, deviation))
    difference = rows[:, None] - np.stack([rows[labels == c].mean(0) for c in range(3)])
    distance = np.einsum("ncd,de,nce->nc", difference, inverse, difference)
    np.testing.assert_allclose(learner.scores(x[:, 0]), -distance, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kept", [2**28, 5000, 0])
@pytest.mark.parametrize(
    "name", ["acil", "anacp", "ds-al", "fenec", "garm", "gkeal", "klda", "loranpac", "ranpac", "fecam"]
)
def test_watched_rows_get_the_answers_of_asking_anew(name, kept, make_stream, monkeypatch):
    monkeypatch.setattr(expansion, "KEPT_BYTES", kept)
    stream = make_stream(classes=6, increment=2)
    size = {"acil": "buffer", "ds-al": "buffer", "fecam": None, "fenec": None, "garm": "buffer", "gkeal": "centres"}
    option = size.get(name, "expansion")
    options = {} if option is None else {option: 30}
    watched, asked = (LEARNERS[name](seed=5, **options) for _ in range(2))
    outcome = run_protocol(watched, stream)
    tests = [stream.test(number).features[:, 0] for number in range(3)]
    for task in stream:
        asked.observe(task)
        expected = asked.scores(np.concatenate(tests[: task.number + 1])).argmax(1)
        np.testing.assert_array_equal(outcome.predictions[task.number].labels, expected)
