"""What the learners on raw features say they compute."""

import numpy as np
import pytest
import torch
from methods.test_learners import QUICK, make_stream

from tosca_cache.errors import UsageError
from tosca_cache.methods import METHODS
from tosca_cache.methods.film import Film


def learn(name, stream, **options):
    learner = METHODS[name](seed=7, settings=QUICK, **options)
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
        METHODS["teen"](alpha=1.5)


# APER


@pytest.mark.parametrize("name", ["aper-film", "aper-luca"])
def test_aper_with_the_identity_is_simplecil(name, monkeypatch):
    stream = make_stream(2, None, 9)
    monkeypatch.setattr(METHODS[name], "adapted", lambda self, x: x)
    found = learn(name, stream).scores(rows_of(stream))
    np.testing.assert_allclose(found, learn("simplecil", stream).scores(rows_of(stream)), atol=1e-6)


@pytest.mark.parametrize("name", ["aper-film", "aper-luca"])
def test_aper_trains_on_the_first_task_only(name):
    stream = make_stream(2, None, 9)
    learner = METHODS[name](seed=7, settings=QUICK)
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
