"""What the learners on raw features say they compute."""

import numpy as np
import pytest
import torch
from learners.test_learners import QUICK, make_stream
from sklearn.svm import LinearSVC

from tosca_cache.errors import UsageError
from tosca_cache.learners import LEARNERS
from tosca_cache.learners.dkvb import Codebook
from tosca_cache.learners.fetril import balanced_ridge, rows_of_every_class, squared_hinge
from tosca_cache.learners.film import Film
from tosca_cache.learners.lame import affinity_matrix, assign
from tosca_cache.tasks import Arrays, Rows, Task, TaskStream


def learn(name, stream, **options):
    learner = LEARNERS[name](seed=7, settings=QUICK, **options)
    for task in stream:
        learner.observe(task)
    return learner


def rows_of(stream):
    return np.concatenate([stream.test(t).features[:, 0] for t in range(len(stream))])


# TEEN


def test_teen_without_calibration_is_simplecil():
    stream = make_stream(2, None, 5)
    found = learn("teen", stream, alpha=0.0).scores(rows_of(stream))
    np.testing.assert_allclose(found, learn("simplecil", stream).scores(rows_of(stream)), atol=1e-12)


def test_teen_calibrates_as_written():
    """Row by row against the equations, on classes of the second task."""
    stream = make_stream(2, 4, 5)
    learner = learn("teen", stream, alpha=0.3, tau=2.0)
    means = learn("simplecil", stream).classifier.means.numpy()
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(learner.classifier.means[:4], learn("simplecil", stream).classifier.means[:4])
    for c in range(4, 8):
        weights = np.exp([2.0 * means[c] @ means[b] for b in range(4)])
        pull = (weights / weights.sum()) @ means[:4]
        expected = 0.7 * means[c] + 0.3 * pull / np.linalg.norm(pull)
        np.testing.assert_allclose(learner.classifier.means[c], expected, atol=1e-12)


def test_teen_of_whole_alpha_is_the_base_classes_alone():
    stream = make_stream(2, 4, 5)
    prototypes = learn("teen", stream, alpha=1.0, tau=1e4).classifier.means
    base = prototypes[:4] / prototypes[:4].norm(dim=1, keepdim=True)
    assert torch.allclose((prototypes[4:] @ base.T).amax(1), torch.ones(4, dtype=torch.float64), atol=1e-6)
    with pytest.raises(UsageError, match="alpha"):
        LEARNERS["teen"](alpha=1.5)


# FeCAM, SLDA


@pytest.mark.parametrize("name, option", [("fecam", {"covariance": "other"}), ("slda", {"estimator": "other"})])
def test_fecam_and_slda_know_their_options(name, option):
    with pytest.raises(UsageError, match="other"):
        LEARNERS[name](**option)


@pytest.mark.parametrize("power", [0.5, 0.0])
def test_tukeys_transform_refuses_features_that_have_no_power(power):
    """Rows to learn and rows to answer for."""
    stream = make_stream(4, None, 9)
    with pytest.raises(UsageError, match="Tukey"):
        learn("fecam", stream, tukey=power)
    task = stream.task(0)
    rows = Rows(np.abs(task.train.features), task.train.labels, task.train.index)
    learner = LEARNERS["fecam"](tukey=power)
    learner.observe(Task(0, task.classes, rows))
    with pytest.raises(UsageError, match="Tukey"):
        learner.scores(-np.ones((1, 6), np.float32))


def test_streaming_lda_goes_on_from_task_to_task_and_depends_on_the_order_of_rows():
    stream = make_stream(2, None, 9)
    task, back = stream.task(1), np.arange(18)[::-1]
    turned = Task(1, task.classes, Rows(task.train.features[back], task.train.labels[back], task.train.index))
    scores = []
    for second in (task, turned):
        learner = LEARNERS["slda"](estimator="streaming")
        learner.observe(stream.task(0))
        learner.observe(second)
        scores.append(learner.scores(rows_of(stream)))
    assert not np.allclose(scores[0], scores[1])


# APER


