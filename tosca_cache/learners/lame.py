"""LAME (arXiv 2201.05718): neighbouring test rows draw the predictions of a base learner together (methods.md 13.2).

A test-time option and not a learner of its own: what is learned and stored is the base learner's. A row's answer depends
on its batch, so it belongs into no table of learners that answer row by row. Against the official code:
- Its default affinity is `rbf`; here it is `knn`, which it has as well. Among rows in random order most others are of other
  classes, and where all cosines are large, as in features after a ReLU, `rbf` draws all of them together: with class means
  as the base, accuracy on groceries under EfficientNet-Lite0 is 54.7 % with `knn` and 4.9 % with `rbf`, and under DINOv2
  38.8 and 30.7 %. Of its settings, `affinity` and the number of neighbours (1, 3 or 5) are those that it tunes.
- The temperature is ours: class means give cosines, where the official classifier gives logits.
- Test rows lie class by class in most stores, which gives the classes away; rows are put into batches at random, from the
  seed.
- The energy that decides when to stop is the stated one; the official code takes twice the affinity term, at the previous
  assignment, so that the number of steps may differ.
- Rows that are all equal, or one row alone, have no width under `rbf`, and the official answer is not a number; here all of
  them draw at each other by 1.
- The iteration lowers the energy for certain only if the affinity is symmetric and has no negative eigenvalue (`rbf`);
  `knn` is neither.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from tosca_cache.closed_form.means import unit
from tosca_cache.config.checks import Count
from tosca_cache.devices import one_thread
from tosca_cache.errors import UsageError
from tosca_cache.learners.base import FloatArray, Learner, Positive, learner_type, register_learner
from tosca_cache.seeds import numpy_generator
from tosca_cache.tasks import Task
from tosca_cache.train.loop import EpochDone

ITERATIONS, TOLERANCE = 100, 1e-8
FLOOR = 1e-10  # of a probability


@register_learner
class Lame(Learner):
    """A base learner's probabilities softmax(scores / temperature), smoothed within batches of test rows.

    Arguments:
        base: name of an exemplar-free learner that answers row by row; it has its own defaults.
        temperature: of the base learner's scores. The default suits cosines, 1 suits logits.
        affinity, k: kind, and its number of neighbours. The official default is `rbf`; why not here, above.
        strength: weight of the affinity; 0 gives the base predictions.
        batch_size: rows that see each other.
    """

    name = "lame"
    source = "LAME (arXiv 2201.05718), over a learner on cached features"
    agrees = (
        "equal to the official code (fiveai/LAME, src/adaptation/lame.py, e6ec610) within a batch, up to when the "
        "iteration stops; its default affinity is `rbf`, and its batches are rows as they come."
    )
    transductive = True
    learned = ("base",)

    def __init__(
        self,
        *,
        base: str = "simplecil",
        temperature: Positive = 1 / 16,
        affinity: Literal["knn", "rbf"] = "knn",
        k: Count = 5,
        strength: float = 1.0,
        batch_size: Count = 64,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        kind = learner_type(base)
        if kind.rehearsal or kind.transductive or kind.bound:
            raise UsageError(
                f"{base} is no base for LAME",
                where="base",
                remedy="use an exemplar-free learner that answers row by row",
            )
        self.base = kind(seed=self.seed, settings=self.settings, device=self.device, engine=self.engine)
        self.temperature, self.strength, self.batch_size = temperature, strength, batch_size
        self.affinity, self.k = affinity, k

    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Lets the base learner learn."""
        self.base.observe(task, on_epoch=on_epoch)

    @one_thread()
    def scores(self, features: FloatArray) -> FloatArray:
        """Assignments, which add up to 1 for each row, [n, C]."""
        scaled = torch.from_numpy(self.base.scores(features)).double() / self.temperature
        found = torch.softmax(scaled, 1)
        x = unit(torch.from_numpy(features).double())
        order = torch.from_numpy(numpy_generator(self.seed, "lame batches").permutation(len(x)))
        for rows in order.split(self.batch_size):
            K = self.strength * affinity_matrix(x[rows], self.affinity, self.k)
            found[rows] = assign(found[rows], K)
        scores: FloatArray = found.numpy()
        return scores

    @property
    def trainable_parameters(self) -> int:
        """The base learner's."""
        return self.base.trainable_parameters


def affinity_matrix(x: Tensor, kind: str, k: int) -> Tensor:
    """How much rows of unit length [n, d] draw at each other, [n, n].

    `knn`: 1 for the k nearest others of a row, 0 elsewhere. `rbf`: exp(-|x - y|^2 / (2 s^2)), s the mean distance to the
    k-th nearest row, where each row is its own first.
    """
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    if kind == "rbf":
        width = distance.kthvalue(min(k, len(x)), dim=1).values.mean().clamp_min(FLOOR)
        return torch.exp(-0.5 * (distance / width) ** 2)
    distance.fill_diagonal_(torch.inf)
    near = distance.topk(min(k, len(x) - 1), dim=1, largest=False).indices
    return torch.zeros_like(distance).scatter_(1, near, 1.0)


def assign(P: Tensor, K: Tensor) -> Tensor:
    """Iterates Z <- softmax(log P + K Z) from Z = P until sum Z log(Z / P) - sum_ij K_ij z_i . z_j / 2 stays.

    Arguments:
        P: probabilities, [n, C]. K: affinities times their strength, [n, n].

    Returns:
        Z, [n, C].
    """
    unary, before = (P + FLOOR).log(), 0.0
    pull = torch.zeros_like(P)
    for iteration in range(ITERATIONS + 1):
        log_Z = torch.log_softmax(unary + pull, 1)
        Z = log_Z.exp()
        pull = K @ Z
        energy = float((Z * (log_Z - unary - pull / 2)).sum())
        if iteration and abs(energy - before) <= TOLERANCE * abs(before):
            break
        before = energy
    return Z
