"""FeTrIL (arXiv 2211.13131): a classifier of true current rows and of pseudo-rows of past classes (methods.md 3).

Kept between tasks are the class means; the classifier is trained from nothing at each task.
- `classifier="svc"` is the published one-vs-rest linear SVM on unit-length features: scikit-learn's LinearSVC with C = 1
  and tolerance 1e-4 in the primal, which takes minutes on large stores. That is why the default is `"hinge"`, which
  minimises the same objective for all classes side by side (`squared_hinge`), in float32 and to another tolerance.
- `"sgd"` is the paper's other classifier, a linear layer trained by SGD, of which the official code has nothing; it is as
  in the FeCAM repository (`by_sgd`). There the first task trains it for 200 epochs along with the backbone, here it is
  trained as in later tasks. Features come as they are: where they are large (DINOv2), its rate makes it so unsteady that
  rounding shows in predictions.
- All features are brought to unit length (but for `"sgd"`); the official code leaves out its first batch of 512.
- Nearest is by Euclidean distance as in the official code; `metric="cosine"` is as in the paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tosca_cache.closed_form.means import NearestMean, unit
from tosca_cache.config import Settings
from tosca_cache.learners.base import FloatArray, Learner, Positive, register_learner
from tosca_cache.learners.learning import LinearKind
from tosca_cache.seeds import derive_seed
from tosca_cache.tasks import Rows, Task
from tosca_cache.train.gradient import Group, cross_entropy, fit, task_steps
from tosca_cache.train.loop import EpochDone

# Of FeCAM's repository.
SGD = Settings(lr=0.05, momentum=0.9, weight_decay=5e-4, epochs=50, batch_size=128, eta_min=0.0)
SVC_TOLERANCE = 1e-4


@register_learner
class FeTril(Learner):
    """Stores the class means [C, d]; the classifier [d + 1, C] only serves until the next task, unless trained by SGD.

    Arguments:
        classifier: see above. metric: by which a past class finds its nearest current one.
        C: weight of the errors against the size of the weights, for every classifier but `sgd`.
    """

    name = "fetril"
    source = "FeTrIL (arXiv 2211.13131)"
    agrees = (
        "equal to the official code (GregoirePetit/FeTrIL, codes/compute_distances.py and train_classifiers.py, e010af0), "
        "solved to another tolerance and with all rows at unit length, there all but the first 512; `classifier=sgd` to "
        "dipamgoswami/FeCAM, models/fetril.py, 5a70aab, after the first task."
    )

    learned = ("prototypes", "weights")
    on_cpu = learned

    def __init__(
        self,
        *,
        classifier: Literal["hinge", "svc", "sgd"] = "hinge",
        metric: Literal["cosine", "euclidean"] = "euclidean",
        C: Positive = 1.0,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.classifier, self.metric, self.C = classifier, metric, C
        self.prototypes = NearestMean()
        self.weights = torch.empty(0, 0, dtype=torch.float64)  # [d + 1, C], the last row is the intercept

    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Adds the means of the task's classes and trains the classifier of all classes."""
        clean = torch.from_numpy(task.train.features[:, 0]).double()
        labels = torch.from_numpy(task.train.labels)
        self.prototypes.observe(clean, labels, task.classes.stop)
        groups = rows_of_every_class(clean, labels, self.prototypes.means, task.classes, metric=self.metric)
        if self.classifier == "sgd":
            self.weights = by_sgd(list(groups), self.weights, seed=self.seed, task=task.number, device=self.device)
        elif self.classifier == "hinge":
            self.weights = squared_hinge(map(unit, groups), C=self.C, device=self.device).double()
        else:
            self.weights = _svc(map(unit, groups), self.C)

    def scores(self, features: FloatArray) -> FloatArray:
        """Distances from the hyperplanes or logits, [n, C]."""
        x = torch.from_numpy(features).double()
        x = x if self.classifier == "sgd" else unit(x)
        scores: FloatArray = (x @ self.weights[:-1] + self.weights[-1]).numpy()
        return scores

    @property
    def trainable_parameters(self) -> int:
        """The classifier, if it is trained by SGD."""
        return self.weights.numel() if self.classifier == "sgd" else 0


def _svc(groups: Iterable[Tensor], C: float) -> Tensor:
    from sklearn.svm import LinearSVC

    rows = [group.numpy() for group in groups]
    if len(rows) == 1:  # nothing to tell apart
        return torch.zeros(rows[0].shape[1] + 1, 1, dtype=torch.float64)
    labels = np.repeat(np.arange(len(rows)), [len(group) for group in rows])
    svm = LinearSVC(C=C, tol=SVC_TOLERANCE, dual=False).fit(np.concatenate(rows), labels)
    weights = np.concatenate([svm.coef_, svm.intercept_[:, None]], 1)
    return torch.from_numpy(np.concatenate([-weights, weights]) if len(rows) == 2 else weights).T.contiguous()


