"""SLCA and OVOR: what heads are aligned on, and the outliers that are pushed down."""

import numpy as np
import pytest
import torch
from small_stream import DIM, SEED, SETTINGS, asked, learn, make_stream

from tosca_cache.config import Settings
from tosca_cache.learners.gaussians import EXTRA_STD, Alignment, Gaussians, covariance_factor
from tosca_cache.learners.ovor import OvorLinear, outliers_around_origin, virtual_outliers
from tosca_cache.learners.slca import Slca, mean_scales


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_sampling_has_the_covariance_of_the_rows_exactly(n):
    """x = mu + F^T z + 1e-2 e: the linear map times its transpose is the covariance + 1e-4 I."""
    x = torch.randn(n, DIM, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    mean, factor = covariance_factor(x)
    expected = torch.from_numpy(np.cov(x.numpy(), rowvar=False)) if n > 1 else torch.zeros(DIM, DIM, dtype=x.dtype)
    A = torch.cat([factor.T, EXTRA_STD * torch.eye(DIM, dtype=x.dtype)], 1)
    torch.testing.assert_close(A @ A.T, expected + 1e-4 * torch.eye(DIM, dtype=x.dtype), rtol=1e-12, atol=1e-14)
    assert len(factor) == min(n - 1, DIM)
    torch.testing.assert_close(mean, x.mean(0))


def test_what_is_kept_of_a_class_follows_from_its_covariance_alone():
    """Other rows of the same mean and covariance (an orthogonal mix of the centred ones) give the same factor."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(7, DIM, generator=generator, dtype=torch.float64)
    ones = torch.ones(7, 1, dtype=x.dtype)
    basis = torch.linalg.qr(torch.cat([ones, torch.randn(7, 6, generator=generator, dtype=x.dtype)], 1))[0][:, 1:]
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=x.dtype))[0]
    centred = x - x.mean(0)
    mixed = x.mean(0) + basis @ turn @ basis.T @ centred
    assert (mixed - x).abs().max() > 0.1
    torch.testing.assert_close(covariance_factor(mixed)[1], covariance_factor(x)[1], rtol=1e-8, atol=1e-10)
    assert torch.cdist(covariance_factor(x)[1], centred).min() > 0.1


def test_samples_follow_their_law():
    gaussians, x = Gaussians(), torch.randn(6, DIM, generator=torch.Generator().manual_seed(2))
    gaussians.observe(torch.cat([x, x + 3]), torch.arange(2).repeat_interleave(6), range(2))
    drawn = gaussians.sample(torch.tensor([1.0, 0.5]), 40000, torch.Generator().manual_seed(0), torch.device("cpu"))
    for c, scale in enumerate((1.0, 0.5)):
        expected = np.cov(x.numpy(), rowvar=False) + 1e-4 * np.eye(DIM)
        np.testing.assert_allclose(drawn[c].mean(0), scale * gaussians.means[c], atol=0.03)
        np.testing.assert_allclose(np.cov(drawn[c].numpy(), rowvar=False), expected, atol=0.05)


def test_means_are_scaled_by_their_age():
    torch.testing.assert_close(
        mean_scales([range(2), range(2, 3), range(3, 4)]),
        torch.tensor([0.9 + 0.1 / 3, 0.9 + 0.1 / 3, 0.9 + 0.2 / 3, 1.0], dtype=torch.float64),
    )


def test_aligned_heads_answer_and_the_heads_before_go_on():
    stream = make_stream()
    rows, labels = asked(stream)
    unaligned, aligned = (
        learn(Slca(alignment_epochs=e, seed=SEED, settings=SETTINGS, per_class=64), stream) for e in (0, 5)
    )
    for name, tensor in unaligned.rows.items():
        assert torch.equal(tensor, aligned.rows[name])
        assert not torch.equal(tensor, aligned.aligned[name])
    right = [(learner.scores(rows).argmax(1) == labels).mean() for learner in (unaligned, aligned)]
    assert right[1] > right[0] + 0.05
    assert right[1] > 0.9


def test_normalised_logits_do_not_depend_on_the_size_of_the_heads():
    """Scaling all heads by the same factor changes nothing in the first loss of the alignment."""
    gaussians, settings = Gaussians(), Settings(epochs=1, batch_size=512, lr=1e-30, weight_decay=0.0)
    x = torch.randn(12, DIM, generator=torch.Generator().manual_seed(3))
    gaussians.observe(x, torch.arange(4).repeat_interleave(3), range(4))
    gradients = []
    for factor in (1.0, 10.0):
        weight = factor * torch.randn(1, 4, DIM, generator=torch.Generator().manual_seed(4))
        seen = []
        weight.requires_grad_()
        weight.register_hook(seen.append)
        Alignment(settings, 32, 0.1).run(
            [weight], lambda z, w=weight: torch.bmm(z, w.transpose(1, 2)), gaussians, [range(1), range(1, 4)], seed=1
        )
        gradients.append(factor * seen[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def test_virtual_outliers_lie_around_the_boundary_or_around_the_origin():
    generator = torch.Generator().manual_seed(5)
    x = 0.1 * torch.randn(40, DIM, generator=generator) + 20
    x[7] += 3  # far from all others
    options = OvorLinear(boundary=1, draws=30, kept=12, seed=SEED)
    outliers = virtual_outliers(x, options, torch.Generator().manual_seed(0))
    assert outliers.shape == (12, DIM)
    assert torch.cdist(outliers, x).argmin(1).eq(7).all()
    again = OvorLinear(boundary=1, draws=30, kept=30, seed=SEED)
    every = virtual_outliers(x, again, torch.Generator().manual_seed(0))
    torch.testing.assert_close(every[:12], outliers)  # the farthest are kept
    far = torch.cdist(every, x).sort(1).values[:, 38]
    assert (far.diff() <= 1e-5).all()
    assert outliers_around_origin(x, 1, options, torch.Generator().manual_seed(0)).norm(dim=1).max() < 2


def test_outliers_are_surer_of_nothing_with_a_larger_weight():
    """The energy gap between virtual outliers and rows grows with the weight of the term."""
    stream, gaps = make_stream(3, rows=30, spread=0.3), []
    for weight in (0.0, 5.0):
        learner = OvorLinear(weight=weight, tau_in=-8.0, tau_out=0.0, spread=1.0, seed=SEED, settings=SETTINGS)
        task = stream.task(0)
        learner.observe(task)
        x = torch.from_numpy(task.train.features[:, 0])
        outliers = virtual_outliers(x, learner, torch.Generator().manual_seed(1))
        energy = [-learner.logits(part, learner.module, learner.rows).logsumexp(1).mean() for part in (x, outliers)]
        gaps.append(float(energy[1] - energy[0]))
    assert gaps[1] > gaps[0] + 0.1
