"""One Gaussian a class, and heads aligned on samples of them (SLCA, arXiv 2303.05118; methods.md 7).

What is kept of a class is its mean and a factor F of its covariance, F^T F = Sigma_c, with at most n_c - 1 rows: the
singular directions of the centred rows times their singular values, falling, each with its largest entry positive. That
follows from Sigma_c alone: all sets of rows of one mean and covariance give the same F. (The mean and covariance of two
rows fix the rows, and the mean of one row is the row: there every method that keeps these statistics keeps as much.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tosca_cache.closed_form.base import Stateful
from tosca_cache.config import Settings
from tosca_cache.luca.module import finite
from tosca_cache.seeds import derive_seed
from tosca_cache.train.gradient import Group, Step, cross_entropy, fit

EXTRA_STD = 1e-2  # every class is sampled from N(mu_c, Sigma_c + 1e-4 I)
NEGLIGIBLE = 1e-10  # of the largest singular value; smaller ones are rounding
NORM_FLOOR = 1e-7


def covariance_factor(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [d] and covariance factor F [r, d] of rows [n, d], float64: F^T F is their covariance (divisor n - 1)."""
    x = finite(x.double())
    mean = x.mean(0)
    _, sizes, directions = torch.linalg.svd((x - mean) / max(len(x) - 1, 1) ** 0.5, full_matrices=False)
    kept = sizes > NEGLIGIBLE * max(float(sizes.max()), float(x.abs().max()), 1e-300)
    factor = sizes[kept].unsqueeze(1) * directions[kept]
    largest = factor.gather(1, factor.abs().argmax(1, keepdim=True))
    return mean, factor * largest.sign()


class Gaussians(Stateful):
    """means: [C, d]. factors: one [r_c, d] a class. Both float64, on the CPU."""

    learned = ("means", "factors")

    def __init__(self) -> None:
        self.means = torch.empty(0, 0, dtype=torch.float64)
        self.factors: list[Tensor] = []

    def observe(self, x: Tensor, labels: Tensor, classes: range) -> None:
        """Adds classes by their rows: features [n, d], labels [n]."""
        x, labels = x.cpu(), labels.cpu()
        found = [covariance_factor(x[labels == c]) for c in classes]
        means = torch.stack([mean for mean, _ in found])
        self.means = torch.cat([self.means, means]) if len(self.means) else means
        self.factors += [factor for _, factor in found]

    def sample(self, scales: Tensor, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """`count` vectors of each class from N(scale_c mu_c, Sigma_c + 1e-4 I), [C, count, d] in float32.

        x = scale mu + F^T z + 1e-2 e with standard normal z [r_c] and e [d]: the covariance of that is F^T F + 1e-4 I.
        """
        C, d = self.means.shape
        drawn = torch.empty(C, count, d)
        drawn.normal_(generator=generator).mul_(EXTRA_STD)
        drawn += (self.means * scales.unsqueeze(1)).float().unsqueeze(1)
        for c, factor in enumerate(self.factors):
            drawn[c].addmm_(torch.randn(count, len(factor), generator=generator), factor.float())
        return drawn.to(device)


@dataclass(frozen=True)
class Alignment:
    """How heads are trained on samples; an epoch is `per_class` vectors of every class, shuffled.

    settings: optimizer, rates, epochs and batch size. tau: of the logit normalisation; None: logits as they are.
    """

    settings: Settings
    per_class: int
    tau: float | None = None

    def run(
        self,
        tensors: Sequence[Tensor],
        logits: Callable[[Tensor], Tensor],
        gaussians: Gaussians,
        task_classes: Sequence[range],
        *,
        seed: int,
        scales: Tensor | None = None,
    ) -> None:
        """Trains tensors of one model in place.

        Arguments:
            tensors: what is trained; `logits` uses them.
            logits: from features [1, n, d] to [1, n, C].
            blocks: the classes of each task, for the normalisation.
            seed: of this alignment alone.
            scales: of the means, [C]; 1 if None.
        """
        device = tensors[0].device
        task_of = torch.cat([torch.full((len(block),), t) for t, block in enumerate(task_classes)])
        member = torch.nn.functional.one_hot(task_of, len(task_classes)).float().to(device)  # [C, T]

        def loss(step: Step) -> Tensor:
            """Cross-entropy of the samples [1], of normalised logits where there is a temperature."""
            found = logits(step.x)
            if self.tau is not None:
                squares = found.square() @ member  # of each task's logits, [1, n, T]
                norm = (squares + NORM_FLOOR**2).sqrt().mean(2, keepdim=True)
                found = found / norm / self.tau
            return cross_entropy(found, step)

        with torch.enable_grad():
            fit([Group(tensors)], self.settings, self._steps(gaussians, seed, scales, device), loss)

    def _steps(self, gaussians: Gaussians, seed: int, scales: Tensor | None, device: torch.device) -> Iterator[Step]:
        C, d = gaussians.means.shape
        scales = torch.ones(C, dtype=torch.float64) if scales is None else scales
        labels = torch.arange(C).repeat_interleave(self.per_class)
        for epoch in range(self.settings.epochs):
            generator = torch.Generator().manual_seed(derive_seed(seed, "samples", epoch))
            drawn = gaussians.sample(scales, self.per_class, generator, device).view(-1, d)
            order = torch.randperm(len(labels), generator=generator)
            for rows in order.split(self.settings.batch_size):
                targets = labels[rows].to(device).unsqueeze(0)
                yield Step(
                    epoch,
                    drawn[rows.to(device)].unsqueeze(0),
                    targets,
                    torch.full_like(targets, 1.0, dtype=drawn.dtype) / len(rows),
                )
