"""The newer closed forms against their equations in plain float64, with fewer and with more rows than random features."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learners.test_closed_form_laws import SEEDS, blurry, by_class, draw, learned
from reference import newer_plain as plain
from reference.closed_form_plain import ridge_weights
from sklearn.covariance import oas

from tosca_cache.closed_form.ridge import FOLD_LAMBDAS, stratified_folds
from tosca_cache.errors import UsageError
from tosca_cache.learners import LEARNERS
from tosca_cache.learners.fly_cl import LAMBDAS
from tosca_cache.seeds import derive_seed, numpy_generator
from tosca_cache.tasks import Rows, Task

DIM = 6
SIZES = [8, 90]  # random features, of 36 rows


def problem(seed=2, each=9, sizes=(1, 2, 1)):
    x, labels = draw(seed, [each] * sum(sizes), DIM)
    stops = by_class(labels, list(sizes))
    rows = x[:, 0].astype(np.float64)
    return x, labels, stops, rows, [(rows[part], labels[part]) for part in stops[0]]


def projection(features, dim=DIM):
    return features.projection(dim).numpy().astype(np.float64)


def up_to_a_row(scores):
    """Scores without what all classes of a row share."""
    return scores - scores.mean(1, keepdims=True)


def fourier_rows(learner, rows, member=None):
    drawn = projection((member or learner.classifier).features)
    return plain.fourier(rows, drawn[:-1], drawn[-1])


@pytest.mark.parametrize("size", SIZES)
def test_klda_is_discriminant_analysis_on_fourier_features(size):
    x, labels, stops, rows, _ = problem()
    learner = learned("klda", x, labels, *stops, expansion=size, gamma=0.05, ridge=0.02)
    z = fourier_rows(learner, rows)
    distances = plain.klda_distances(z, labels, z, 0.02)
    found = up_to_a_row(learner.scores(x[:, 0]))
    np.testing.assert_allclose(found, up_to_a_row(-distances / 2), rtol=1e-6, atol=1e-8 * distances.max())
    np.testing.assert_array_equal(found.argmax(1), distances.argmin(1))


@pytest.mark.parametrize("size", SIZES)
def test_randumb_shrinks_its_covariance_as_scikit_learn_does(size):
    x, labels, stops, rows, _ = problem()
    learner = learned("randumb", x, labels, *stops, expansion=size)
    z = fourier_rows(learner, rows)
    distances = plain.oas_distances(z, labels, z)
    theirs, ours = up_to_a_row(-distances), up_to_a_row(learner.scores(x[:, 0]))
    ratio = np.linalg.norm(theirs) / np.linalg.norm(ours)  # one factor for all scores
    np.testing.assert_allclose(ours * ratio, theirs, rtol=1e-6, atol=1e-7 * np.abs(theirs).max())


@settings(max_examples=25, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    tasks=st.integers(1, 6),
    dim=st.integers(1, 6),
    seed=SEEDS,
)
@pytest.mark.parametrize("name", ["klda", "randumb"])
def test_rows_may_come_in_any_order_and_task(name, counts, tasks, dim, seed):
    """As the classes' first rows set no width here, tasks of any rows give what all rows give at once."""
    x, labels = draw(seed, counts, dim)
    options = {"expansion": 15, "gamma": 0.1}
    parts = learned(name, x, labels, *blurry(labels, seed, tasks), **options).scores(x[:, 0])
    joint = learned(name, x, labels, [np.arange(len(x))], [len(counts)], **options).scores(x[:, 0])
    np.testing.assert_allclose(parts, joint, rtol=1e-5, atol=1e-6 * max(1, np.abs(joint).max()))


