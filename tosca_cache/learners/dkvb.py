"""Discrete Key-Value Bottleneck (arXiv 2207.11240): local updates of what frozen keys point at (methods.md 9).

A feature is projected into many heads; in each, the nearest of its keys fetches a value with one entry a class; the
logits are the mean of the fetched values. Keys are placed by the first task's rows, without labels, then frozen; values
start at zero and only fetched ones change. Against the paper:
- Sizes: 64 heads of 256 keys; the paper has 256 of 4,096, which at 200 classes is 840 MB of values. Both have 14
  dimensions.
- Training: the epochs and batch size of `settings` with a large rate, there at batches of 256. `rate` is how far one row's
  step moves its own logits for one unit of gradient: 0.01, and in the paper lr / (batch size x heads) = 0.3 / (256 x 256) =
  4.6e-6. The published clipping of gradients at norm 1 is left out: the norm is never more than sqrt(2 / heads).
- The softmax is over the classes seen; values grow by zeros for the classes of later tasks.
Scatter-additions are not deterministic on a GPU, so this learner computes on the CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tosca_cache.closed_form.base import Stateful
from tosca_cache.config.checks import Count
from tosca_cache.devices import one_thread
from tosca_cache.learners.base import FloatArray, Learner, register_learner
from tosca_cache.seeds import derive_seed, numpy_generator
from tosca_cache.tasks import Task
from tosca_cache.train.batches import task_batches
from tosca_cache.train.loop import EpochDone

DECAY, SMOOTHING = 0.95, 1e-5  # of the moving averages
DEAD = 0.1  # of the mean usage: a key used less is put elsewhere
EPOCHS, BATCH = 10, 256
ROWS_AT_ONCE = 512
LABEL_SMOOTHING = 0.1
KEY_ROWS = 2048  # of the first task, all views, by which keys are placed


@register_learner
class Dkvb(Learner):
    """Stores keys [heads, keys, key_dim] and values [heads x keys, C].

    Arguments:
        heads, keys, key_dim: sizes of the bottleneck.
        rate: of learning, see above.
    """

    name = "dkvb"
    source = "DKVB (arXiv 2207.11240), with fewer heads and keys"
    agrees = (
        "differs: fewer heads and keys, placed by at most 2,048 rows of the first task, and 20 epochs instead of "
        "2,000; keys, codes, votes and the steps of the values are equal to the official code "
        "(ftraeuble/discrete_key_value_bottleneck, key_value_bottleneck/core.py, commit 1987958)."
    )

    learned = ("codebook", "values")
    on_cpu = learned

    def __init__(
        self,
        *,
        heads: Count = 64,
        keys: Count = 256,
        key_dim: Count = 14,
        rate: float = 0.01,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.rate = rate
        self.codebook = Codebook(heads, keys, key_dim, seed=self.seed)
        self.values = torch.zeros(heads * keys, 0)

    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Trains the values that the task's rows fetch; the first task places the keys before that."""
        every = torch.from_numpy(task.train.features).flatten(0, 1)  # [n (1+V), d]
        if not len(self.codebook.keys):
            chosen = numpy_generator(self.seed, "dkvb", "key rows").permutation(len(every))[:KEY_ROWS]
            self.codebook.fit(every[torch.from_numpy(chosen)])
        codes = self.codebook.codes(every).unflatten(0, task.train.features.shape[:2])  # [n, 1+V, heads]
        grown = self.values.new_zeros(len(self.values), task.classes.stop - self.values.shape[1])
        self.values = torch.cat([self.values, grown], 1)
        self.train(codes, task, on_epoch)

    @one_thread()
    def train(self, codes: Tensor, task: Task, on_epoch: EpochDone | None) -> None:
        """SGD on cross-entropy with label smoothing, on fetched values alone; codes of rows and views, [n, 1+V, heads]."""
        labels, heads, classes, done = torch.from_numpy(task.train.labels), codes.shape[2], self.values.shape[1], 0
        for batch in task_batches(task, self.seed, self.settings):
            if batch.epoch != done and on_epoch is not None:
                on_epoch(done)
            done = batch.epoch
            rows = torch.from_numpy(batch.rows)
            fetched = codes[rows, torch.from_numpy(batch.views)]  # [b, heads]
            gradient = torch.softmax(self.logits(fetched), 1) - LABEL_SMOOTHING / classes
            gradient[torch.arange(len(rows)), labels[rows]] -= 1 - LABEL_SMOOTHING
            step = -self.rate * gradient
            self.values.index_add_(0, fetched.flatten(), step.repeat_interleave(heads, 0))
        if on_epoch is not None:
            on_epoch(done)

    def logits(self, codes: Tensor) -> Tensor:
        """Mean of the values at codes [n, heads], [n, C]."""
        return torch.nn.functional.embedding_bag(codes, self.values, mode="mean")

    def scores(self, features: FloatArray) -> FloatArray:
        """Logits, [n, C]."""
        scores: FloatArray = self.logits(self.codebook.codes(torch.from_numpy(features))).numpy()
        return scores

    @property
    def trainable_parameters(self) -> int:
        """All values, though a task changes those alone that it fetches."""
        return self.values.numel()


