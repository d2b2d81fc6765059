"""OVOR: virtual outliers push down the scores of what a task has not seen (arXiv 2402.04129; methods.md 14.1).

Stage A trains on the task's own classes. Stage B, the last fifth of the epochs, trains the head's rows alone, by
cross-entropy

    + weight * mean [ Huber(relu(s_in - tau_in)) + Huber(relu(tau_out - s_out)) ],      s = -logsumexp(own logits),

s_in of the rows of a batch, s_out of as many virtual outliers. Outliers of a class: those of its clean rows that are
farthest from their K-th neighbour within the class are its boundary points; Gaussian draws around them, of which those
farthest from the class are kept. The distances are between features as the head sees them, after stage A.

`ovor-linear` has a linear head on the raw features and the published thresholds. `ovor-luca` has one LuCA module that
goes on from task to task, as the paper's single prompt does; under its cosine head energies have another scale, so that
its thresholds are quantiles of s_in at the start of stage B.

What differs besides: optimizer, rates and the number of epochs are those of the settings (published: Adam, 40 + 10
epochs). There are at most `boundary` boundary points, but no more than a tenth of the class: of 500 rows that is the
published number, of 50 rows it still is a boundary. The published code draws outliers before each epoch; it computes
boundary points and does not use them, but draws around the origin, for all classes of a task together. `around_origin`
does that too; it is off, since it leaves out what the paper describes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tosca_cache.learners.base import register_learner
from tosca_cache.learners.learning import LinearKind, LucaKind, SingleModuleLearner, TaskTrainer
from tosca_cache.luca.module import normalise
from tosca_cache.seeds import derive_seed, numpy_generator
from tosca_cache.tasks import Task
from tosca_cache.train.gradient import Group, Step, of_one

HEAD_ONLY = 0.2  # of the epochs


class WithOutliers(TaskTrainer["Ovor"]):
    """Both stages. outliers: of each model, [number, d]; empty until stage B starts. thresholds: (tau_in, tau_out), [M]
    each."""

    def __init__(self, learners: Sequence[Ovor], tasks: Sequence[Task]) -> None:
        super().__init__(learners, tasks)
        epochs = self.settings.epochs
        self.stage_b = epochs - max(int(HEAD_ONLY * epochs), 1)  # its first epoch
        self.outliers: list[Tensor] = []
        self.thresholds: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))
        self.draws = [numpy_generator(learner.seed, "which outliers", self.number) for learner in learners]

    def groups(self) -> list[Group]:
        """The module is trained in stage A only."""
        module, rows = super().groups()
        return [Group(module.tensors, lambda epoch: epoch < self.stage_b), rows]

    def extra(self, step: Step, adapted: Tensor) -> Tensor | float:
        """The outlier term in stage B, [M]."""
        if step.epoch < self.stage_b:
            return 0.0
        if not self.outliers:
            self._prepare()
        shown = torch.stack([self._shown(m)[: adapted.shape[1]] for m in range(len(self.learners))])
        tau_in, tau_out = (tau.unsqueeze(1) for tau in self.thresholds)
        too_unsure, too_sure = _huber(self.energy(adapted) - tau_in), _huber(tau_out - self.energy(shown))
        return self.first.weight * ((too_unsure + too_sure) * step.weights).sum(1)

    def energy(self, adapted: Tensor) -> Tensor:
        """-logsumexp of the own logits, [M, n, d] to [M, n]."""
        return -self.kind.logits(adapted, self.module, self.rows).logsumexp(2)

    def _shown(self, model: int) -> Tensor:
        """Outliers for one step of a model, [batch_size, d]; as many are drawn for a short batch, of which some are
        left out."""
        rows = self.outliers[model]
        return rows[
            torch.from_numpy(self.draws[model].integers(0, len(rows), self.settings.batch_size)).to(rows.device)
        ]

    @torch.no_grad()
    def _prepare(self) -> None:
        first, thresholds = self.first, []
        for m, learner in enumerate(self.learners):
            x, labels = self.clean(m)
            generator = torch.Generator().manual_seed(derive_seed(learner.seed, "outliers", self.number))
            if first.around_origin:
                self.outliers.append(outliers_around_origin(x, len(self.classes), first, generator))
            else:
                each = [virtual_outliers(x[labels == c], first, generator) for c in self.classes]
                self.outliers.append(torch.cat(each))
            logits = self.kind.logits(x.unsqueeze(0), of_one(self.module, m), of_one(self.rows, m))
            energy = -logits.logsumexp(2)[0]
            thresholds.append(first.thresholds(energy))
        found = torch.stack(thresholds).to(self.device)
        self.thresholds = (found[:, 0], found[:, 1])


class Ovor(SingleModuleLearner):
    """OVOR on cached features.

    Arguments:
        weight: lambda, of the outlier term.
        neighbour: K, at most the number of other rows of the class.
        boundary: boundary points a class, at most a tenth of its rows (one at least).
        draws: Gaussian draws around each. spread: their standard deviation in every channel.
        kept: outliers a class.
        around_origin: draw around the origin instead, as the published code does (see `outliers_around_origin`).
    """

    source = "OVOR (arXiv 2402.04129)"
    agrees = (
        "differs: a LuCA module or a linear head behind the backbone instead of a prompt inside it, for LuCA quantiles as "
        "thresholds, and outliers once a task; outliers and loss are equal to the paper's equations (section 3), and with "
        "around_origin outliers equal to the official code (jpmorganchase/ovor, learners/ood.py, commit 8623f97)."
    )
    own_classes = True
    training = WithOutliers

    def __init__(
        self,
        *,
        weight: float = 0.1,
        neighbour: int = 50,
        boundary: int = 50,
        draws: int = 600,
        spread: float = 0.1,
        kept: int = 40,
        around_origin: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.weight, self.neighbour, self.boundary = weight, neighbour, boundary
        self.draws, self.spread, self.kept, self.around_origin = draws, spread, kept, around_origin

    def thresholds(self, energy: Tensor) -> Tensor:
        """tau_in and tau_out, [2], from the energies of the task's clean rows, [n]."""
        raise NotImplementedError