def by_sgd(groups: list[Tensor], before: Tensor, *, seed: int, task: int, device: torch.device) -> Tensor:
    """A linear layer trained by SGD on the cross-entropy over all classes, by the settings `SGD`.

    It goes on from the layer before; rows of new classes start uniform within (3 / d)^1/2, their biases at 0.

    Arguments:
        groups: rows of each class as they are, [n_c, d]. before: the layer of the task before, [d + 1, C'].

    Returns:
        Weights over (x, 1), [d + 1, C], float64.
    """
    kind, d, new = LinearKind(), groups[0].shape[1], len(groups) - before.shape[1]
    generator = torch.Generator().manual_seed(derive_seed(seed, "fetril rows", task))
    fresh = (2 * torch.rand(new, d, generator=generator) - 1) * (3 / d) ** 0.5
    layer = torch.cat([before.T.reshape(-1, d + 1), torch.cat([fresh, torch.zeros(new, 1)], 1).double()]).float()
    rows = {"weight": layer[None, :, :-1].contiguous().to(device), "bias": layer[None, :, -1].contiguous().to(device)}
    labels = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    train = Rows(torch.cat(groups).float().numpy()[:, None], labels, np.arange(len(labels)))
    steps = task_steps([Task(task, range(len(groups)), train)], [seed], SGD, device)
    fit([Group(list(rows.values()))], SGD, steps, lambda step: cross_entropy(kind.logits(step.x, {}, rows), step))
    return torch.cat([rows["weight"][0], rows["bias"][0].unsqueeze(1)], 1).T.double().cpu().contiguous()


def nearest(past: Tensor, current: Tensor, *, metric: str) -> Tensor:
    """For each past mean [P, d] the nearest of the current ones [K, d] by a metric, [P]."""
    if metric == "cosine":
        return (unit(past) @ unit(current).T).argmax(1)
    return torch.cdist(past, current).argmin(1)


def rows_of_every_class(x: Tensor, labels: Tensor, means: Tensor, current: range, *, metric: str) -> Iterator[Tensor]:
    """The rows to train on, one [n_c, d] for each class in order.

    A past class p has x - mean(n) + mean(p) for every row x of its nearest current class n; a current class has its own.

    Arguments:
        x, labels: rows of the current classes, [n, d] and [n].
        means: of all classes, [C, d], C = current.stop.
    """
    chosen = nearest(means[: current.start], means[current.start :], metric=metric) + current.start
    for p, n in enumerate(chosen.tolist()):
        yield x[labels == n] - means[n] + means[p]
    for c in current:
        yield x[labels == c]


ITERATIONS = 50
TOLERANCE = 3e-4  # of the first gradient's norm, in the class where it is largest
ACTIVE = 0.02  # share of all rows assumed within the margin by the preconditioner; it changes the speed alone
STEPS = 4  # of Newton's method along a line, on which the objective is piecewise quadratic
TINY = 1e-30


@torch.no_grad()
def squared_hinge(groups: Iterable[Tensor], *, C: float, device: torch.device | str = "cpu") -> Tensor:
    """Minimises |w_c|^2 / 2 + C sum_i max(0, 1 - y_ic w_c . (x_i, 1))^2 for every class c, with y_ic = 1 in it and else -1.

    Arguments:
        groups: rows of each class, [n_c, d].

    Returns:
        Weights over (x, 1), [d + 1, classes], float32.
    """
    rows = [group.to(device).float() for group in groups]
    x = torch.cat(rows)
    h = torch.cat([x, x.new_ones(len(x), 1)], 1)  # [n, d + 1]
    labels = torch.cat([torch.full((len(group),), c, device=x.device) for c, group in enumerate(rows)])
    y = -h.new_ones(len(h), len(rows)).scatter_(1, labels.unsqueeze(1), -1.0)  # [n, classes]
    curvature = 2 * C * ACTIVE * h.T @ h + torch.eye(h.shape[1], device=h.device)
    factor = torch.linalg.cholesky(curvature)
    W, slack = h.new_zeros(h.shape[1], len(rows)), torch.ones_like(y)  # slack = 1 - y f
    direction, old, old_step, first = torch.zeros_like(W), torch.zeros_like(W), torch.zeros_like(W), torch.empty(0)
    for iteration in range(ITERATIONS):
        gradient = W - 2 * C * (h.T @ (y * slack.clamp_min(0)))
        size = gradient.norm(dim=0)
        if iteration == 0:
            first = size.clamp_min(TINY)
        if float((size / first).max()) < TOLERANCE:
            break
        step = torch.cholesky_solve(gradient, factor)
        beta = ((step * (gradient - old)).sum(0) / (old * old_step).sum(0).clamp_min(TINY)).clamp_min(0)
        direction = beta * direction - step
        uphill = (direction * gradient).sum(0) >= 0
        direction = torch.where(uphill, -step, direction)
        along = y * (h @ direction)
        length = _minimum(W, direction, slack, along, C)
        W, slack = W + length * direction, slack - length * along
        old, old_step = gradient, step
    return W.cpu()


def _minimum(W: Tensor, direction: Tensor, slack: Tensor, along: Tensor, C: float) -> Tensor:
    """How far to go along each class's direction, [classes]: the slack falls by `along` a unit."""
    inner, square = (W * direction).sum(0), direction.square().sum(0)
    length = torch.zeros_like(inner)
    for _ in range(STEPS):
        within = slack - length * along
        active = along * (within > 0)
        slope = inner + length * square - 2 * C * (within * active).sum(0)
        length = length - slope / (square + 2 * C * active.square().sum(0)).clamp_min(TINY)
    return length