class Codebook(Stateful):
    """Keys [heads, keys, key_dim] in random projections u_j = x P_j, whose columns have unit length.

    Keys start at N(0, 1), then follow exponential moving averages of the rows that are nearest to them over 10 epochs; a
    key used by less than a tenth of its share is put onto a random row of the batch, until its average takes it back a
    step later. All that is random follows from the seed. Computed in float64, so that codes do not depend on the rows
    asked about beside a row; of equal keys the first answers.
    """

    learned = ("keys",)

    def __init__(self, heads: int, keys: int, key_dim: int, *, seed: int) -> None:
        self.heads, self.size, self.key_dim, self.seed = heads, keys, key_dim, seed
        self.keys = torch.empty(0, 0, 0, dtype=torch.float64)
        self._bias = torch.empty(0, 0, dtype=torch.float64)  # |key|^2 / 2, infinite for copies, [heads, keys]
        self._projection = torch.empty(0, 0, dtype=torch.float64)

    def projected(self, x: Tensor) -> Tensor:
        """u of rows [n, d], [heads, n, key_dim]."""
        if self._projection.shape[0] != x.shape[1]:
            generator = self._generator("projection")
            P = torch.randn(x.shape[1], self.heads * self.key_dim, generator=generator, dtype=torch.float64)
            self._projection = P / P.norm(dim=0)
        return (x.double() @ self._projection).unflatten(1, (self.heads, self.key_dim)).transpose(0, 1).contiguous()

    @one_thread()
    def fit(self, x: Tensor) -> None:
        """Places the keys by the rows of one task, [n, d], without labels, and freezes them."""
        generator, u = self._generator("keys"), self.projected(x)
        keys = torch.randn(self.heads, self.size, self.key_dim, generator=generator).double()
        self.keys = self._averaged(u, keys, generator)
        self.changed()

    def codes(self, x: Tensor) -> Tensor:
        """The nearest key of every head for rows [n, d], counted over all heads, [n, heads], int32."""
        parts = [_nearest(self.projected(rows), self.keys, self._bias) for rows in x.split(ROWS_AT_ONCE)]
        offsets = torch.arange(self.heads).unsqueeze(1) * self.size
        return (torch.cat(parts, 1) + offsets).T.contiguous().int()

    def _generator(self, what: str) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, "dkvb", what))

    def changed(self) -> None:
        """Finds copies among the keys."""
        self._bias = self.keys.square().sum(2) / 2
        for head in range(len(self.keys)):
            _, group = torch.unique(self.keys[head], dim=0, return_inverse=True)
            same = group.unsqueeze(0) == group.unsqueeze(1)
            self._bias[head, same.tril(-1).any(1)] = torch.inf

    def _averaged(self, u: Tensor, keys: Tensor, generator: torch.Generator) -> Tensor:
        """Keys after the epochs of moving averages."""
        n = u.shape[1]
        share = min(BATCH, n) / self.size
        counts, sums = u.new_zeros(self.heads, self.size, 1), keys
        for _ in range(EPOCHS):
            for rows in torch.randperm(n, generator=generator).split(BATCH):
                batch = u[:, rows]
                used, total = _totals(batch, keys)
                counts, sums = counts.lerp(used, 1 - DECAY), sums.lerp(total, 1 - DECAY)
                whole = counts.sum(1, keepdim=True)
                keys = sums / ((counts + SMOOTHING) / (whole + self.size * SMOOTHING) * whole)
                dead = counts < DEAD * share
                picked = torch.randint(len(rows), (self.heads, self.size, 1), generator=generator)
                elsewhere = batch.gather(1, picked.expand(-1, -1, self.key_dim))
                keys = torch.where(dead, elsewhere, keys)
        return keys


def _nearest(u: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    """argmin_k |u - key_k| in every head, [heads, n]."""
    return torch.baddbmm(bias.unsqueeze(1), u, keys.transpose(1, 2), alpha=-1).argmin(2)


def _totals(u: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """How many rows are nearest to each key, and their sum: [heads, keys, 1] and [heads, keys, key_dim]."""
    bias = keys.square().sum(2) / 2
    nearest = torch.cat([_nearest(rows, keys, bias) for rows in u.split(ROWS_AT_ONCE, 1)], 1).unsqueeze(2)
    counts = torch.zeros_like(keys[:, :, :1]).scatter_add_(1, nearest, torch.ones_like(u[:, :, :1]))
    return counts, torch.zeros_like(keys).scatter_add_(1, nearest.expand_as(u), u)
