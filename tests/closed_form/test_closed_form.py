"""Sums over tasks give the joint solution, and lambda is chosen as it says."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from tosca_cache.closed_form.lda import Lda
from tosca_cache.closed_form.means import NearestMean
from tosca_cache.closed_form.ridge import LAMBDAS, Ridge, best_lambda, solve


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


SPLITS = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(sizes=SPLITS, each=st.integers(1, 6), dim=st.integers(2, 9), seed=st.integers(0, 10**6))
def test_incremental_is_joint(sizes, each, dim, seed):
    """Also with one row a class and fewer rows than dimensions."""
    classes = sum(sizes)
    x, labels = rows(seed, classes, each, dim)
    for make in (Lda, NearestMean, Ridge, lambda: Ridge(20, seed=5)):
        parts, whole = in_tasks(make(), x, labels, sizes), in_tasks(make(), x, labels, [classes])
        if isinstance(parts, Ridge):
            parts.lam = whole.lam = 0.1  # lambda is a choice of the last task, by its own rows
            torch.testing.assert_close(parts.Q, whole.Q, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(parts.scores(x), whole.scores(x), rtol=1e-6, atol=1e-8)


def test_ridge_solves_its_equation():
    x, labels = rows(1, 5, 8, 6)
    ridge = in_tasks(Ridge(), x, labels, [2, 3])
    ridge.finalize()
    y = torch.nn.functional.one_hot(labels, 5).double()
    weights = torch.linalg.solve(x.T @ x + ridge.lam * torch.eye(6, dtype=torch.float64), x.T @ y)
    torch.testing.assert_close(ridge.scores(x), x @ weights, rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(each=st.integers(1, 9), dim=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_lambda_is_the_one_of_least_error_on_the_held_out_fifth(each, dim, seed):
    x, labels = rows(seed, 3, each, dim)
    y = torch.nn.functional.one_hot(labels, 3).double()
    held = len(x) - int(0.8 * len(x))
    fit, check = x[:-held], x[-held:]
    chosen = best_lambda(x, y)
    errors = {}
    for lam in LAMBDAS:
        weights = torch.linalg.lstsq(
            torch.cat([fit, lam**0.5 * torch.eye(dim, dtype=torch.float64)]),
            torch.cat([y[:-held], torch.zeros(dim, 3, dtype=torch.float64)]),
        ).solution
        errors[lam] = float((check @ weights - y[-held:]).square().mean())
    assert errors[chosen] <= min(errors.values()) * (1 + 1e-4) + 1e-9


def test_lda_is_textbook_lda():
    x, labels = rows(3, 4, 50, 5)
    ours = in_tasks(Lda(shrinkage=1e-9), x, labels, [1, 3]).scores(x).argmax(1)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", priors=np.full(4, 0.25)).fit(x.numpy(), labels.numpy())
    assert np.array_equal(ours.numpy(), theirs.predict(x.numpy()))


@pytest.mark.parametrize("each", [1, 6])
def test_lda_with_few_rows_as_written_out(each):
    """Means about the mean of all rows, shortened; of one row a class, the covariance of all rows."""
    x, labels = rows(5, 4, each, 7)
    ours, plain = in_tasks(Lda(), x, labels, [1, 3]), x.numpy()
    means = np.stack([plain[labels == c].mean(0) for c in range(4)])
    away = means - plain.mean(0)
    left = plain - (means[labels] if each > 1 else plain.mean(0))
    covariance = left.T @ left / (len(left) - (4 if each > 1 else 1))
    e = ours.chosen_shrinkage()
    inverse = np.linalg.inv((1 - e) * covariance + e * np.trace(covariance) / 7 * np.eye(7))
    lengths = np.einsum("cd,de,ce->c", away, inverse, away)
    a = 1 - 1 / each / (lengths.sum() / 3 / 7) if each > 1 else 0.5
    wanted = (plain - plain.mean(0)) @ inverse @ away.T - max(a, 0) * lengths / 2
    np.testing.assert_allclose(ours.scores(x), wanted, atol=1e-8 * np.abs(wanted).max())


def test_lda_with_unequal_rows_as_written_out():
    """Each mean about the mean of the class means, shortened by its own number of rows and by what lengths say of noise."""
    x, labels = rows(5, 6, 30, 7)
    kept = torch.cat([torch.arange(0, 60), torch.arange(60, 180)[::30], torch.arange(61, 91)[:4]]).unique()
    x, labels = x[kept], labels[kept]
    ours, plain, y = in_tasks(Lda(), x, labels, [2, 4]), x.numpy(), labels.numpy()
    counts, means = np.bincount(y), np.stack([plain[y == c].mean(0) for c in range(6)])
    centre, left = means.mean(0), plain - means[y]
    away, covariance = means - centre, left.T @ left / (len(left) - 6)
    e = ours.chosen_shrinkage()
    inverse = np.linalg.inv((1 - e) * covariance + e * np.trace(covariance) / 7 * np.eye(7))
    lengths = np.einsum("cd,de,ce->c", away, inverse, away)
    line = linregress(1 / counts, lengths / 7)
    noise = max(1, line.slope - line.stderr)
    between = max(0, lengths.sum() / 5 / 7 - noise * (1 / counts).mean())
    a = counts / (noise + counts * between)
    wanted = a / a.mean() * ((plain - centre) @ inverse @ away.T - a * between * lengths / 2)
    np.testing.assert_allclose(ours.scores(x), wanted, atol=1e-8 * np.abs(wanted).max())


def test_lda_does_not_see_the_scale_of_features():
    x, labels = rows(4, 4, 10, 5)
    plain, scaled = in_tasks(Lda(), x, labels, [2, 2]), in_tasks(Lda(), 1000 * x, labels, [2, 2])
    assert torch.equal(plain.scores(x).argmax(1), scaled.scores(1000 * x).argmax(1))


def test_singular_equations_are_solved_too():
    G, Q = torch.zeros(3, 3, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64)
    G[0, 0] = 1e20
    assert torch.isfinite(solve(G, Q, 0.0)).all()
