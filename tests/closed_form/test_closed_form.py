"""Sums over tasks give the joint solution, in float64 also of rows in float32; few rows, scale and singular systems."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tosca_cache.closed_form.expansion import RandomFeatures
from tosca_cache.closed_form.gram import add_gram
from tosca_cache.closed_form.lda import Lda, likely_shrinkage
from tosca_cache.closed_form.means import NearestMean
from tosca_cache.closed_form.random_ridge import RandomRidge
from tosca_cache.closed_form.recursive import RecursiveRidge
from tosca_cache.closed_form.ridge import LAMBDAS, Ridge, best_lambda, solve, solve_in_subspace


def rows(seed, classes, each, dim):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes * each) % classes
    means = torch.randn(classes, dim, generator=generator, dtype=torch.float64)
    return means[labels] + 0.5 * torch.randn(len(labels), dim, generator=generator, dtype=torch.float64), labels


def in_tasks(model, x, labels, sizes):
    start = 0
    for size in sizes:
        part = (labels >= start) & (labels < start + size)
        model.observe(x[part], labels[part], start + size)
        start += size
    return model


def test_lda_of_one_row_a_class_as_written_out():
    """Means about the mean of all rows, half as long, and the covariance of all rows."""
    x, labels = rows(5, 4, 1, 7)
    ours, plain = in_tasks(Lda(), x, labels, [1, 3]), x.numpy()
    away, e = plain - plain.mean(0), ours.chosen_shrinkage()
    covariance = np.cov(plain.T)
    inverse = np.linalg.inv((1 - e) * covariance + e * np.trace(covariance) / 7 * np.eye(7))
    wanted = away @ inverse @ away.T - np.einsum("cd,de,ce->c", away, inverse, away) / 4
    np.testing.assert_allclose(ours.scores(x), wanted, atol=1e-8 * np.abs(wanted).max())


def test_where_directions_or_rows_do_not_tell_the_mean_variance_alone_counts():
    generator = torch.Generator().manual_seed(3)
    assert likely_shrinkage(torch.eye(5, dtype=torch.float64), 9) == 1
    assert likely_shrinkage(torch.randn(30, 5, generator=generator, dtype=torch.float64).T.cov(), 1) == 1


def test_lda_does_not_see_the_scale_of_features():
    x, labels = rows(4, 4, 10, 5)
    plain, scaled = in_tasks(Lda(), x, labels, [2, 2]), in_tasks(Lda(), 1000 * x, labels, [2, 2])
    assert torch.equal(plain.scores(x).argmax(1), scaled.scores(1000 * x).argmax(1))


def test_singular_equations_are_solved_too():
    G, Q = torch.zeros(3, 3, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64)
    G[0, 0] = 1e20
    assert torch.isfinite(solve(G, Q, 0.0)).all()


@pytest.mark.parametrize("rows", [0, 1, 5, 1300])
def test_rows_of_float32_are_summed_nearly_as_in_float64_whatever_they_have_in_common(rows):
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 300, generator=generator) + 100 * torch.rand(300, generator=generator)
    start = torch.eye(300, dtype=torch.float64)
    found, wanted = add_gram(start.clone(), x), start + x.double().T @ x.double()
    scatter = x.double().sub(x.double().mean(0)).square().sum(0).mean() if rows else 0.0
    assert (found - wanted).abs().max() <= 1e-5 * scatter + 1e-12 * wanted.abs().max()  # rounding of x - mean: 4e-6
    assert torch.equal(found, found.T)


MADE = {
    "lda": Lda,
    "mean": NearestMean,
    "ridge": Ridge,
    "random": lambda: RandomRidge(RandomFeatures(20, seed=0), seed=0, lam=1.0),
    "recursive": lambda: RecursiveRidge(RandomFeatures(20, seed=0), gamma=1.0),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_a_state_stays_as_it_is_whoever_learns_on(make):
    """The one that gave it, and one that took it."""
    generator = torch.Generator().manual_seed(0)
    rows, labels = torch.randn(60, 6, generator=generator, dtype=torch.float64), torch.arange(60) % 4
    giver, taker = make(), make()
    giver.observe(rows, labels, 4)
    state = giver.state()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    taker.load_state(state)
    for one in (giver, taker):
        one.observe(rows[:7] + 1, labels[:7], 4)
    assert state.keys() == kept.keys() and all(torch.equal(state[name], kept[name]) for name in kept)
    assert torch.equal(giver.scores(rows), taker.scores(rows))


@settings(max_examples=12, deadline=None)
@given(least=st.integers(-2, 6), most=st.integers(6, 11), classes=st.integers(1, 2), seed=st.integers(0, 10**6))
def test_solutions_of_few_factors_are_those_of_a_factor_each(least, most, classes, seed):
    """Whatever the eigenvalues: evenly spaced in their logarithm, from 10^least to 10^most."""
    generator = torch.Generator().manual_seed(seed)
    size = 420
    vectors = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    values = torch.logspace(least, most, size, dtype=torch.float64)
    A = vectors * values @ vectors.T
    B = torch.randn(size, classes, generator=generator, dtype=torch.float64)
    for lam, x in zip(LAMBDAS, solve_in_subspace((A + A.T) / 2, B), strict=True):
        assert x is not None
        exact = vectors @ ((vectors.T @ B) / (values + lam).unsqueeze(1))
        assert float((B - A @ x - lam * x).norm() / B.norm()) < 2e-5
        off = (x - exact).square().sum(0) * lam + ((A @ (x - exact)) * (x - exact)).sum(0)
        assert float(off.max()) < 1e-8 * float((exact * B).sum(0).min())


def test_lambda_of_shared_factors_is_that_of_a_factor_each(monkeypatch):
    """Rows of fewer and of more features than there are, those of a class whose rows are all the same among them."""
    for seed, each, size in ((0, 70, 200), (1, 120, 200), (2, 83, 200), (3, 70, 420)):
        x, labels = rows(seed, 3, each, 20)
        x[labels == 2] = x[2].clone()
        h = RandomFeatures(size, seed=seed).apply(x)
        found, _ = best_lambda(h, labels)
        with monkeypatch.context() as patch:
            patch.setattr("tosca_cache.closed_form.ridge.LARGE", 0)
            patch.setattr("tosca_cache.closed_form.ridge.DEPTH", 3)
            patch.setattr("tosca_cache.closed_form.ridge._solve_each", None)
            assert best_lambda(h, labels)[0] == found