@register_learner
class OvorLinear(Ovor):
    """On a linear head over the raw features. tau_in, tau_out: thresholds, as published."""

    name = "ovor-linear"
    kind = LinearKind()

    def __init__(self, *, tau_in: float = -15.0, tau_out: float = -3.0, **common: Any) -> None:
        super().__init__(**common)
        self.tau_in, self.tau_out = tau_in, tau_out

    def thresholds(self, energy: Tensor) -> Tensor:
        """As given."""
        return torch.tensor([self.tau_in, self.tau_out])


@register_learner
class OvorLuca(Ovor):
    """On one LuCA module for all tasks, and its cosine head. quantiles: of s_in, where the thresholds lie."""

    name = "ovor-luca"
    kind = LucaKind()

    def __init__(self, *, quantiles: tuple[float, float] = (0.25, 0.95), **common: Any) -> None:
        super().__init__(**common)
        self.quantiles = quantiles

    def thresholds(self, energy: Tensor) -> Tensor:
        """Quantiles of the energies."""
        return torch.quantile(energy, torch.tensor(self.quantiles, device=energy.device)).cpu()


def virtual_outliers(x: Tensor, options: Ovor, generator: torch.Generator) -> Tensor:
    """Virtual outliers of one class from its rows, [n, d] to [kept, d] (fewer if fewer are drawn)."""
    n, d = x.shape
    k = min(options.neighbour, max(n - 1, 1))
    inner = torch.cdist(x, x).topk(min(k + 1, n), largest=False).values[:, -1]  # a row is its own nearest
    points = x[inner.topk(min(options.boundary, max(n // 10, 1))).indices]
    noise = torch.randn(len(points), options.draws, d, generator=generator).to(x)
    drawn = (points.unsqueeze(1) + options.spread * noise).flatten(0, 1)
    outer = torch.cdist(drawn, x).topk(min(k, n), largest=False).values[:, -1]
    return drawn[outer.topk(min(options.kept, len(drawn))).indices]


def outliers_around_origin(x: Tensor, classes: int, options: Ovor, generator: torch.Generator) -> Tensor:
    """Virtual outliers of a task as the published code makes them: rows of all its classes [n, d] to [kept x classes, d].

    The same Gaussian draws around the origin stand for every boundary point; those are kept that are farthest from their
    K-th neighbour among the rows at unit length. So of each draw that is kept there are as many copies as boundary points.
    """
    drawn = options.spread * torch.randn(options.draws, x.shape[1], generator=generator).to(x)
    outer = torch.cdist(drawn, normalise(x)).topk(min(options.neighbour, len(x)), largest=False).values[:, -1]
    copies = drawn[outer.argsort(descending=True)].repeat_interleave(min(options.boundary, len(x)), 0)
    return copies[: options.kept * classes]


def _huber(excess: Tensor) -> Tensor:
    """Huber loss of the positive part: square below 1, linear above."""
    positive = F.relu(excess)
    return F.smooth_l1_loss(positive, torch.zeros_like(positive), reduction="none")
