"""Closed-form learners give the same for any order and split of the rows, and keep none; what they draw follows its law."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from learners.test_learners import make
from reference import official_newer as plain
from reference.closed_form_plain import fecam_distances, one_hot, ridge_weights, unit
from reference.gaussian import clean_rows

from tosca_cache.closed_form import expansion
from tosca_cache.closed_form.ridge import stratified_folds
from tosca_cache.learners import LEARNERS
from tosca_cache.learners.protocol import run_protocol
from tosca_cache.seeds import derive_seed, numpy_generator
from tosca_cache.tasks import Rows, Task

SPLITS = st.lists(st.integers(1, 4), min_size=1, max_size=4)
SEEDS = st.integers(0, 10**6)
DIM = 6
BLURRY = {
    "acil": {"buffer": 15},
    "garm": {"buffer": 15},
    "f-oal": {"buffer": 15},
    "ranpac": {"expansion": 15, "lam": 0.1, "precision": "float64"},
    "klda": {"expansion": 15, "gamma": 0.1},  # no width is set by the first rows
    "randumb": {"expansion": 15, "gamma": 0.1},
}


def draw(seed, counts, dim):
    """Float32 features [n, 1, d] of len(counts) classes, in random order, and labels."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(len(counts)), counts))
    means = 2 * generator.normal(size=(len(counts), dim))
    x = means[labels] + generator.normal(size=(len(labels), dim))
    return x[:, None].astype(np.float32), labels


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
    """A learner of one task for each part (row numbers), with so many classes in all."""
    learner = LEARNERS[name](seed=5, **options)
    for number, (part, start, stop) in enumerate(zip(parts, [0, *stops], stops, strict=False)):
        learner.observe(Task(number, range(start, stop), Rows(x[part], labels[part].astype(np.int64), part)))
        learner.finalize()
    return learner


def problem(seed=2, each=9, sizes=(1, 2, 1)):
    x, labels = draw(seed, [each] * sum(sizes), DIM)
    stops = by_class(labels, list(sizes))
    rows = x[:, 0].astype(np.float64)
    return x, labels, stops, rows, [(rows[part], labels[part]) for part in stops[0]]


def random_features(learner, x):
    return learner.classifier.features.apply(torch.from_numpy(x[:, 0])).double().numpy()


@pytest.mark.parametrize("name", ["nmc", "simplecil", "fsa-lda", "lda", "slda", "fecam"])
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


def test_nmc_predicts_in_single_precision_what_it_predicts_in_double():
    """Classes that differ by less than single precision can tell."""
    generator = np.random.default_rng(5)
    means = generator.normal(size=64) + 1e-7 * generator.normal(size=(30, 64))
    x = np.repeat(means, 2, 0).astype(np.float32)[:, None]
    learner = learned("nmc", x, np.repeat(np.arange(30), 2), [np.arange(60)], [30])
    rows = (means[generator.integers(0, 30, 500)] + 1e-7 * generator.normal(size=(500, 64))).astype(np.float32)
    np.testing.assert_array_equal(learner.scores(rows).argmax(1), learner.scores(rows.astype(np.float64)).argmax(1))


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    tasks=st.integers(1, 6),
    dim=st.integers(1, 6),
    seed=SEEDS,
)
@pytest.mark.parametrize(("name", "options"), BLURRY.items())
def test_rows_may_come_in_any_order_and_task(name, options, counts, tasks, dim, seed):
    """Also with fewer rows than features and with more, and with rows of earlier classes: as all rows at once."""
    x, labels = draw(seed, counts, dim)
    parts = learned(name, x, labels, *blurry(labels, seed, tasks), **options).scores(x[:, 0])
    joint = learned(name, x, labels, [np.arange(len(x))], [len(counts)], **options).scores(x[:, 0])
    np.testing.assert_allclose(parts, joint, rtol=1e-5, atol=1e-6 * max(1, np.abs(joint).max()))