@pytest.mark.parametrize("name", ["aper-film", "aper-luca"])
def test_aper_with_the_identity_is_simplecil(name, monkeypatch):
    stream = make_stream(2, None, 9)
    monkeypatch.setattr(LEARNERS[name], "adapted", lambda self, x: x)
    found = learn(name, stream).scores(rows_of(stream))
    np.testing.assert_allclose(found, learn("simplecil", stream).scores(rows_of(stream)), atol=1e-6)


@pytest.mark.parametrize("name", ["aper-film", "aper-luca"])
def test_aper_trains_on_the_first_task_only(name):
    stream = make_stream(2, None, 9)
    learner = LEARNERS[name](seed=7, settings=QUICK)
    learner.observe(stream.task(0))
    module, trained = learner.module_state(), learner.trainable_parameters
    assert trained > sum(tensor.numel() for tensor in module.values())
    x = torch.from_numpy(stream.task(0).train.features[:, 0])
    assert not torch.allclose(learner.adapted(x), x, atol=1e-3)
    learner.observe(stream.task(1))
    assert learner.trainable_parameters == 0
    for key, tensor in learner.module_state().items():
        assert torch.equal(tensor, module[key])


def test_aper_with_unit_halves_weighs_both_the_same():
    stream = make_stream(2, None, 9)
    halves = learn("aper-luca", stream, unit_halves=True).joined(rows_of(stream)).unflatten(1, (2, 6))
    assert torch.allclose(halves.norm(dim=2), torch.ones(len(halves), 2), atol=1e-6)


def test_film_lowers_the_loss_on_a_channel_of_noise():
    """A channel of large noise is turned down by its gain."""
    stream = make_stream(4, None, 9)
    task = stream.task(0)
    task.train.features[:, :, 3] = 20 * np.random.default_rng(0).normal(size=task.train.features.shape[:2])
    settings = QUICK.__class__(epochs=20, batch_size=8, lr=0.1)
    film = Film.trained(task, settings, seed=1)
    assert film.gamma[3].abs() < 0.5 * film.gamma[[0, 1, 2, 4, 5]].abs().min()
    assert film.trained_numbers == 2 * 6 + 4 * 6 + 1


# FeTrIL


def make_shifted(rows=9, dim=6):
    """Eight classes that are one cloud at eight places: features [n, 1, d] and labels."""
    generator = np.random.default_rng(5)
    cloud, places = generator.normal(size=(rows, dim)), 3 * generator.normal(size=(8, dim))
    return (places[:, None] + cloud - cloud.mean(0)).reshape(-1, 1, dim).astype(np.float32), np.repeat(range(8), rows)


@pytest.mark.parametrize("options", [{}, {"metric": "cosine"}, {"classifier": "ridge"}, {"classifier": "svc"}])
def test_fetril_on_one_shifted_cloud_is_training_on_all_rows(options):
    arrays = Arrays(*make_shifted())
    names = [str(c) for c in range(8)]
    stepwise, jointly = (TaskStream(arrays, arrays, class_names=names, increment=step, seed=3) for step in (2, 8))
    rows = rows_of(jointly)
    found, expected = (learn("fetril", stream, **options).scores(rows) for stream in (stepwise, jointly))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert (expected.argmax(1) == jointly_labels(jointly)).mean() > 0.8


def jointly_labels(stream):
    return np.concatenate([stream.test(t).labels for t in range(len(stream))])


def test_fetril_moves_rows_of_the_nearest_current_class_to_past_means():
    means = torch.tensor([[4.5, 4.0], [-1.0, 9.0], [1.0, 0.0], [0.0, 5.0]], dtype=torch.float64)
    x = means[[2, 2, 3]] + torch.tensor([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.0]], dtype=torch.float64)
    labels = torch.tensor([2, 2, 3])
    for metric, sources in (("cosine", [2, 3]), ("euclidean", [3, 3])):
        groups = list(rows_of_every_class(x, labels, means, range(2, 4), metric=metric))
        assert len(groups) == 4
        for past, source in enumerate(sources):
            assert torch.equal(groups[past], x[labels == source] - means[source] + means[past])
        assert torch.equal(torch.cat(groups[2:]), x)


