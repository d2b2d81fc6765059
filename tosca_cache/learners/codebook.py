"""Random projections of features and frozen keys beside them (DKVB, arXiv 2207.11240; methods.md 9)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tosca_cache.devices import one_thread
from tosca_cache.seeds import derive_seed

DECAY, SMOOTHING = 0.95, 1e-5  # of the moving averages
DEAD = 0.1  # of the mean usage: a key used less is put elsewhere
KMEANS_ITERATIONS, EPOCHS, BATCH = 10, 10, 256
ROWS_AT_ONCE = 512
STARTS = ("kmeans", "random")


class Codebook:
    """Keys [heads, keys, key_dim] in random projections u_j = x P_j, whose columns have unit length.

    Keys start at k-means centres of the projected rows (10 iterations) or at N(0, 1), then follow exponential moving
    averages of the rows that are nearest to them over 10 epochs; a key used by less than a tenth of its share is put onto
    a random row of the batch. All that is random follows from the seed. Codes are computed in float64, so that they do not
    depend on the rows asked about beside a row; of equal keys the first answers.
    """

    def __init__(self, heads: int, keys: int, key_dim: int, *, seed: int, start: str = "kmeans") -> None:
        self.heads, self.size, self.key_dim = heads, keys, key_dim
        self.seed, self.start = seed, start
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
        generator, u = self._generator("keys"), self.projected(x).float()
        if self.start == "kmeans":
            picks = [torch.randperm(len(x), generator=generator) for _ in range(-(-self.size // len(x)))]
            keys = u[:, torch.cat(picks)[: self.size]].clone()
            for _ in range(KMEANS_ITERATIONS):
                counts, sums = _totals(u, keys)
                keys = torch.where(counts > 0, sums / counts.clamp_min(1), keys)
        else:
            keys = torch.randn(self.heads, self.size, self.key_dim, generator=generator)
        self._freeze(self._averaged(u, keys, generator).double())

    def codes(self, x: Tensor) -> Tensor:
        """The nearest key of every head for rows [n, d], counted over all heads, [n, heads], int32."""
        parts = [_nearest(self.projected(rows), self.keys, self._bias) for rows in x.split(ROWS_AT_ONCE)]
        offsets = torch.arange(self.heads).unsqueeze(1) * self.size
        return (torch.cat(parts, 1) + offsets).T.contiguous().int()

    def state(self) -> dict[str, Tensor]:
        """The keys; the projections follow from the seed."""
        return {"keys": self.keys}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes keys over."""
        self._freeze(state["keys"])

    def _generator(self, what: str) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, "dkvb", what))

    def _freeze(self, keys: Tensor) -> None:
        self.keys = keys
        self._bias = keys.square().sum(2) / 2
        for head in range(len(keys)):
            _, group = torch.unique(keys[head], dim=0, return_inverse=True)
            same = group.unsqueeze(0) == group.unsqueeze(1)
            self._bias[head, same.tril(-1).any(1)] = torch.inf

    def _averaged(self, u: Tensor, keys: Tensor, generator: torch.Generator) -> Tensor:
        """Keys after the epochs of moving averages."""
        n = u.shape[1]
        share = min(BATCH, n) / self.size
        # Keys at random places have no usage to begin with: those that the first batch does not reach are moved at once.
        counts = u.new_full((self.heads, self.size, 1), share if self.start == "kmeans" else 0.0)
        sums = keys * counts
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
                counts = torch.where(dead, DEAD * share, counts)
                sums = torch.where(dead, elsewhere * DEAD * share, sums)
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