def test_garm_weighs_old_rows_anew_also_where_its_ridge_stays():
    """Of 1 and 2 rows of a class, then 1, 4 and 1, the mean of 1 / n_c is the same."""
    x, labels = draw(3, [1, 4, 1], DIM)
    rows = labels.argsort(kind="stable")
    parts = learned("garm", x, labels, [rows[:3], rows[3:]], [2, 3], buffer=15).scores(x[:, 0])
    joint = learned("garm", x, labels, [rows], [3], buffer=15).scores(x[:, 0])
    np.testing.assert_allclose(parts, joint, rtol=1e-6, atol=1e-9)


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
    asked = {name: {"expansion": 40} for name in ("ranpac", "klda", "loranpac")}
    asked |= {name: {"buffer": 40} for name in ("acil", "garm", "f-oal")}
    for name, options in (asked | {"fly-cl": {"expansion": 40, "active": 0.25}}).items():
        learner = learned(name, x, labels, *by_class(labels, [2, 2]), **options)
        h = random_features(learner, x)
        roots = torch.cat([t for n, t in learner.state().items() if ".dual." in n or ".axes" in n]).double().numpy()
        cosine = (roots @ h.T) / np.outer(np.linalg.norm(roots, axis=1), np.linalg.norm(h, axis=1))
        assert np.abs(cosine).max() < 0.999


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
    rows = unit(x[:, 0].astype(np.float64))
    wanted = -fecam_distances(rows, labels, rows, a1, a2)
    np.testing.assert_allclose(learner.scores(x[:, 0]), wanted, rtol=1e-5, atol=1e-6 * max(1, np.abs(wanted).max()))
    if a1 and not a2:
        assert sum(len(t) for name, t in learner.state().items() if "factors" in name) <= sum(
            min(dim, n - 1) for n in counts
        )


@pytest.mark.parametrize("kept", [2**28, 5000, 0])
@pytest.mark.parametrize(
    "name", ["acil", "anacp", "ds-al", "fenec", "garm", "gkeal", "klda", "loranpac", "ranpac", "fecam"]
)
def test_watched_rows_get_the_answers_of_asking_anew(name, kept, make_stream, monkeypatch):
    monkeypatch.setattr(expansion, "KEPT_BYTES", kept)
    stream, asked = make_stream(classes=6, increment=2), make(name)
    predictions = run_protocol(make(name), stream).predictions
    for task in stream:
        asked.observe(task)
        expected = asked.scores(clean_rows(stream, task.number + 1)).argmax(1)
        np.testing.assert_array_equal(predictions[task.number].labels, expected)