def test_balanced_ridge_solves_the_weighted_equations():
    """Against the normal equations over all rows, each weighted by what its class lacks."""
    generator = np.random.default_rng(2)
    labels = np.repeat(range(3), (2, 7, 4))
    x = generator.normal(size=(13, 5))
    h, Y = np.concatenate([x, np.ones((13, 1))], 1), np.eye(3)[labels]
    w = (13 / 3 / np.bincount(labels))[labels]
    expected = np.linalg.solve((h.T * w) @ h + 0.3 * np.eye(6), (h.T * w) @ Y)
    groups = [torch.from_numpy(x[labels == c]) for c in range(3)]
    np.testing.assert_allclose(balanced_ridge(groups, lam=0.3), expected, atol=1e-12)


def test_squared_hinge_is_the_linear_svm():
    """Against scikit-learn at a finer tolerance, on classes that overlap."""
    generator = np.random.default_rng(2)
    labels = np.repeat(range(4), (5, 30, 20, 10))
    x = generator.normal(size=(4, 5))[labels] + generator.normal(size=(65, 5))
    found = squared_hinge([torch.from_numpy(x[labels == c]) for c in range(4)], C=0.7)
    svm = LinearSVC(C=0.7, tol=1e-10, dual=False).fit(x, labels)
    expected = np.concatenate([svm.coef_, svm.intercept_[:, None]], 1).T
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("option", ["classifier", "metric"])
def test_fetril_knows_its_options(option):
    with pytest.raises(UsageError, match=option):
        LEARNERS["fetril"](**{option: "other"})


# AdaNPC


def test_adanpc_votes_as_written():
    stream = make_stream(4, None, 9)
    learner, rows = learn("adanpc", stream, k=5, tau=0.3), rows_of(stream)
    memory = [
        (x / np.linalg.norm(x), c) for t in stream for x, c in zip(t.train.features[:, 0], t.train.labels, strict=True)
    ]
    for row, scores in zip(rows, learner.scores(rows), strict=True):
        near = sorted(((m @ row / np.linalg.norm(row), c) for m, c in memory), reverse=True)[:5]
        weights = np.exp([cosine / 0.3 for cosine, _ in near])
        expected = np.zeros(8)
        for weight, (_, c) in zip(weights / weights.sum(), near, strict=True):
            expected[c] += weight
        np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_adanpc_takes_in_no_test_row_above_a_confidence_of_one():
    """A bar that no confidence reaches is the same as none, and the learner only then depends on nothing else."""
    stream = make_stream(4, None, 9)
    off, never, often = (learn("adanpc", stream, k=5, beta=beta, batch_size=4) for beta in (1.1, 1.0, 0.0))
    rows = rows_of(stream)
    assert [learner.transductive for learner in (off, never, often)] == [False, True, True]
    np.testing.assert_allclose(never.scores(rows), off.scores(rows), atol=1e-6)
    first = often.scores(rows)
    assert not np.allclose(first, off.scores(rows), atol=1e-3)
    np.testing.assert_array_equal(first, often.scores(rows))  # what joined is forgotten
    assert often.stored_numbers == off.stored_numbers


def test_adanpc_does_not_profit_from_rows_that_lie_class_by_class():
    """The seed's order is of positions, so that sorted and shuffled rows differ, but sorted rows are not asked in order."""
    stream = make_stream(4, None, 9)
    asked = []

    class Watched(LEARNERS["adanpc"]):
        def _votes(self, x, memory, labels):
            asked.append(x)
            return super()._votes(x, memory, labels)

    learner = Watched(seed=7, beta=0.5, batch_size=4)
    for task in stream:
        learner.observe(task)
    rows = torch.nn.functional.normalize(torch.from_numpy(rows_of(stream)))
    learner.scores(rows.numpy())
    asked = torch.cat(asked)
    assert not torch.allclose(asked, rows)
    assert torch.allclose(asked.sort(0).values, rows.sort(0).values)


def test_adanpc_keeps_so_many_centres_of_a_class():
    stream = make_stream(4, None, 9)
    learner = learn("adanpc", stream, per_class=2)
    assert torch.bincount(learner.labels).tolist() == [2] * 8
    assert torch.allclose(learner.memory.norm(dim=1), torch.ones(16), atol=1e-6)
    labels = jointly_labels(stream)
    assert (learner.scores(rows_of(stream)).argmax(1) == labels).mean() > 0.8
    few = make_stream(4, None, 1)
    np.testing.assert_array_equal(learn("adanpc", few, per_class=2).memory, learn("adanpc", few).memory)