def test_the_width_of_a_kernel_is_that_of_the_first_task():
    x, labels, stops, _, parts = problem()
    first = parts[0][0]
    pairs = ((first[:, None] - first) ** 2).sum(2)[np.triu_indices(len(first), 1)]
    expected = {"klda": 1 / (2 * np.sort(pairs)[(len(pairs) - 1) // 2]), "randumb": 1 / (DIM * first.var())}
    for name, gamma in expected.items():
        given_width = learned(name, x, labels, *stops, expansion=30, gamma=gamma).scores(x[:, 0])
        own = learned(name, x, labels, *stops, expansion=30)
        np.testing.assert_allclose(own.scores(x[:, 0]), given_width, rtol=1e-7, atol=1e-9)
        assert float(own.state()["gamma"]) == pytest.approx(gamma)
    sigma = learned("gkeal", x, labels, *stops, sigma=0.0).state()["sigma"]
    assert float(sigma) == pytest.approx(np.sqrt(1 / (2 * expected["klda"])))


def test_fourier_features_are_nearly_the_gaussian_kernel():
    x, _, _, rows, _ = problem()
    learner = learned("klda", x, np.zeros(len(x), int), [np.arange(len(x))], [1], expansion=40_000, gamma=0.03)
    z = fourier_rows(learner, rows[:9])
    kernel = np.exp(-0.03 * ((rows[:9, None] - rows[:9]) ** 2).sum(2))
    np.testing.assert_allclose(z @ z.T, kernel, atol=0.03)


def test_klda_e_is_the_mean_probability_of_its_draws():
    x, labels, stops, rows, _ = problem()
    learner = learned("klda-e", x, labels, *stops, draws=3, expansion=20, gamma=0.05, ridge=9.0)
    probabilities = []
    for member in learner.classifier.members:
        z = fourier_rows(learner, rows, member)
        logits = -len(x) * plain.klda_distances(z, labels, z, 9.0) / 2
        likely = np.exp(logits - logits.max(1, keepdims=True))
        probabilities.append(likely / likely.sum(1, keepdims=True))
    mean = np.mean(probabilities, 0)
    assert np.abs(probabilities[0] - probabilities[1]).max() > 1e-3
    found = np.exp(learner.scores(x[:, 0]))
    np.testing.assert_allclose(found / found.sum(1, keepdims=True), mean, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("size", SIZES)
def test_fly_cl_is_ridge_on_winner_take_all_codes(size, scale):
    x, labels, stops, rows, parts = problem()
    x, rows, parts = x * np.float32(scale), rows * scale, [(scale * x, labels) for x, labels in parts]
    learner = learned("fly-cl", x, labels, *stops, expansion=size, inputs=3, active=0.25, precision="float64")
    drawn, count = projection(learner.classifier.features), round(0.25 * size)
    assert ((drawn != 0).sum(0) == 3).all()
    weights, lam = plain.fly_weights(parts, drawn, count, LAMBDAS)
    assert learner.classifier.lam == lam
    np.testing.assert_allclose(
        learner.scores(x[:, 0]), plain.winners(rows, drawn, count) @ weights, rtol=1e-5, atol=1e-9
    )


def test_fly_cl_by_gcv_over_all_rows_does_not_see_the_size_of_features():
    x, labels, stops, _, _ = problem()
    options = {"expansion": 60, "active": 0.25, "precision": "float64", "selection": "gcv"}
    small, large = (learned("fly-cl", x * np.float32(scale), labels, *stops, **options) for scale in (2**-8, 2**8))
    assert large.classifier.lam == pytest.approx(2.0**32 * small.classifier.lam)
    np.testing.assert_allclose(
        large.scores(x[:, 0] * np.float32(2**8)), small.scores(x[:, 0] * np.float32(2**-8)), rtol=1e-7, atol=1e-9
    )


@pytest.mark.parametrize(("size", "rank"), [(90, 50), (90, 15), (20, 50)])
def test_loranpac_keeps_the_leading_directions(size, rank):
    x, labels, stops, rows, parts = problem(sizes=(1, 1, 1, 1))
    learner = learned("loranpac", x, labels, *stops, expansion=size, rank=rank)
    drawn = projection(learner.classifier.features)
    assert len(learner.state()["axes"]) == min(27, rank, size)
    expected = np.maximum(rows @ drawn, 0) @ plain.truncated_weights(parts, drawn, rank)
    np.testing.assert_allclose(learner.scores(x[:, 0]), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("back", "power"), [("paper", 0.5), ("code", -0.5)])
@pytest.mark.parametrize("size", SIZES)
def test_anacp_is_its_equations(size, back, power):
    x, labels, stops, rows, _ = problem()
    options = {
        "expansion": size,
        "heads": 2,
        "gamma": 0.3,
        "per_class": 7,
        "alpha": 0.7,
        "back": back,
        "precision": "float64",
    }
    learner = learned("anacp", x, labels, *stops, **options)
    classifier, u = learner.classifier, plain.unit(rows)
    means, centred = plain.centred_rows(u, labels)
    sigma = centred.T @ centred / (len(u) - 4) + 1e-4 * np.eye(DIM)
    samples = classifier.samples(torch.from_numpy(means), torch.from_numpy(sigma)).numpy().reshape(4, 7, DIM)
    last = projection(classifier.classifier_features())
    drawn = [projection(head.features) for head in classifier.heads]
    expected = plain.anacp_scores(u, labels, u, drawn, last, samples, 0.3, 0.7, power)
    np.testing.assert_allclose(learner.scores(x[:, 0]), expected, rtol=1e-5, atol=1e-7)


def test_anacp_samples_have_the_mean_and_covariance_of_their_class():
    classifier = LEARNERS["anacp"](seed=5, per_class=20_000).classifier
    sigma = np.cov(np.random.default_rng(0).normal(size=(4, 30)) * [[1], [2], [3], [4]])
    means = np.arange(8.0).reshape(2, 4)
    drawn = classifier.samples(torch.from_numpy(means), torch.from_numpy(sigma)).numpy().reshape(2, -1, 4)
    np.testing.assert_allclose(drawn.mean(1), means, atol=0.15)
    np.testing.assert_allclose(np.cov(drawn[1].T), sigma, atol=0.5)
    assert not np.allclose(drawn[0] - means[0], drawn[1] - means[1])


@pytest.mark.parametrize("size", SIZES)
def test_ds_al_compensates_what_its_main_stream_leaves(size):
    x, labels, stops, rows, parts = problem()
    learner = learned("ds-al", x, labels, *stops, buffer=size, gamma=0.2, gamma_comp=0.05, ratio=0.8)
    drawn = projection(learner.classifier.main.features)
    expected = plain.ds_al_scores(parts, rows, drawn, 0.2, 0.05, 0.8)
    np.testing.assert_allclose(learner.scores(x[:, 0]), expected, rtol=1e-6, atol=1e-8)
    acil = learned("acil", x, labels, *stops, buffer=size, gamma=0.2).scores(x[:, 0])
    alone = learned("ds-al", x, labels, *stops, buffer=size, gamma=0.2, ratio=0.0).scores(x[:, 0])
    np.testing.assert_allclose(alone, acil, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("centres", [4, 100])
def test_gkeal_is_ridge_on_kernel_values(centres):
    x, labels, stops, rows, parts = problem()
    learner = learned("gkeal", x, labels, *stops, centres=centres, gamma=0.3, sigma=4.0)
    points = learner.state()["centres"].numpy()
    assert len(points) == min(centres, len(parts[0][0]))
    assert all((point == parts[0][0]).all(1).sum() == 1 for point in points) and len(np.unique(points, axis=0)) == len(
        points
    )
    phi = np.exp(-((rows[:, None] - points) ** 2).sum(2) / (2 * 4.0**2))
    expected = phi @ ridge_weights(phi, plain.one_hot(labels, 4), 0.3)
    np.testing.assert_allclose(learner.scores(x[:, 0]), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_f_oal_is_ridge_on_sigmoid_features_in_any_batches(size):
    x, labels, _, rows, _ = problem()
    learner = learned("f-oal", x, labels, *blurry(labels, 3, 9), buffer=size)
    drawn = projection(learner.classifier.features)
    assert np.abs(drawn).max() <= 1 / np.sqrt(DIM)
    h = 1 / (1 + np.exp(-(rows @ drawn[:-1] + drawn[-1])))
    expected = h @ ridge_weights(h, plain.one_hot(labels, 4), 1.0)
    np.testing.assert_allclose(learner.scores(x[:, 0]), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("a1", "a2"), [(6.12, 8.10), (1.0, 0.0)])
def test_fenec_is_the_distance_to_the_nearest_centre(a1, a2):
    x, labels = draw(5, [1, 3, 9, 30], DIM)
    learner = learned("fenec", x, labels, *by_class(labels, [2, 2]), centres=6, a1=a1, a2=a2)
    u, state = plain.unit(x[:, 0].astype(np.float64)), learner.state()
    assert state["centre_counts"].tolist() == [1, 1, 4, 6]
    centres = [part.numpy() for part in state["centres"].split(state["centre_counts"].tolist())]
    for c, points in enumerate(centres):  # each is the mean of the rows that are nearest to it
        own = u[labels == c]
        nearest = ((own[:, None] - points) ** 2).sum(2).argmin(1)
        np.testing.assert_allclose(points, [own[nearest == i].mean(0) for i in range(len(points))], atol=1e-6)
    expected = -plain.fenec_distances(u, labels, u, centres, a1, a2)
    np.testing.assert_allclose(learner.scores(x[:, 0]), expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


def test_fenec_with_one_centre_is_fecam():
    x, labels, stops, _, _ = problem()
    fenec, fecam = (
        learned(n, x, labels, *stops, a1=2.0, a2=1.0, **o) for n, o in (("fenec", {"centres": 1}), ("fecam", {}))
    )
    np.testing.assert_allclose(fenec.scores(x[:, 0]), fecam.scores(x[:, 0]), rtol=1e-7, atol=1e-9)


def test_fenec_log_trains_two_numbers_on_the_first_task():
    x, labels = draw(5, [40, 3, 45, 30], DIM)
    learner = learned("fenec", x, labels, *by_class(labels, [3, 1]), centres=4, log=3)
    u, state = plain.unit(x[:, 0].astype(np.float64)), learner.state()
    centres = [part.numpy() for part in state["centres"].split(state["centre_counts"].tolist())]
    assert [len(part) for part in centres] == [4, 1, 4, 4]
    distances = plain.fenec_distances(u, labels, u, centres, 6.12, 8.10, nearest=3)
    first, batches = np.flatnonzero(labels < 3), []
    draws = numpy_generator(derive_seed(learner.seed, "centres"), "distance logits")
    for _ in range(10):
        order = draws.permutation(len(first))
        batches += np.split(order, range(64, len(order), 64))
    a, b = plain.fenec_training(distances[first][:, :3], labels[first], batches)
    np.testing.assert_allclose(state["logits"].numpy(), [a, b], rtol=1e-6)
    assert a != 0 and b != -1
    np.testing.assert_allclose(learner.scores(x[:, 0]), plain.fenec_logits(distances, a, b), rtol=1e-6, atol=1e-9)


def test_layup_chooses_lambda_by_stratified_folds_and_all_sums():
    x, labels, stops, rows, parts = problem(seed=7, each=12)
    learner = learned("layup", x, labels, *stops)
    weights, lam = plain.layup_weights(parts, FOLD_LAMBDAS)
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
    parts = by_class(labels, [2, 2])
    acil = learned("acil", x, labels, *parts, buffer=30, selection="gcv").scores(x[:, 0])
    same = {"expansion": 30, "projection": "uniform", "precision": "float64", "selection": "gcv"}
    np.testing.assert_allclose(
        acil, learned("ranpac", x, labels, *parts, **same).scores(x[:, 0]), rtol=1e-8, atol=1e-10
    )
    with pytest.raises(UsageError, match="unknown selection 'split'"):
        LEARNERS["acil"](selection="split")


def test_slda_shrunk_by_oas_is_scikit_learns():
    x, labels, stops, rows, _ = problem()
    means, centred = plain.centred_rows(rows, labels)
    _, shrinkage = oas(centred, assume_centered=True)
    covariance = centred.T @ centred / (len(x) - 4)
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / DIM * np.eye(DIM)
    expected = -plain.mahalanobis(rows, means, np.linalg.inv(shrunk)) / 2
    ours = learned("slda", x, labels, *stops, estimator="oas").scores(x[:, 0])
    np.testing.assert_allclose(up_to_a_row(ours), up_to_a_row(expected), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("slda", {"estimator": "best"}),
        ("anacp", {"back": "there"}),
        ("fly-cl", {"precision": "half"}),
        ("fly-cl", {"selection": "best"}),
    ],
)
def test_an_option_that_is_none_is_named(name, options):
    with pytest.raises(UsageError, match=next(iter(options.values()))):
        LEARNERS[name](**options)


def test_single_precision_that_is_not_enough_becomes_double_for_all_of_a_solution():
    """Features so large that a factor in single precision fails after one that did not."""
    x, labels, _, _, _ = problem(each=5)
    x = (x * np.where(labels == 0, 1.0, 1e9)[:, None, None]).astype(np.float32)
    order = [np.flatnonzero(labels == c) for c in range(4)]
    learner = LEARNERS["ranpac"](seed=derive_seed(5, "x"), expansion=40, lam=1.0)
    for c, part in enumerate(order):
        learner.observe(Task(c, range(c, c + 1), Rows(x[part], labels[part], part)))
        assert np.isfinite(learner.scores(x[part, 0])).all()