def test_the_width_of_a_kernel_is_that_of_the_first_task():
    x, labels, stops, _, parts = problem()
    first = parts[0][0]
    pairs = ((first[:, None] - first) ** 2).sum(2)[np.triu_indices(len(first), 1)]
    expected = {"klda": 1 / (2 * np.sort(pairs)[(len(pairs) - 1) // 2]), "randumb": 1 / (DIM * first.var())}
    for name, gamma in expected.items():
        given_width = learned(name, x, labels, *stops, expansion=30, gamma=gamma).scores(x[:, 0])
        own = learned(name, x, labels, *stops, expansion=30)
        np.testing.assert_allclose(own.scores(x[:, 0]), given_width, rtol=1e-7, atol=1e-9)
        assert float(own.state()["classifier.features.gamma"]) == pytest.approx(gamma)


def test_anacp_samples_have_the_mean_and_covariance_of_their_class():
    classifier = LEARNERS["anacp"](seed=5, per_class=20_000).classifier
    sigma = np.cov(np.random.default_rng(0).normal(size=(4, 30)) * [[1], [2], [3], [4]])
    means = np.arange(8.0).reshape(2, 4)
    drawn = classifier.samples(torch.from_numpy(means), torch.from_numpy(sigma)).numpy().reshape(2, -1, 4)
    np.testing.assert_allclose(drawn.mean(1), means, atol=0.15)
    np.testing.assert_allclose(np.cov(drawn[1].T), sigma, atol=0.5)
    assert not np.allclose(drawn[0] - means[0], drawn[1] - means[1])


@pytest.mark.parametrize("centres", [4, 100])
def test_gkeal_is_ridge_on_kernel_values(centres):
    x, labels, stops, rows, parts = problem()
    learner = learned("gkeal", x, labels, *stops, centres=centres, gamma=0.3, sigma=4.0)
    points = learner.state()["classifier.features.centres"].numpy()
    assert len(points) == min(centres, len(parts[0][0]))
    assert all((point == parts[0][0]).all(1).any() for point in points)
    assert len(np.unique(points, axis=0)) == len(points)
    phi = np.exp(-((rows[:, None] - points) ** 2).sum(2) / (2 * 4.0**2))
    expected = phi @ ridge_weights(phi, one_hot(labels), 0.3)
    np.testing.assert_allclose(learner.scores(x[:, 0]), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("a1", "a2"), [(6.12, 8.10), (1.0, 0.0)])
def test_fenec_is_the_distance_to_the_nearest_centre(a1, a2):
    x, labels = draw(5, [1, 3, 9, 30], DIM)
    learner = learned("fenec", x, labels, *by_class(labels, [2, 2]), centres=6, a1=a1, a2=a2)
    u, centres = unit(x[:, 0].astype(np.float64)), [part.numpy() for part in learner.classifier.centres]
    assert [len(part) for part in centres] == [1, 1, 4, 6]
    for c, points in enumerate(centres):  # each is the mean of the rows that are nearest to it
        own = u[labels == c]
        nearest = ((own[:, None] - points) ** 2).sum(2).argmin(1)
        np.testing.assert_allclose(points, [own[nearest == i].mean(0) for i in range(len(points))], atol=1e-6)
    expected = -plain.fenec_distances(u, labels, u, centres, a1, a2)[..., 0]
    np.testing.assert_allclose(learner.scores(x[:, 0]), expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


def test_fenec_log_trains_two_numbers_on_the_first_task():
    x, labels = draw(5, [40, 3, 45, 30], DIM)
    learner = learned("fenec", x, labels, *by_class(labels, [3, 1]), centres=4, log=3)
    u, centres = unit(x[:, 0].astype(np.float64)), [part.numpy() for part in learner.classifier.centres]
    assert [len(part) for part in centres] == [4, 1, 4, 4]
    distances = plain.fenec_distances(u, labels, u, centres, 6.12, 8.10, nearest=3)
    first, batches = np.flatnonzero(labels < 3), []
    draws = numpy_generator(derive_seed(learner.seed, "centres"), "distance logits")
    for _ in range(10):
        order = draws.permutation(len(first))
        batches += np.split(order, range(64, len(order), 64))
    a, b = plain.fenec_training(distances[first][:, :3], labels[first], batches)
    np.testing.assert_allclose(learner.state()["classifier.logits.numbers"].numpy(), [a, b], rtol=1e-6)
    assert a != 0 and b != -1
    np.testing.assert_allclose(learner.scores(x[:, 0]), plain.fenec_logits(distances, a, b), rtol=1e-6, atol=1e-9)


def test_layup_chooses_lambda_by_stratified_folds_and_all_sums():
    x, labels, stops, rows, parts = problem(seed=7, each=12)
    learner = learned("layup", x, labels, *stops)
    weights, lam = plain.layup_weights(parts)
    assert learner.classifier.lam == lam
    np.testing.assert_allclose(learner.scores(x[:, 0]), rows @ weights, rtol=1e-6, atol=1e-8)


def test_folds_are_those_of_scikit_learn_and_go_on_below_one_row_each():
    labels = np.random.default_rng(1).permutation(np.repeat([3, 5, 9], [7, 4, 13]))
    folds = plain.StratifiedKFold(4).split(labels, labels)
    expected = np.empty_like(labels)
    for number, (_, held) in enumerate(folds):
        expected[held] = number
    np.testing.assert_array_equal(stratified_folds(torch.from_numpy(labels)), expected)
    assert stratified_folds(torch.tensor([4, 2, 2])).tolist() == [2, 0, 1]


@pytest.mark.parametrize("rows", [3, 30])
def test_acil_may_choose_its_ridge_without_held_out_rows(rows):
    x, labels = draw(3, [rows] * 4, 5)
    learner = learned("acil", x, labels, *by_class(labels, [2, 2]), buffer=30, selection="gcv")
    h = random_features(learner, x)
    assert learner.classifier.lam != 0.1
    expected = h @ ridge_weights(h, one_hot(labels), learner.classifier.lam)
    np.testing.assert_allclose(learner.scores(x[:, 0]), expected, rtol=1e-6, atol=1e-8)


def test_single_precision_that_is_not_enough_becomes_double_for_all_of_a_solution():
    """Features so large that a factor in single precision fails after one that did not."""
    x, labels, _, _, _ = problem(each=5)
    x = (x * np.where(labels == 0, 1.0, 1e9)[:, None, None]).astype(np.float32)
    learner = LEARNERS["ranpac"](seed=derive_seed(5, "x"), expansion=40, lam=1.0)
    for c in range(4):
        part = np.flatnonzero(labels == c)
        learner.observe(Task(c, range(c, c + 1), Rows(x[part], labels[part], part)))
        assert np.isfinite(learner.scores(x[part, 0])).all()