# LAME


def probabilities(n=30, classes=5):
    generator = np.random.default_rng(4)
    x = torch.nn.functional.normalize(torch.from_numpy(generator.normal(size=(n, 6))))
    return x, torch.softmax(torch.from_numpy(2 * generator.normal(size=(n, classes))), 1)


@pytest.mark.parametrize(
    ("kind", "monotone"), [("rbf", False), ("linear", False), ("rbf", True), ("linear", True), ("knn", True)]
)
@pytest.mark.parametrize("strength", [0.5, 3.0])
def test_lame_lowers_its_energy_at_every_iteration(kind, monotone, strength):
    x, P = probabilities()
    Z, energies = assign(P, strength * affinity_matrix(x, kind, 5), monotone=monotone)
    assert len(energies) > 3
    assert np.diff(energies).max() <= 1e-9 * abs(energies[0])
    assert energies[-1] < energies[0]
    assert torch.allclose(Z.sum(1), torch.ones(30, dtype=torch.float64))


def test_lame_damping_keeps_the_fixed_points():
    """Where the damped iteration ends, the plain step on the same symmetric affinity changes nothing."""
    x, P = probabilities()
    K = 0.3 * affinity_matrix(x, "knn", 5)
    Z, _ = assign(P, K, monotone=True)
    plain = torch.softmax(P.log() + (K + K.T) / 2 @ Z, 1)
    assert torch.allclose(Z, plain, atol=1e-3)


def test_lame_energy_as_written():
    x, P = probabilities(6)
    K = affinity_matrix(x, "knn", 2)
    Z, energies = assign(P, K)
    expected = float((Z * (Z / P).log()).sum())
    expected -= sum(float(K[i, j] * (Z[i] @ Z[j])) for i in range(6) for j in range(6)) / 2
    assert energies[-1] == pytest.approx(expected, abs=1e-7)


def test_lame_affinities_as_written():
    x, _ = probabilities(7)
    distance = torch.stack([(x - row).norm(dim=1) for row in x])
    for i, row in enumerate(affinity_matrix(x, "knn", 3)):
        assert sorted(row.nonzero()[:, 0].tolist()) == sorted(distance[i].argsort()[1:4].tolist())
        assert set(row.tolist()) == {0.0, 1.0}
    width = distance.sort(1).values[:, 2].mean()
    assert torch.allclose(affinity_matrix(x, "rbf", 3), torch.exp(-(distance**2) / (2 * width**2)))
    assert torch.equal(affinity_matrix(x, "linear", 3), x @ x.T)


@pytest.mark.parametrize("base", ["simplecil", "tosca"])
def test_lame_without_affinity_is_its_base(base):
    stream = make_stream(4, None, 9)
    rows = rows_of(stream)
    expected = learn(base, stream).scores(rows)
    for options in ({"strength": 0.0}, {"batch_size": 1, "affinity": "knn"}):
        found = learn("lame", stream, base=base, temperature=0.5, **options).scores(rows)
        np.testing.assert_allclose(found, torch.softmax(torch.from_numpy(expected).double() / 0.5, 1), atol=1e-8)


def test_lame_draws_rows_to_their_neighbours():
    """Two tight clouds, each with one row that its base learner takes for the other's class."""
    x = torch.nn.functional.normalize(torch.randn(12, 6, generator=torch.Generator().manual_seed(0)).double())
    x = torch.nn.functional.normalize(x[[0] * 6 + [1] * 6] + 0.05 * x)
    labels = torch.tensor([0] * 6 + [1] * 6)
    P = torch.where(torch.nn.functional.one_hot(labels).bool(), 0.8, 0.2).double()
    P[[0, 6]] = P[[0, 6]].flip(1)
    for kind in ("knn", "rbf"):
        Z, _ = assign(P, affinity_matrix(x, kind, 5))
        assert torch.equal(Z.argmax(1), labels)
    assert not torch.equal(P.argmax(1), labels)


@pytest.mark.parametrize("option", [{"base": "adanpc"}, {"base": "lame"}, {"affinity": "other"}, {"base": "none"}])
def test_lame_knows_what_it_can_stand_on(option):
    with pytest.raises(UsageError):
        LEARNERS["lame"](**option)


# DKVB

SMALL = {"heads": 6, "keys": 8, "key_dim": 3}


def fetched_by(learner, task):
    every = torch.from_numpy(task.train.features).flatten(0, 1)
    return torch.unique(learner.codebook.codes(every).long())


@pytest.mark.parametrize("start", ["kmeans", "random"])
def test_dkvb_changes_only_values_that_its_rows_fetch(start):
    stream = make_stream(2, None, 9)
    learner = LEARNERS["dkvb"](seed=7, settings=QUICK, start=start, **SMALL)
    learner.observe(stream.task(0))
    untouched = 0
    for number in range(1, len(stream)):
        keys, before = learner.codebook.keys.clone(), learner.values.clone()
        learner.observe(stream.task(number))
        assert torch.equal(learner.codebook.keys, keys)
        others = torch.ones(len(before), dtype=torch.bool)
        others[fetched_by(learner, stream.task(number))] = False
        untouched += int(others.sum())
        seen = before.shape[1]
        assert torch.equal(learner.values[others, :seen], before[others])
        assert not learner.values[others, seen:].any()
        assert not torch.equal(learner.values[~others, :seen], before[~others])
    assert untouched > 10


def test_dkvb_places_its_keys_without_labels_and_by_the_first_task():
    stream = make_stream(4, None, 9)
    first, other = (LEARNERS["dkvb"](seed=7, settings=QUICK, **SMALL) for _ in range(2))
    first.observe(stream.task(0))
    task = stream.task(0)
    task.train.labels[:] = np.roll(task.train.labels, 5)
    other.observe(task)
    assert torch.equal(first.codebook.keys, other.codebook.keys)
    assert not torch.equal(first.values, other.values)


def test_dkvb_step_is_the_gradient_of_the_loss():
    """One step, against autograd through the mean of the fetched values."""
    task = make_stream(4, None, 2).task(0)
    task.train.features[:, 1:] = task.train.features[:, :1]
    once = QUICK.__class__(epochs=1, batch_size=100)
    learner = LEARNERS["dkvb"](seed=7, settings=once, rate=0.2, **SMALL)
    learner.observe(task)
    codes = learner.codebook.codes(torch.from_numpy(task.train.features[:, 0])).long()
    values = torch.zeros(48, 4, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(
        values[codes].mean(1), torch.from_numpy(task.train.labels), label_smoothing=0.1
    )
    (gradient,) = torch.autograd.grad(loss, values)
    torch.testing.assert_close(learner.values, -0.2 * len(codes) * 6 * gradient)


def test_codes_are_the_nearest_keys():
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    book = Codebook(3, 7, 2, seed=4)
    book.fit(x)
    u = book.projected(x)
    assert torch.allclose(book._projection.norm(dim=0), torch.ones(6, dtype=torch.float64))
    for head in range(3):
        expected = torch.cdist(u[head], book.keys[head]).argmin(1)
        assert torch.equal(book.codes(x)[:, head].long(), expected + 7 * head)


@pytest.mark.parametrize("start", ["kmeans", "random"])
def test_keys_lie_among_the_rows(start):
    """Far better than one key alone: what rows lose to their nearest key is a small part of their variance."""
    x = 10 + torch.randn(300, 4, generator=torch.Generator().manual_seed(1)).double()
    book = Codebook(5, 32, 2, seed=4, start=start)
    book.fit(x)
    u = book.projected(x)
    lost = torch.cdist(u, book.keys).amin(2).square().mean()
    assert lost < 0.2 * (u - u.mean(1, keepdim=True)).square().sum(2).mean()


@pytest.mark.parametrize("option", [{"heads": 0}, {"start": "other"}])
def test_dkvb_knows_its_options(option):
    with pytest.raises(UsageError):
        LEARNERS["dkvb"](**option)
